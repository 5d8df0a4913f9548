package member

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/placement"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// reconcile compares what is with what should be and takes the next steps, each
// a command that the catalog checks against the state it then has. Only the
// goroutine that leads calls it, so a step never races another of its own.
func (s *Server) reconcile(t *tenure, state *catalog.State) error {
	if err := s.fit(); err != nil {
		return err
	}
	for _, id := range t.newlySilent(state) {
		s.logger.Warn("node is silent", "node", id, "address", state.Nodes[id].Address, "for", t.ttl)
	}
	switch {
	case state.ClusterID == "":
		return s.createCluster()
	case !state.IsPlaced():
		return s.placeGroups(t, state)
	}
	s.watchHealth(t, state)
	if err := s.noteNodes(t); err != nil {
		return err
	}
	if formed, err := s.formGroups(t, state); formed || err != nil {
		return err
	}
	if granted, err := s.grantLeases(t); granted || err != nil {
		return err
	}
	return s.moveReplicas(t, state)
}

func (s *Server) createCluster() error {
	command := &catalog.CreateCluster{
		ClusterID:         s.cfg.ClusterID,
		ReplicationFactor: s.cfg.ReplicationFactor,
		At:                time.Now(),
	}
	if command.ClusterID == "" {
		command.ClusterID = "fp-" + strings.ToLower(rand.Text())
	}
	if err := s.take("create cluster", command); err != nil {
		return err
	}
	s.logger.Info("cluster created", "cluster", command.ClusterID, "replication_factor", command.ReplicationFactor)
	return nil
}

// placeGroups places the groups that have no place yet, once enough nodes are
// alive.
func (s *Server) placeGroups(t *tenure, state *catalog.State) error {
	living := t.alive(state.NodeIDs())
	living = slices.DeleteFunc(living, func(id rpc.NodeID) bool { return state.Nodes[id].State != catalog.NodeActive })
	if len(living) < s.cfg.BootstrapExpect {
		return nil
	}
	nodes := make([]placement.Node, len(living))
	for i, id := range living {
		node := state.Nodes[id]
		nodes[i] = placement.Node{ID: string(id), Zone: node.Zone, Weight: node.Weight}
	}
	factor := placement.Factor(state.ReplicationFactor, len(nodes), s.cfg.BootstrapExpect)
	plan, err := placement.Initial(nodes, catalog.Groups, factor)
	if err != nil {
		return fmt.Errorf("place groups: %w", err)
	}
	command := &catalog.PlaceGroups{At: time.Now()}
	for number, group := range plan {
		if len(state.Placed[number].Replicas) > 0 {
			continue
		}
		voters := make([]rpc.NodeID, len(group.Nodes))
		for i, id := range group.Nodes {
			voters[i] = rpc.NodeID(id)
		}
		command.Groups = append(command.Groups, catalog.GroupPlacement{
			Group:     uint16(number),
			Voters:    voters,
			Preferred: rpc.NodeID(group.Leader),
			Bootstrap: rpc.NodeID(group.Leader),
		})
	}
	if err := s.take("place groups", command); err != nil {
		return err
	}
	s.logger.Info("groups placed", "groups", len(command.Groups), "nodes", len(nodes), "replicas", len(plan[0].Nodes))
	return nil
}

// formGroups records the groups that have run, so that nobody forms them again.
// It returns whether there were any.
func (s *Server) formGroups(t *tenure, state *catalog.State) (bool, error) {
	groups := t.unformed(state)
	if len(groups) == 0 {
		return false, nil
	}
	slices.Sort(groups)
	if err := s.take("form groups", &catalog.FormGroups{Groups: groups}); err != nil {
		return true, err
	}
	s.logger.Info("groups formed", "groups", len(groups))
	return true, nil
}

// noteNodes records in the event log which nodes went and came. What cannot be
// recorded is not tried again: it has been logged.
func (s *Server) noteNodes(t *tenure) error {
	silent, back := t.toNote()
	if len(silent)+len(back) == 0 {
		return nil
	}
	slices.Sort(silent)
	slices.Sort(back)
	return s.take("note nodes", &catalog.NoteNodes{Silent: silent, Back: back, At: time.Now()})
}

// take proposes a step; a refused one is an error.
func (s *Server) take(step string, command catalog.Command) error {
	result, err := s.propose(s.ctx, command)
	if err == nil {
		err = result.Err
	}
	if err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	return nil
}
