package node

import (
	"context"
	"fmt"
	"io"

	"github.com/fastpaca/fastpaca/dataplane/group"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

var _ rpc.Backup = (*Node)(nil)

// maxExports bounds the groups streamed at a time: each is read whole from the
// disk that writes wait for.
const maxExports = 4

func (n *Node) hostedFor(op string, id rpc.Group) (*group.Group, error) {
	if int(id) >= rpc.Groups {
		return nil, fmt.Errorf("%s: group %d does not exist: %w", op, id, rpc.ErrNotFound)
	}
	return n.hosted(id)
}

// GroupState implements rpc.Backup.
func (n *Node) GroupState(_ context.Context, id rpc.Group) (*rpc.GroupState, error) {
	g, err := n.hostedFor("group state", id)
	if err != nil {
		return nil, err
	}
	return g.GroupState()
}

// Export implements rpc.Backup. One more than maxExports at a time is refused
// with rpc.ErrOverloaded.
func (n *Node) Export(ctx context.Context, id rpc.Group, w io.Writer) error {
	g, err := n.hostedFor("export", id)
	if err != nil {
		return err
	}
	select {
	case n.exporting <- struct{}{}:
		defer func() { <-n.exporting }()
	default:
		return fmt.Errorf("export: %d groups are streamed: %w", maxExports, rpc.ErrOverloaded)
	}
	return g.Export(ctx, w)
}

// Restore implements rpc.Backup.
func (n *Node) Restore(ctx context.Context, req *rpc.RestoreRequest) (*rpc.RestoreReply, error) {
	g, err := n.hostedFor("restore", req.Group)
	if err != nil {
		return nil, err
	}
	return g.Restore(ctx, req)
}
