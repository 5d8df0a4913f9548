package remote

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/controlplane/rpc/remote/pb"
)

// Bounds on what is taken from a peer. They are above those of the catalog,
// which decides what is registered; these keep nonsense away from it.
const (
	maxGroups   = math.MaxUint16 + 1
	maxReplicas = 64
	maxNames    = 16 << 10
	maxText     = 1 << 10
)

var errMalformed = errors.New("malformed message")

// names gives each node of a message its position in the table of names.
type names struct {
	list  []string
	index map[rpc.NodeID]uint32
}

func (n *names) of(id rpc.NodeID) uint32 {
	if id == "" {
		return 0
	}
	if i, ok := n.index[id]; ok {
		return i
	}
	if n.index == nil {
		n.index = make(map[rpc.NodeID]uint32)
	}
	n.list = append(n.list, string(id))
	i := uint32(len(n.list))
	n.index[id] = i
	return i
}

func (n *names) replicas(rs []rpc.Replica) []uint32 {
	if len(rs) == 0 {
		return nil
	}
	out := make([]uint32, len(rs))
	for i, r := range rs {
		out[i] = n.of(r.Node) << 1
		if r.Voter {
			out[i] |= 1
		}
	}
	return out
}

// nameTable is the table of names of a message from a peer.
type nameTable []rpc.NodeID

func newNameTable(list []string) (nameTable, error) {
	if len(list) > maxNames {
		return nil, fmt.Errorf("%w: %d names", errMalformed, len(list))
	}
	table := make(nameTable, len(list))
	for i, name := range list {
		if name == "" || len(name) > maxText {
			return nil, fmt.Errorf("%w: a name of %d bytes", errMalformed, len(name))
		}
		table[i] = rpc.NodeID(name)
	}
	return table, nil
}

func (t nameTable) node(position uint32) (rpc.NodeID, error) {
	switch {
	case position == 0:
		return "", nil
	case uint64(position) > uint64(len(t)):
		return "", fmt.Errorf("%w: name %d of %d", errMalformed, position, len(t))
	}
	return t[position-1], nil
}

func (t nameTable) replicas(in []uint32) ([]rpc.Replica, error) {
	if len(in) > maxReplicas {
		return nil, fmt.Errorf("%w: %d replicas", errMalformed, len(in))
	}
	if len(in) == 0 {
		return nil, nil
	}
	out := make([]rpc.Replica, len(in))
	for i, v := range in {
		node, err := t.node(v >> 1)
		if err == nil && node == "" {
			err = fmt.Errorf("%w: a replica on no node", errMalformed)
		}
		if err != nil {
			return nil, err
		}
		out[i] = rpc.Replica{Node: node, Voter: v&1 == 1}
	}
	return out, nil
}

func nodeToWire(n *rpc.NodeInfo) *pb.Node {
	return &pb.Node{Id: string(n.ID), Address: n.Address, Zone: n.Zone, Incarnation: n.Incarnation, Version: n.Version}
}

func nodeFromWire(p *pb.Node) (rpc.NodeInfo, error) {
	n := rpc.NodeInfo{
		ID: rpc.NodeID(p.GetId()), Address: p.GetAddress(), Zone: p.GetZone(),
		Incarnation: p.GetIncarnation(), Version: p.GetVersion(),
	}
	for _, text := range []string{p.GetId(), n.Address, n.Zone, n.Incarnation, n.Version} {
		if len(text) > maxText {
			return n, fmt.Errorf("%w: a node with a text of %d bytes", errMalformed, len(text))
		}
	}
	if n.ID == "" {
		return n, fmt.Errorf("%w: a node without id", errMalformed)
	}
	return n, nil
}

func tableToWire(t *rpc.Table) *pb.Table {
	p := &pb.Table{ClusterId: t.ClusterID, Version: t.Version}
	for _, id := range slices.Sorted(maps.Keys(t.Nodes)) {
		n := t.Nodes[id]
		n.ID = id
		p.Nodes = append(p.Nodes, nodeToWire(&n))
	}
	var index names
	for i := range t.Groups {
		g := &t.Groups[i]
		p.Groups = append(p.Groups, &pb.Placement{
			Replicas: index.replicas(g.Replicas), Leader: index.of(g.Leader), Preferred: index.of(g.Preferred),
		})
	}
	p.Names = index.list
	return p
}

func tableFromWire(p *pb.Table) (*rpc.Table, error) {
	index, err := newNameTable(p.GetNames())
	if err != nil {
		return nil, err
	}
	if len(p.GetGroups()) > maxGroups || len(p.GetNodes()) > maxNames {
		return nil, fmt.Errorf("%w: %d groups on %d nodes", errMalformed, len(p.GetGroups()), len(p.GetNodes()))
	}
	t := &rpc.Table{ClusterID: p.GetClusterId(), Version: p.GetVersion(), Nodes: make(map[rpc.NodeID]rpc.NodeInfo, len(p.GetNodes()))}
	for _, n := range p.GetNodes() {
		info, err := nodeFromWire(n)
		if err != nil {
			return nil, err
		}
		t.Nodes[info.ID] = info
	}
	for _, g := range p.GetGroups() {
		var placed rpc.Placement
		var errs [3]error
		placed.Replicas, errs[0] = index.replicas(g.GetReplicas())
		placed.Leader, errs[1] = index.node(g.GetLeader())
		placed.Preferred, errs[2] = index.node(g.GetPreferred())
		if err := errors.Join(errs[:]...); err != nil {
			return nil, err
		}
		t.Groups = append(t.Groups, placed)
	}
	return t, nil
}

// reportToWire fails with rpc.ErrInvalid for what cannot be sent.
func reportToWire(r *rpc.Report) (*pb.SessionRequest, error) {
	var index names
	p := &pb.SessionRequest{
		Node: nodeToWire(&r.Node), HaveAssignment: r.HaveAssignment, DiskUsed: r.DiskUsed, DiskFree: r.DiskFree,
	}
	for i := range r.Groups {
		g := &r.Groups[i]
		p.Groups = append(p.Groups, &pb.GroupReport{
			Group: uint32(g.Group), Leading: g.Leading, Term: g.Term, Applied: g.Applied, LastIndex: g.LastIndex,
			Replicas: index.replicas(g.Replicas),
		})
	}
	p.Names = index.list
	for _, text := range append([]string{p.Node.Id, p.Node.Address, p.Node.Zone, p.Node.Incarnation, p.Node.Version}, p.Names...) {
		if !utf8.ValidString(text) {
			return nil, fmt.Errorf("%w: %q is not UTF-8", rpc.ErrInvalid, text)
		}
	}
	// What the member would refuse is refused here.
	if _, err := reportFromWire(p); err != nil {
		return nil, fmt.Errorf("%w: %w", rpc.ErrInvalid, err)
	}
	return p, nil
}

func reportFromWire(p *pb.SessionRequest) (*rpc.Report, error) {
	node, err := nodeFromWire(p.GetNode())
	if err != nil {
		return nil, err
	}
	index, err := newNameTable(p.GetNames())
	if err != nil {
		return nil, err
	}
	if len(p.GetGroups()) > maxGroups {
		return nil, fmt.Errorf("%w: %d groups", errMalformed, len(p.GetGroups()))
	}
	r := &rpc.Report{Node: node, HaveAssignment: p.GetHaveAssignment(), DiskUsed: p.GetDiskUsed(), DiskFree: p.GetDiskFree()}
	if n := len(p.GetGroups()); n > 0 {
		r.Groups = make([]rpc.GroupReport, n)
	}
	for i, g := range p.GetGroups() {
		if g.GetGroup() >= maxGroups {
			return nil, fmt.Errorf("%w: group %d", errMalformed, g.GetGroup())
		}
		replicas, err := index.replicas(g.GetReplicas())
		if err != nil {
			return nil, err
		}
		r.Groups[i] = rpc.GroupReport{
			Group: uint16(g.GetGroup()), Leading: g.GetLeading(), Term: g.GetTerm(), Applied: g.GetApplied(),
			LastIndex: g.GetLastIndex(), Replicas: replicas,
		}
	}
	return r, nil
}

func assignmentToWire(a *rpc.Assignment) *pb.Assignment {
	var index names
	p := &pb.Assignment{ClusterId: a.ClusterID, Version: a.Version}
	for i := range a.Groups {
		g := &a.Groups[i]
		p.Groups = append(p.Groups, &pb.GroupAssignment{
			Group: uint32(g.Group), Replicas: index.replicas(g.Replicas), Preferred: index.of(g.Preferred), Bootstrap: g.Bootstrap,
		})
	}
	// In order, so that equal assignments have equal encodings.
	for _, id := range slices.Sorted(maps.Keys(a.Addresses)) {
		p.Addresses = append(p.Addresses, &pb.Address{Node: index.of(id), Address: a.Addresses[id]})
	}
	p.Names = index.list
	return p
}

func assignmentFromWire(p *pb.Assignment) (*rpc.Assignment, error) {
	index, err := newNameTable(p.GetNames())
	if err != nil {
		return nil, err
	}
	if len(p.GetGroups()) > maxGroups || len(p.GetAddresses()) > maxNames {
		return nil, fmt.Errorf("%w: %d groups on %d nodes", errMalformed, len(p.GetGroups()), len(p.GetAddresses()))
	}
	a := &rpc.Assignment{ClusterID: p.GetClusterId(), Version: p.GetVersion(), Addresses: make(map[rpc.NodeID]string, len(p.GetAddresses()))}
	for _, g := range p.GetGroups() {
		if g.GetGroup() >= maxGroups {
			return nil, fmt.Errorf("%w: group %d", errMalformed, g.GetGroup())
		}
		replicas, err := index.replicas(g.GetReplicas())
		if err != nil {
			return nil, err
		}
		preferred, err := index.node(g.GetPreferred())
		if err != nil {
			return nil, err
		}
		a.Groups = append(a.Groups, rpc.GroupAssignment{
			Group: uint16(g.GetGroup()), Replicas: replicas, Preferred: preferred, Bootstrap: g.GetBootstrap(),
		})
	}
	for _, address := range p.GetAddresses() {
		node, err := index.node(address.GetNode())
		if err != nil {
			return nil, err
		}
		a.Addresses[node] = address.GetAddress()
	}
	return a, nil
}
