package storage

import "encoding/binary"

// Spaces partition the one Pebble of a data node. A key is its space, the
// group as two big-endian bytes, and a rest that the owner of the space
// defines. Spaces come before groups so that the short-lived Raft log and the
// long-lived messages live in different tables and never rewrite each other in
// compactions. The numbers are part of the stored format.
const (
	SpaceNode   byte = 0x01 // node identity and format; group 0
	SpaceLog    byte = 0x10 // raftlog: Raft log entries
	SpaceStable byte = 0x11 // raftlog: Raft stable store

	SpaceMeta         byte = 0x20 // state: applied position, configuration, generation
	SpaceConversation byte = 0x21 // state: conversation records by key
	SpaceMessage      byte = 0x22 // state: messages by conversation number and sequence
	SpaceMessageID    byte = 0x23 // state: message ids
	SpaceIDBySeq      byte = 0x24 // state: which ids a trimmed sequence releases
	SpaceIdempotency  byte = 0x25 // state: idempotency keys
)

// PrefixLen is the length of what AppendPrefix appends.
const PrefixLen = 3

// AppendPrefix appends the prefix of a group's keys in a space.
func AppendPrefix(dst []byte, space byte, group uint16) []byte {
	dst = append(dst, space)
	return binary.BigEndian.AppendUint16(dst, group)
}
