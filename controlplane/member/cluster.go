package member

import (
	"context"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// ClusterID returns the cluster's id as soon as this member knows it.
func (s *Server) ClusterID(ctx context.Context) (string, error) {
	for {
		state, changed := s.catalog.Watch()
		if state.ClusterID != "" {
			return state.ClusterID, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return "", ctx.Err()
		case <-s.ctx.Done():
			return "", rpc.ErrClosed
		}
	}
}

// LeaderAddress returns the address of the member that leads the control plane
// as far as this one knows, or nothing. own is this member's, for a control
// plane of one, whose members' addresses nobody configured.
func (s *Server) LeaderAddress(own string) string {
	leadership, _ := s.consensus.Leadership()
	if leadership.Leading && leadership.LeaderAddress == "" {
		return own
	}
	return leadership.LeaderAddress
}
