package state

import (
	"encoding/binary"

	"github.com/fastpaca/fastpaca/dataplane/storage"
)

// prefixLen is the length of what every data key starts with: space, group and
// generation.
const prefixLen = storage.PrefixLen + 4

// dataSpaces are the spaces that carry a generation, in the order in which a
// snapshot streams them.
var dataSpaces = [...]byte{
	storage.SpaceConversation,
	storage.SpaceMessage,
	storage.SpaceMessageID,
	storage.SpaceIDBySeq,
	storage.SpaceIdempotency,
}

// Kinds of rows in SpaceConversation, the byte after the generation.
const (
	kindRecord   byte = 0 // by conversation key
	kindMetadata byte = 1 // by conversation number; metadata too long for the record
)

// Kinds of rows in SpaceMeta, the byte after the group.
const (
	kindMeta          byte = 0
	kindConfiguration byte = 1
	kindStaging       byte = 2 // by generation: an unfinished install
)

// keyspace names the keys of one generation of one group. All methods append to
// dst.
type keyspace struct {
	group      uint16
	generation uint32
}

func (k keyspace) prefix(dst []byte, space byte) []byte {
	dst = storage.AppendPrefix(dst, space, k.group)
	return binary.BigEndian.AppendUint32(dst, k.generation)
}

// span returns the bounds of a space in this generation.
func (k keyspace) span(space byte) (lower, upper []byte) {
	lower = k.prefix(make([]byte, 0, prefixLen), space)
	return lower, successor(lower)
}

func (k keyspace) record(dst []byte, key string) []byte {
	return append(append(k.prefix(dst, storage.SpaceConversation), kindRecord), key...)
}

func (k keyspace) metadata(dst []byte, num uint64) []byte {
	dst = append(k.prefix(dst, storage.SpaceConversation), kindMetadata)
	return binary.BigEndian.AppendUint64(dst, num)
}

func (k keyspace) message(dst []byte, num, seq uint64) []byte {
	dst = k.numbered(dst, storage.SpaceMessage, num)
	return binary.BigEndian.AppendUint64(dst, seq)
}

// numbered is what all rows of a conversation in a space start with.
func (k keyspace) numbered(dst []byte, space byte, num uint64) []byte {
	return binary.BigEndian.AppendUint64(k.prefix(dst, space), num)
}

// id is the row of the newest message with an id.
func (k keyspace) id(dst []byte, num uint64, id []byte) []byte {
	dst = k.numbered(dst, storage.SpaceMessageID, num)
	return append(append(dst, byte(len(id))), id...)
}

// revision turns the row key of an id into that of an older content of it.
func revision(idKey []byte, digest *[32]byte) []byte { return append(idKey, digest[:]...) }

// release is the row of what is forgotten with the append that ended at seq.
func (k keyspace) release(dst []byte, num, seq uint64) []byte {
	dst = k.numbered(dst, storage.SpaceIDBySeq, num)
	return binary.BigEndian.AppendUint64(dst, seq)
}

func (k keyspace) idempotency(dst []byte, num uint64, idemKey []byte) []byte {
	dst = k.numbered(dst, storage.SpaceIdempotency, num)
	return append(dst, idemKey...)
}

func metaKey(group uint16, kind byte) []byte {
	return append(storage.AppendPrefix(make([]byte, 0, prefixLen+1), storage.SpaceMeta, group), kind)
}

func stagingKey(group uint16, generation uint32) []byte {
	return binary.BigEndian.AppendUint32(metaKey(group, kindStaging), generation)
}

// successor returns the lowest key above all keys that start with prefix, or nil
// when there is none.
func successor(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			next := append([]byte(nil), prefix[:i+1]...)
			next[i]++
			return next
		}
	}
	return nil
}

// seqOf reads the sequence that ends a message or release key.
func seqOf(key []byte) (uint64, bool) {
	if len(key) != prefixLen+16 {
		return 0, false
	}
	return binary.BigEndian.Uint64(key[prefixLen+8:]), true
}

// validRest reports whether the part of a data key after the generation has a
// shape that this package writes.
func validRest(space byte, rest []byte) bool {
	n := len(rest)
	switch space {
	case storage.SpaceConversation:
		if n < 2 {
			return false
		}
		return rest[0] == kindRecord && n <= 1+maxKeyBytes || rest[0] == kindMetadata && n == 9
	case storage.SpaceMessage, storage.SpaceIDBySeq:
		return n == 16
	case storage.SpaceMessageID:
		if n < 10 || rest[8] == 0 {
			return false
		}
		end := 9 + int(rest[8])
		return n == end || n == end+32
	case storage.SpaceIdempotency:
		return n > 8 && n <= 8+maxIdemKeyBytes
	}
	return false
}

// rowBytes is what a row takes in a snapshot stream; rest is the length of its
// key after the generation.
func rowBytes(rest, value int) uint64 {
	return uint64(1 + uvarintLen(uint64(rest)) + rest + uvarintLen(uint64(value)) + value)
}

func uvarintLen(v uint64) int {
	n := 1
	for v >= 0x80 {
		v >>= 7
		n++
	}
	return n
}
