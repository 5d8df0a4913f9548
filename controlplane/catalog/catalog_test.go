package catalog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 6789, time.FixedZone("somewhere", 3600))

// history applies commands to a state, one index each.
type history struct {
	t     testing.TB
	state *State
}

func newHistory(t testing.TB) *history { return &history{t: t, state: &State{}} }

func (h *history) apply(command Command) Result {
	h.t.Helper()
	data, err := Encode(command)
	require.NoError(h.t, err)
	state, result, err := Apply(h.state, h.state.Index+1, data)
	require.NoError(h.t, err)
	h.state = state
	return result
}

func (h *history) must(command Command) {
	h.t.Helper()
	result := h.apply(command)
	require.NoError(h.t, result.Err)
	require.True(h.t, result.Changed)
}

func create() *CreateCluster {
	return &CreateCluster{ClusterID: "cluster", ReplicationFactor: 3, At: epoch}
}

func register(id string) *RegisterNode {
	return &RegisterNode{ID: rpc.NodeID(id), Address: id + ":7501", Zone: "z", Incarnation: id + "-1", Version: "v1", At: epoch}
}

func place(groups int, nodes ...rpc.NodeID) *PlaceGroups {
	command := &PlaceGroups{}
	for number := range groups {
		command.Groups = append(command.Groups, GroupPlacement{
			Group: uint16(number), Voters: nodes, Preferred: nodes[number%len(nodes)], Bootstrap: nodes[number%len(nodes)],
		})
	}
	return command
}

func form(groups ...uint16) *FormGroups { return &FormGroups{Groups: groups} }

func TestLifeOfACluster(t *testing.T) {
	t.Parallel()
	h := newHistory(t)
	require.ErrorIs(t, h.apply(register("d1")).Err, ErrNoCluster)
	require.ErrorIs(t, h.apply(place(1, "d1")).Err, ErrNoCluster)
	require.ErrorIs(t, h.apply(form(0)).Err, ErrNoCluster)
	h.must(create())
	second := create()
	second.ClusterID = "another"
	require.Equal(t, Result{}, h.apply(second), "the first cluster stays")
	require.Equal(t, "cluster", h.state.ClusterID)
	require.Len(t, h.state.Placed, Groups)
	require.False(t, h.state.IsPlaced())
	require.Nil(t, h.state.Table().Groups)

	h.must(register("d1"))
	require.Equal(t, Result{}, h.apply(register("d1")), "registering again changes nothing")
	h.must(register("d2"))
	node := h.state.Nodes["d1"]
	require.Equal(t, "2026-01-02T02:04:05.000006Z", node.FirstSeen.Format(time.RFC3339Nano))
	require.Equal(t, uint32(DefaultWeight), node.Weight)
	require.Zero(t, node.Assigned)

	h.must(place(Groups, "d2", "d1"))
	require.True(t, h.state.IsPlaced())
	require.ErrorIs(t, h.apply(place(1, "d1")).Err, ErrStale)
	placed := h.state.Index - 1
	require.Equal(t, placed, h.state.Revision, "a refused command is no revision")

	assignment, ok := h.state.Assignment("d1")
	require.True(t, ok)
	require.Equal(t, placed, assignment.Version)
	require.Len(t, assignment.Groups, Groups)
	require.Equal(t, map[rpc.NodeID]string{"d1": "d1:7501", "d2": "d2:7501"}, assignment.Addresses)
	require.Equal(t, rpc.GroupAssignment{
		Group: 1, Replicas: []rpc.Replica{{Node: "d1", Voter: true}, {Node: "d2", Voter: true}}, Preferred: "d1", Bootstrap: true,
	}, assignment.Groups[1])
	require.False(t, assignment.Groups[0].Bootstrap, "d2 forms it")
	_, ok = h.state.Assignment("d9")
	require.False(t, ok)

	h.must(form(1, 3))
	require.Equal(t, Result{}, h.apply(form(1)), "forming again changes nothing")
	formed, _ := h.state.Assignment("d1")
	require.Greater(t, formed.Version, assignment.Version)
	require.False(t, formed.Groups[1].Bootstrap)
	require.True(t, formed.Groups[5].Bootstrap)
	other, _ := h.state.Assignment("d2")
	require.Equal(t, placed, other.Version, "what others formed does not concern it")

	table := h.state.Table()
	require.Equal(t, "cluster", table.ClusterID)
	require.Len(t, table.Groups, Groups)
	require.Equal(t, rpc.NodeID("d2"), table.Groups[0].Preferred)
	require.Equal(t, "d2:7501", table.Nodes["d2"].Address)
}

// A node that lost its disk must never form a group again, whether the catalog
// learned that it was formed or not.
func TestWipedNodeNeverFormsAgain(t *testing.T) {
	t.Parallel()
	h := newHistory(t)
	h.must(create())
	h.must(register("d1"))
	h.must(place(Groups, "d1"))
	h.must(form(0))
	before := h.state.Nodes["d1"].Assigned

	wiped := register("d1")
	wiped.Incarnation = "d1-2"
	require.ErrorIs(t, h.apply(wiped).Err, ErrConflict)
	wiped.Replaces = "d1-0"
	require.ErrorIs(t, h.apply(wiped).Err, ErrConflict)
	require.Equal(t, "d1-1", h.state.Nodes["d1"].Incarnation)
	wiped.Replaces = "d1-1"
	h.must(wiped)
	require.Equal(t, uint32(2), h.state.Nodes["d1"].Generation)

	assignment, _ := h.state.Assignment("d1")
	require.Greater(t, assignment.Version, before)
	require.Empty(t, assignment.Groups, "nor host empty what it was to hold")
	require.ErrorIs(t, h.apply(register("d1")).Err, ErrConflict, "the old directory does not come back")
}

func TestAddressChangeReachesNeighbours(t *testing.T) {
	t.Parallel()
	h := newHistory(t)
	h.must(create())
	for _, id := range []string{"d1", "d2", "d3"} {
		h.must(register(id))
	}
	h.must(place(1, "d1", "d2"))
	placed := h.state.Index
	moved := register("d1")
	moved.Address = "elsewhere:1"
	h.must(moved)
	require.Equal(t, h.state.Index, h.state.Nodes["d1"].Assigned)
	require.Equal(t, h.state.Index, h.state.Nodes["d2"].Assigned)
	require.Zero(t, h.state.Nodes["d3"].Assigned)
	require.Greater(t, h.state.Index, placed)
	upgraded := *moved
	upgraded.Version = "v2"
	assigned := h.state.Nodes["d2"].Assigned
	h.must(&upgraded)
	require.Equal(t, assigned, h.state.Nodes["d2"].Assigned, "a program version is nothing to act on")
}

func TestRefusedCommands(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", MaxAddressBytes+1)
	for name, test := range map[string]struct {
		command Command
		want    error
	}{
		"cluster without id":     {&CreateCluster{ReplicationFactor: 3}, ErrInvalid},
		"cluster factor 0":       {&CreateCluster{ClusterID: "x"}, ErrInvalid},
		"cluster factor 8":       {&CreateCluster{ClusterID: "x", ReplicationFactor: 8}, ErrInvalid},
		"node without id":        {&RegisterNode{Address: "a", Incarnation: "i"}, ErrInvalid},
		"node id with space":     {&RegisterNode{ID: "a b", Address: "a", Incarnation: "i"}, ErrInvalid},
		"node without address":   {&RegisterNode{ID: "a", Incarnation: "i"}, ErrInvalid},
		"node address too long":  {&RegisterNode{ID: "a", Address: long, Incarnation: "i"}, ErrInvalid},
		"node without birth":     {&RegisterNode{ID: "a", Address: "a"}, ErrInvalid},
		"node zone too long":     {&RegisterNode{ID: "a", Address: "a", Incarnation: "i", Zone: long}, ErrInvalid},
		"node version too long":  {&RegisterNode{ID: "a", Address: "a", Incarnation: "i", Version: long}, ErrInvalid},
		"node id is not UTF-8":   {&RegisterNode{ID: "a\x01", Address: "a", Incarnation: "i"}, ErrInvalid},
		"place nothing":          {&PlaceGroups{}, ErrInvalid},
		"place on unknown":       {place(1, "d9"), ErrStale},
		"place twice on a node":  {place(1, "d1", "d1"), ErrInvalid},
		"place on no node":       {&PlaceGroups{Groups: []GroupPlacement{{}}}, ErrInvalid},
		"place group 256":        {&PlaceGroups{Groups: []GroupPlacement{{Group: Groups, Voters: []rpc.NodeID{"d1"}}}}, ErrInvalid},
		"place too many groups":  {place(Groups+1, "d1"), ErrInvalid},
		"prefer a stranger":      {&PlaceGroups{Groups: []GroupPlacement{{Voters: []rpc.NodeID{"d1"}, Preferred: "d2", Bootstrap: "d1"}}}, ErrInvalid},
		"bootstrap a stranger":   {&PlaceGroups{Groups: []GroupPlacement{{Voters: []rpc.NodeID{"d1"}, Preferred: "d1", Bootstrap: "d2"}}}, ErrInvalid},
		"place the second badly": {&PlaceGroups{Groups: append(place(1, "d1").Groups, GroupPlacement{Group: 1})}, ErrInvalid},
		"form what has no place": {form(3), ErrInvalid},
		"form group 256":         {form(Groups), ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHistory(t)
			h.must(create())
			h.must(register("d1"))
			h.must(register("d2"))
			before := *h.state
			require.ErrorIs(t, h.apply(test.command).Err, test.want)
			require.Equal(t, before.Index+1, h.state.Index)
			h.state.Index = before.Index
			require.Equal(t, &before, h.state, "only the index moves")
		})
	}
}

func TestRegistryIsBounded(t *testing.T) {
	t.Parallel()
	h := newHistory(t)
	h.must(create())
	for i := range MaxNodes {
		h.must(register(fmt.Sprint("d", i)))
	}
	require.ErrorIs(t, h.apply(register("one too many")).Err, ErrInvalid)
	require.ErrorIs(t, h.apply(register("one-too-many")).Err, ErrFull)
	require.Equal(t, rpc.NodeID("d0"), h.state.NodeIDs()[0])
	require.Len(t, h.state.NodeIDs(), MaxNodes)
}

func TestCommandsAreSkippedWhenTheStateHoldsThem(t *testing.T) {
	t.Parallel()
	h := newHistory(t)
	h.must(create())
	data, err := Encode(register("d1"))
	require.NoError(t, err)
	state, result, err := Apply(h.state, h.state.Index, data)
	require.NoError(t, err)
	require.Same(t, h.state, state)
	require.Equal(t, Result{}, result)
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	good, err := Encode(create())
	require.NoError(t, err)
	with := func(change func([]byte), payload string) []byte {
		data, err := frame(KindCreateCluster, Version, 0, []byte(payload))
		require.NoError(t, err)
		change(data)
		copy(data[4:], good[4:8])
		sum := frameChecksum(data[:4], data[frameHeader:])
		data[4], data[5], data[6], data[7] = byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)
		return data
	}
	for name, test := range map[string]struct {
		data []byte
		want error
	}{
		"nothing":          {nil, ErrCorrupt},
		"too short":        {good[:7], ErrCorrupt},
		"cut":              {good[:len(good)-1], ErrCorrupt},
		"too long":         {make([]byte, MaxCommandBytes+1), ErrCorrupt},
		"no JSON":          {with(func([]byte) {}, "nope"), ErrCorrupt},
		"another JSON":     {with(func([]byte) {}, "[1]"), ErrCorrupt},
		"newer format":     {with(func(d []byte) { d[0] = 2 }, "{}"), ErrUnsupported},
		"newer version":    {with(func(d []byte) { d[2] = Version + 1 }, "{}"), ErrUnsupported},
		"unknown flag":     {with(func(d []byte) { d[3] = 0x80 }, "{}"), ErrUnsupported},
		"unknown kind":     {with(func(d []byte) { d[1] = 200 }, "{}"), ErrUnsupported},
		"flags of no kind": {with(func(d []byte) { d[1], d[3] = 200, 0x02 }, "{}"), ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Decode(test.data)
			require.ErrorIs(t, err, test.want)
		})
	}
	for at := range good {
		flipped := bytes.Clone(good)
		flipped[at] ^= 1 << (at % 8)
		_, err := Decode(flipped)
		require.ErrorIs(t, err, ErrCorrupt, "byte %d", at)
	}
	later := with(func(d []byte) { d[1], d[3] = 200, flagIgnorable }, `{"new":1}`)
	command, err := Decode(later)
	require.NoError(t, err)
	require.Equal(t, Kind(200), command.kind())
	state, result, err := Apply(&State{}, 1, later)
	require.NoError(t, err)
	require.Equal(t, Result{}, result)
	require.Equal(t, uint64(1), state.Index)
	grown := with(func([]byte) {}, `{"cluster_id":"x","replication_factor":1,"at":"2026-01-01T00:00:00Z","later":{}}`)
	_, err = Decode(grown)
	require.NoError(t, err, "fields of later versions are ignored")
	_, err = Encode(&PlaceGroups{Groups: []GroupPlacement{{Preferred: rpc.NodeID(strings.Repeat("x", MaxCommandBytes))}}})
	require.Error(t, err)
}

// A member that meets a command it cannot apply stops: it neither goes on with
// a state that differs from the others' nor lets it be captured.
func TestCatalogStopsAtWhatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	c := New()
	_, over := c.Watch()
	encoded, err := Encode(create())
	require.NoError(t, err)
	require.Equal(t, Result{Changed: true}, c.Apply(1, encoded))
	<-over
	good := c.State()
	var captured bytes.Buffer
	write, err := c.Capture()
	require.NoError(t, err)
	require.NoError(t, write(&captured))

	unknown, err := frame(99, Version, 0, []byte("{}"))
	require.NoError(t, err)
	_, over = c.Watch()
	require.ErrorIs(t, c.Apply(2, unknown).(Result).Err, ErrUnsupported)
	<-over
	require.ErrorIs(t, c.Err(), ErrUnsupported)
	encoded, err = Encode(register("d1"))
	require.NoError(t, err)
	require.ErrorIs(t, c.Apply(3, encoded).(Result).Err, ErrUnsupported)
	require.Same(t, good, c.State())
	_, err = c.Capture()
	require.ErrorIs(t, err, ErrUnsupported)

	require.Error(t, c.Restore(strings.NewReader("nonsense")))
	require.ErrorIs(t, c.Err(), ErrUnsupported, "a failed restore changes nothing")
	require.NoError(t, c.Restore(&captured))
	require.NoError(t, c.Err(), "a snapshot holds what was missed")
}

func TestSnapshotDetectsEveryFlippedBit(t *testing.T) {
	t.Parallel()
	h := newHistory(t)
	h.must(create())
	h.must(register("d1"))
	var out bytes.Buffer
	require.NoError(t, h.state.write(&out))
	for at := range out.Len() {
		flipped := bytes.Clone(out.Bytes())
		flipped[at] ^= 1 << (at % 8)
		_, err := read(bytes.NewReader(flipped))
		require.ErrorIs(t, err, ErrCorrupt, "byte %d", at)
	}
	_, err := read(io.LimitReader(&out, 50))
	require.ErrorIs(t, err, ErrCorrupt)
}

// States that pass every checksum but break a rule.
func TestRestoreValidates(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(s *State){
		"revision":            func(s *State) { s.Revision = s.Index + 1 },
		"no cluster":          func(s *State) { s.ClusterID = "" },
		"too few groups":      func(s *State) { s.Placed = s.Placed[:7] },
		"node under other id": func(s *State) { s.Nodes["dx"] = s.Nodes["d1"] },
		"assigned tomorrow": func(s *State) {
			n := s.Nodes["d1"]
			n.Assigned = 1 << 40
			s.Nodes["d1"] = n
		},
		"replica of no node":     func(s *State) { s.Placed[0].Replicas[0].Node = "d0" },
		"replica of generation":  func(s *State) { s.Placed[0].Replicas[0].Generation = 2 },
		"replica twice":          func(s *State) { s.Placed[0].Replicas = append(s.Placed[0].Replicas, s.Placed[0].Replicas...) },
		"group changed tomorrow": func(s *State) { s.Placed[0].Changed = 1 << 40 },
		"formed without a place": func(s *State) { s.Placed[200].Formed = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHistory(t)
			h.must(create())
			h.must(register("d1"))
			h.must(place(100, "d1"))
			var out bytes.Buffer
			require.NoError(t, h.state.write(&out))
			state, err := read(&out)
			require.NoError(t, err)
			require.Equal(t, h.state, state)
			damage(state)
			out.Reset()
			require.NoError(t, state.write(&out))
			_, err = read(&out)
			require.ErrorIs(t, err, ErrCorrupt)
		})
	}
}

// drawCommand draws commands that often make sense.
func drawCommand(r *rapid.T) Command {
	ids := []rpc.NodeID{"d1", "d2", "d3", "d4"}
	id := rapid.SampledFrom(ids).Draw(r, "id")
	switch rapid.IntRange(0, 9).Draw(r, "kind") {
	case 0:
		return create()
	case 6:
		return &SetNodeState{Node: id, State: rapid.SampledFrom([]NodeState{NodeActive, NodeDraining, "odd"}).Draw(r, "state")}
	case 7:
		return &RemoveNode{Node: id}
	case 8:
		return &PinLeader{Group: rapid.Uint16Range(0, 9).Draw(r, "group"), Node: id}
	case 9:
		return rapid.SampledFrom([]Command{&StartRebalance{}, &EndRebalance{ID: 3}, &NoteNodes{Silent: []rpc.NodeID{id}},
			&SetNodeWeight{Node: id, Weight: 300}}).Draw(r, "rebalance")
	case 1, 2:
		births := []string{"i1", "i2", "i3"}
		return &RegisterNode{
			ID: id, Address: rapid.SampledFrom([]string{"a:1", "a:2", ""}).Draw(r, "address"),
			Incarnation: rapid.SampledFrom(births).Draw(r, "incarnation"), Replaces: rapid.SampledFrom(births).Draw(r, "replaces"),
			Version: rapid.StringN(0, 4, 8).Draw(r, "version"), At: epoch.Add(time.Duration(rapid.Int64().Draw(r, "at"))),
		}
	case 3, 4:
		command := &PlaceGroups{}
		for _, number := range rapid.SliceOfN(rapid.Uint16Range(0, 9), 0, 3).Draw(r, "groups") {
			voters := rapid.SliceOfN(rapid.SampledFrom(ids), 0, 3).Draw(r, "voters")
			leader := id
			if len(voters) > 0 {
				leader = voters[0]
			}
			command.Groups = append(command.Groups, GroupPlacement{Group: number, Voters: voters, Preferred: leader, Bootstrap: leader})
		}
		return command
	default:
		return &FormGroups{Groups: rapid.SliceOfN(rapid.Uint16Range(0, 9), 0, 4).Draw(r, "groups")}
	}
}

// Goal: one member applies everything; another is captured and restored in
// between and sees commands again. They agree byte for byte, states that readers
// hold never change, and versions never fall.
func TestMembersAgree(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		one, other := New(), New()
		held := map[*State]string{}
		var log [][]byte
		for range rapid.IntRange(1, 40).Draw(r, "commands") {
			data, err := Encode(drawCommand(r))
			require.NoError(r, err)
			log = append(log, data)
			before := one.State()
			index := uint64(len(log))
			require.Equal(r, fmt.Sprint(one.Apply(index, data)), fmt.Sprint(other.Apply(index, data)))
			after := one.State()
			for id, node := range before.Nodes {
				require.GreaterOrEqual(r, after.Nodes[id].Assigned, node.Assigned)
				require.GreaterOrEqual(r, after.Nodes[id].Generation, node.Generation)
			}
			for number, group := range before.Placed {
				require.False(r, group.Formed && !after.Placed[number].Formed, "formed for ever")
			}
			encoded, err := json.Marshal(after)
			require.NoError(r, err)
			held[after] = string(encoded)
			if rapid.IntRange(0, 4).Draw(r, "capture") == 0 {
				var snapshot bytes.Buffer
				write, err := other.Capture()
				require.NoError(r, err)
				require.NoError(r, write(&snapshot))
				other = New()
				require.NoError(r, other.Restore(&snapshot))
				again := rapid.IntRange(0, len(log)).Draw(r, "again from")
				for i := again; i < len(log); i++ {
					other.Apply(uint64(i+1), log[i])
				}
			}
		}
		first, err := one.State().Hash()
		require.NoError(r, err)
		second, err := other.State().Hash()
		require.NoError(r, err)
		require.Equal(r, first, second)
		for state, want := range held {
			encoded, err := json.Marshal(state)
			require.NoError(r, err)
			require.Equal(r, want, string(encoded), "a state that a reader holds has changed")
		}
		require.NoError(r, one.State().validate())
	})
}

// No node is ever told twice to form a group unless it is the same data
// directory and the group was not seen to run.
func TestBootstrapIsToldToOneDirectoryOnly(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		c := New()
		told := map[uint16]string{}
		formed := map[uint16]bool{}
		for i := range rapid.IntRange(1, 60).Draw(r, "commands") {
			data, err := Encode(drawCommand(r))
			require.NoError(r, err)
			c.Apply(uint64(i+1), data)
			state := c.State()
			for _, id := range state.NodeIDs() {
				assignment, _ := state.Assignment(id)
				for _, group := range assignment.Groups {
					if !group.Bootstrap {
						continue
					}
					who := string(id) + "/" + state.Nodes[id].Incarnation
					if before, ok := told[group.Group]; ok {
						require.Equal(r, before, who)
					}
					require.False(r, formed[group.Group])
					told[group.Group] = who
				}
			}
			for number, group := range state.Placed {
				formed[uint16(number)] = group.Formed
			}
		}
	})
}

func FuzzApply(f *testing.F) {
	for _, command := range []Command{create(), register("d1"), place(3, "d1"), form(0, 1), startMove(0, "", "d2"), advance(0, 1, PhaseJoin), abort(0, 1, "d2")} {
		data, err := Encode(command)
		require.NoError(f, err)
		f.Add(data[1], data[frameHeader:])
	}
	h := newHistory(f)
	h.must(create())
	h.must(register("d1"))
	h.must(register("d2"))
	h.must(place(10, "d1", "d2"))
	h.must(form(0, 1, 2))
	h.must(register("d3"))
	h.must(startMove(1, "", "d3"))
	f.Fuzz(func(t *testing.T, kind byte, payload []byte) {
		data, err := frame(Kind(kind), Version, 0, payload)
		if err != nil {
			return
		}
		state, result, err := Apply(h.state, h.state.Index+1, data)
		if err != nil {
			require.Same(t, h.state, state)
			return
		}
		require.NoError(t, state.validate())
		require.Equal(t, result.Changed, state.Revision == state.Index)
		var out bytes.Buffer
		require.NoError(t, state.write(&out))
		restored, err := read(&out)
		require.NoError(t, err)
		require.Equal(t, state, restored)
	})
}

func FuzzDecode(f *testing.F) {
	data, err := Encode(place(2, "d1"))
	require.NoError(f, err)
	f.Add(data)
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		command, err := Decode(data)
		if err != nil {
			return
		}
		again, err := Encode(command)
		require.NoError(t, err)
		_, err = Decode(again)
		if _, skipped := command.(*ignored); !skipped {
			require.NoError(t, err)
		}
	})
}

func FuzzRestore(f *testing.F) {
	h := newHistory(f)
	h.must(create())
	var out bytes.Buffer
	require.NoError(f, h.state.write(&out))
	f.Add(out.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		c := New()
		if err := c.Restore(bytes.NewReader(data)); err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			require.Zero(t, c.State().Index)
		}
	})
}

func BenchmarkApplyRegister(b *testing.B) {
	h := newHistory(b)
	h.must(create())
	for i := range 100 {
		h.must(register(fmt.Sprint("d", i)))
	}
	data, err := Encode(&RegisterNode{ID: "d1", Address: "new:1", Incarnation: "d1-1"})
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		_, _, _ = Apply(h.state, h.state.Index+1, data)
	}
}

func BenchmarkAssignment(b *testing.B) {
	h := newHistory(b)
	h.must(create())
	h.must(register("d1"))
	h.must(place(Groups, "d1"))
	b.ReportAllocs()
	for b.Loop() {
		h.state.Assignment("d1")
	}
}
