package node

import (
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/storage"
	"github.com/fastpaca/fastpaca/dataplane/transport"
)

// Observation is what a node measures of itself, for those who scrape it.
type Observation struct {
	Status    Status
	Storage   storage.Stats
	Transport transport.Stats
	// Groups are the replicas that run, ascending.
	Groups []GroupObservation
}

// GroupObservation is one replica.
type GroupObservation struct {
	Group   rpc.Group
	Leading bool
	// Lag is how many entries of its log the replica has yet to apply.
	Lag uint64
}

// Observe returns the numbers of this moment. It asks every replica and costs
// about a millisecond with all groups. It must not be called after Close.
func (n *Node) Observe() Observation {
	o := Observation{Status: n.Status(), Storage: n.engine.Stats(), Transport: n.mux.Stats()}
	for i := range n.groups {
		g := n.groups[i].Load()
		if g == nil {
			continue
		}
		applied, last := g.Progress()
		o.Groups = append(o.Groups, GroupObservation{Group: rpc.Group(i), Leading: g.Leading(), Lag: last - min(applied, last)})
	}
	return o
}

// WALSync is how long syncs of the storage's log took since Open. It must not be
// called after Close.
func (n *Node) WALSync() storage.Distribution { return n.engine.WALSync() }
