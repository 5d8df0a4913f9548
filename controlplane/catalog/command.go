package catalog

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// Errors about a command or snapshot that cannot be used at all. Skipping it
// would make this member differ from the others, so the catalog stops at it.
var (
	// ErrCorrupt: it fails its checksum or makes no sense.
	ErrCorrupt = errors.New("catalog data is corrupt")
	// ErrUnsupported: a newer program wrote it.
	ErrUnsupported = errors.New("catalog data needs a newer version of this program")
)

// A command is framed as
//
//	format    1 byte, 1
//	kind      1 byte
//	requires  1 byte, the lowest catalog version that applies it correctly
//	flags     1 byte, bit 0: a member that does not know the kind may skip it
//	checksum  4 bytes big endian, CRC-32C of the four bytes before and the payload
//	payload   JSON; members ignore fields they do not know
//
// A new field that older members may ignore without their state becoming
// different is simply added. Any other change raises requires in the commands
// that use it, and Version with it: an older member then stops instead of
// guessing.
const (
	frameFormat    = 1
	frameHeader    = 8
	flagIgnorable  = 0x01
	flagsSupported = flagIgnorable

	// Version is the catalog version of this program: the newest that follows.
	Version = versionWeights
	// versionFirst knows the cluster, its nodes and where groups were placed.
	versionFirst = 1
	// versionMoves knows moves and changes of the preferred leader.
	versionMoves = 2
	// versionLeases knows archiver leases.
	versionLeases = 3
	// versionOperated knows what operators ask for, and keeps an event log.
	versionOperated = 4
	// versionWeights knows weights that operators gave to nodes.
	versionWeights = 5

	// MaxCommandBytes bounds an encoded command.
	MaxCommandBytes = 1 << 20
)

// Kind numbers the commands. Numbers are never used again for another meaning:
// 1-19 cluster and nodes, 20-39 placement, 40-59 moves, 60-79 leases.
type Kind uint8

// The kinds of commands.
const (
	KindCreateCluster  Kind = 1
	KindRegisterNode   Kind = 2
	KindSetNodeState   Kind = 3
	KindRemoveNode     Kind = 4
	KindNoteNodes      Kind = 5
	KindSetNodeWeight  Kind = 6
	KindPlaceGroups    Kind = 20
	KindFormGroups     Kind = 21
	KindPreferLeaders  Kind = 22
	KindPinLeader      Kind = 23
	KindStartMoves     Kind = 40
	KindAdvanceMoves   Kind = 41
	KindAbortMoves     Kind = 42
	KindStartRebalance Kind = 43
	KindEndRebalance   Kind = 44
	KindGrantLeases    Kind = 60
	KindReleaseLeases  Kind = 61
)

// requires is the lowest catalog version that applies a kind correctly. Kinds
// that are recorded as events need a version that keeps them.
func (k Kind) requires() uint8 {
	switch k {
	case KindFormGroups:
		return versionFirst
	case KindPreferLeaders:
		return versionMoves
	case KindGrantLeases, KindReleaseLeases:
		return versionLeases
	case KindSetNodeWeight:
		return versionWeights
	}
	return versionOperated
}

// Command is one change of the catalog. The types of this file, movecommand.go,
// lease.go, operate.go and event.go implement it.
type Command interface {
	kind() Kind
	// apply changes the draft, or returns why it does not.
	apply(d *draft) error
}

// CreateCluster names the cluster. Only the first one has an effect.
type CreateCluster struct {
	ClusterID         string    `json:"cluster_id"`
	ReplicationFactor int       `json:"replication_factor"`
	At                time.Time `json:"at"`
}

// RegisterNode adds a data node or updates what it says of itself.
type RegisterNode struct {
	ID          rpc.NodeID `json:"id"`
	Address     string     `json:"address"`
	Zone        string     `json:"zone,omitempty"`
	Incarnation string     `json:"incarnation"`
	Version     string     `json:"version,omitempty"`
	// Replaces is the incarnation that this one takes the place of; needed
	// when the registered one is another, so that a node cannot push out one
	// that its sender did not know of.
	Replaces string    `json:"replaces,omitempty"`
	At       time.Time `json:"at"`
}

// PlaceGroups places groups that have no place yet, all or none of them.
type PlaceGroups struct {
	Groups []GroupPlacement `json:"groups"`
	At     time.Time        `json:"at,omitzero"`
}

// GroupPlacement is where one group goes.
type GroupPlacement struct {
	Group     uint16       `json:"group"`
	Voters    []rpc.NodeID `json:"voters"` // in any order
	Preferred rpc.NodeID   `json:"preferred"`
	Bootstrap rpc.NodeID   `json:"bootstrap"`
}

// FormGroups records that groups have run.
type FormGroups struct {
	Groups []uint16 `json:"groups"`
}

// ignored is a command of a later version that this one may skip.
type ignored struct{ number Kind }

func (*CreateCluster) kind() Kind { return KindCreateCluster }
func (*RegisterNode) kind() Kind  { return KindRegisterNode }
func (*PlaceGroups) kind() Kind   { return KindPlaceGroups }
func (*FormGroups) kind() Kind    { return KindFormGroups }
func (i *ignored) kind() Kind     { return i.number }

func (*ignored) apply(*draft) error { return nil }

// Encode frames a command for the log.
func Encode(command Command) ([]byte, error) {
	payload, err := json.Marshal(command)
	if err != nil {
		return nil, fmt.Errorf("encode catalog command: %w", err)
	}
	return frame(command.kind(), command.kind().requires(), 0, payload)
}

func frame(kind Kind, requires, flags uint8, payload []byte) ([]byte, error) {
	if len(payload) > MaxCommandBytes-frameHeader {
		return nil, fmt.Errorf("encode catalog command: %d bytes are too many", len(payload))
	}
	data := make([]byte, frameHeader, frameHeader+len(payload))
	data[0], data[1], data[2], data[3] = frameFormat, byte(kind), requires, flags
	binary.BigEndian.PutUint32(data[4:], frameChecksum(data[:4], payload))
	return append(data, payload...), nil
}

func frameChecksum(head, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, payload)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Decode is the inverse of Encode. Its errors wrap ErrCorrupt or
// ErrUnsupported.
func Decode(data []byte) (Command, error) {
	if len(data) < frameHeader || len(data) > MaxCommandBytes {
		return nil, fmt.Errorf("%w: command of %d bytes", ErrCorrupt, len(data))
	}
	payload := data[frameHeader:]
	if binary.BigEndian.Uint32(data[4:]) != frameChecksum(data[:4], payload) {
		return nil, fmt.Errorf("%w: command fails its checksum", ErrCorrupt)
	}
	kind, requires, flags := Kind(data[1]), data[2], data[3]
	if data[0] != frameFormat || requires > Version || flags&^flagsSupported != 0 {
		return nil, fmt.Errorf("%w: command %d of format %d, version %d, flags %#x",
			ErrUnsupported, kind, data[0], requires, flags)
	}
	command := empty(kind)
	if command == nil {
		if flags&flagIgnorable != 0 {
			return &ignored{number: kind}, nil
		}
		return nil, fmt.Errorf("%w: command %d", ErrUnsupported, kind)
	}
	if err := json.Unmarshal(payload, command); err != nil {
		return nil, fmt.Errorf("%w: command %d: %w", ErrCorrupt, kind, err)
	}
	return command, nil
}

// empty returns a command of a kind without content, or nil.
func empty(kind Kind) Command {
	switch kind {
	case KindCreateCluster:
		return &CreateCluster{}
	case KindRegisterNode:
		return &RegisterNode{}
	case KindSetNodeState:
		return &SetNodeState{}
	case KindRemoveNode:
		return &RemoveNode{}
	case KindNoteNodes:
		return &NoteNodes{}
	case KindSetNodeWeight:
		return &SetNodeWeight{}
	case KindPlaceGroups:
		return &PlaceGroups{}
	case KindFormGroups:
		return &FormGroups{}
	case KindPreferLeaders:
		return &PreferLeaders{}
	case KindPinLeader:
		return &PinLeader{}
	case KindStartMoves:
		return &StartMoves{}
	case KindAdvanceMoves:
		return &AdvanceMoves{}
	case KindAbortMoves:
		return &AbortMoves{}
	case KindStartRebalance:
		return &StartRebalance{}
	case KindEndRebalance:
		return &EndRebalance{}
	case KindGrantLeases:
		return &GrantLeases{}
	case KindReleaseLeases:
		return &ReleaseLeases{}
	}
	return nil
}
