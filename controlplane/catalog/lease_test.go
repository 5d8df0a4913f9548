package catalog

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

func grant(group uint16, after uint64, node rpc.NodeID) *GrantLeases {
	return &GrantLeases{At: epoch, Grants: []LeaseGrant{{Group: group, After: after, Node: node, Incarnation: "i"}}}
}

func release(node rpc.NodeID, leases ...rpc.Lease) *ReleaseLeases {
	return &ReleaseLeases{Node: node, Incarnation: "i", Leases: leases}
}

func TestLifeOfALease(t *testing.T) {
	t.Parallel()
	h := cluster(t, "d1", "d2", "d3")
	require.Zero(t, h.state.Lease(3))
	revision, assigned := h.state.Revision, h.state.Nodes["d1"].Assigned
	before := h.state

	h.must(grant(3, 0, "d1"))
	require.Equal(t, Lease{Epoch: 1, Holder: "d1", Incarnation: "i", GrantedAt: stamp(epoch)}, h.state.Lease(3))
	h.must(grant(3, 1, "d2"))
	h.must(release("d2", rpc.Lease{Group: 3, Epoch: 2}))
	require.Equal(t, Lease{Epoch: 2}, h.state.Lease(3))
	h.must(grant(3, 2, "d2"))
	require.EqualValues(t, 3, h.state.Lease(3).Epoch)

	require.Empty(t, before.Leases, "states are immutable")
	require.Equal(t, revision, h.state.Revision, "a lease is in no table")
	require.Equal(t, assigned, h.state.Nodes["d1"].Assigned, "nor in an assignment")
	var snapshot bytes.Buffer
	require.NoError(t, h.state.write(&snapshot))
	restored, err := read(&snapshot)
	require.NoError(t, err)
	require.Equal(t, h.state, restored)
}

func TestRefusedLeases(t *testing.T) {
	t.Parallel()
	require.ErrorIs(t, newHistory(t).apply(grant(0, 0, "d1")).Err, ErrNoCluster)
	h := cluster(t, "d1", "d2", "d3")
	h.must(grant(0, 0, "d1"))
	twice := grant(1, 0, "d1")
	twice.Grants = append(twice.Grants, twice.Grants[0])
	nameless := grant(1, 0, "d1")
	nameless.Grants[0].Incarnation = ""
	another := release("d1", rpc.Lease{Group: 0, Epoch: 1})
	another.Incarnation = "j"
	for name, test := range map[string]struct {
		command Command
		want    error
	}{
		"granted since":       {grant(0, 0, "d2"), ErrStale},
		"epoch of the future": {grant(1, 1, "d2"), ErrStale},
		"unknown node":        {grant(1, 0, "d9"), ErrStale},
		"no such group":       {grant(Groups, 0, "d1"), ErrInvalid},
		"no incarnation":      {nameless, ErrInvalid},
		"twice":               {twice, ErrStale},
		"nothing":             {&GrantLeases{}, ErrInvalid},
		"too many":            {&GrantLeases{Grants: make([]LeaseGrant, Groups+1)}, ErrInvalid},
		"release by another":  {release("d2", rpc.Lease{Group: 0, Epoch: 1}), ErrStale},
		"of a former life":    {another, ErrStale},
		"of another epoch":    {release("d1", rpc.Lease{Group: 0, Epoch: 2}), ErrStale},
		"of no group":         {release("d1", rpc.Lease{Group: Groups, Epoch: 1}), ErrInvalid},
		"of nothing":          {release("d1"), ErrInvalid},
	} {
		leases := h.state.Leases
		require.ErrorIs(t, h.apply(test.command).Err, test.want, name)
		require.Equal(t, leases, h.state.Leases, name)
	}
}

func TestRestoreValidatesLeases(t *testing.T) {
	t.Parallel()
	h := cluster(t, "d1", "d2", "d3")
	h.must(grant(0, 0, "d1"))
	for name, change := range map[string]func(*State){
		"too few":        func(s *State) { s.Leases = s.Leases[:1] },
		"without epoch":  func(s *State) { s.Leases[0].Epoch = 0 },
		"without a name": func(s *State) { s.Leases[0].Incarnation = "" },
	} {
		state := *h.state
		state.Leases = append([]Lease(nil), h.state.Leases...)
		change(&state)
		require.Error(t, state.validate(), name)
	}
}
