package node

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sync/errgroup"

	controlrpc "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/group"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/storage"
)

// The last assignment is kept with the data, so that a node starts its groups
// without the control plane.
func assignmentKey() []byte {
	return append(storage.AppendPrefix(nil, storage.SpaceNode, 0), "assignment"...)
}

func (n *Node) loadAssignment() (*controlrpc.Assignment, error) {
	value, closer, err := n.engine.DB().Get(assignmentKey())
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load assignment: %w", storage.Classify(err))
	}
	defer closer.Close()
	var a controlrpc.Assignment
	if err := json.Unmarshal(value, &a); err != nil {
		return nil, fmt.Errorf("load assignment: %w: %w", rpc.ErrCorrupt, err)
	}
	return &a, nil
}

// saveAssignment makes the assignment durable without its bootstrap orders: a
// restart must not form a group again on an order that may be stale.
func (n *Node) saveAssignment(a *controlrpc.Assignment) error {
	kept := *a
	kept.Groups = make([]controlrpc.GroupAssignment, len(a.Groups))
	for i, ga := range a.Groups {
		ga.Bootstrap = false
		kept.Groups[i] = ga
	}
	value, err := json.Marshal(&kept)
	if err != nil {
		return fmt.Errorf("save assignment: %w", err)
	}
	if err := n.engine.DB().Set(assignmentKey(), value, pebble.Sync); err != nil {
		return fmt.Errorf("save assignment: %w", storage.Classify(err))
	}
	return nil
}

// converge opens the groups of the assignment that are not open yet, and forms
// those that this node was told to form.
func (n *Node) converge(a *controlrpc.Assignment) error {
	for id, address := range a.Addresses {
		if string(id) != n.conf.ID {
			n.mux.SetAddress(string(id), address)
		}
	}
	var work errgroup.Group
	work.SetLimit(openFanOut)
	for _, ga := range a.Groups {
		if int(ga.Group) >= rpc.Groups {
			continue // of a newer format; not ours to host
		}
		if g := n.groups[ga.Group].Load(); g == nil {
			work.Go(func() error { return n.openGroup(ga) })
		} else if ga.Bootstrap {
			work.Go(func() error { return form(g, ga) })
		}
	}
	return work.Wait()
}

func (n *Node) openGroup(ga controlrpc.GroupAssignment) error {
	id := rpc.Group(ga.Group)
	g, err := group.Open(group.Options{
		Group:         id,
		NodeID:        n.conf.ID,
		DB:            n.engine.DB(),
		State:         n.stateOptions(id),
		NewTransport:  func() group.Transport { return n.mux.Group(ga.Group) },
		Healthy:       n.engine.Health,
		Budget:        n.budget,
		Timing:        n.conf.Timing,
		Logger:        n.log,
		RaftLogger:    n.raftLog,
		Subscriptions: n.subscriptions,
		Changed:       n.leadershipChanged,
		Measure:       n.conf.Measure,
		Tracer:        n.conf.Tracer,
	})
	if err != nil {
		return err
	}
	if ga.Bootstrap {
		if err := form(g, ga); err != nil {
			return errors.Join(err, g.Close())
		}
	} else if g.SoleVoter() {
		g.Campaign()
	}
	n.groups[id].Store(g)
	return nil
}

// form bootstraps a replica that has no state yet. A sole voter need not wait
// for an election timeout.
func form(g *group.Group, ga controlrpc.GroupAssignment) error {
	if err := g.Bootstrap(voters(ga.Replicas)); err != nil {
		return err
	}
	if g.SoleVoter() && g.Leader() == "" {
		g.Campaign()
	}
	return nil
}

func voters(replicas []controlrpc.Replica) []string {
	var ids []string
	for _, r := range replicas {
		if r.Voter {
			ids = append(ids, string(r.Node))
		}
	}
	return ids
}
