package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/hashicorp/raft"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// An entry is stored as
//
//	version 1 byte | CRC-32C 4 bytes | term uvarint | type 1 byte |
//	appended at varint, Unix nanoseconds, 0 for none |
//	length of extensions uvarint | extensions | data
//
// with the checksum taken over the index, eight bytes, and all that follows
// it, so that an entry that turns up at another index is not believed either.
const (
	entryVersion = 1
	entryHeader  = 1 + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errTruncated = errors.New("entry ends early")

func appendEntry(dst []byte, l *raft.Log) []byte {
	start := len(dst)
	dst = append(dst, entryVersion, 0, 0, 0, 0)
	dst = binary.AppendUvarint(dst, l.Term)
	dst = append(dst, byte(l.Type))
	var at int64
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	dst = binary.AppendVarint(dst, at)
	dst = binary.AppendUvarint(dst, uint64(len(l.Extensions)))
	dst = append(dst, l.Extensions...)
	dst = append(dst, l.Data...)
	binary.BigEndian.PutUint32(dst[start+1:], checksum(l.Index, dst[start+entryHeader:]))
	return dst
}

func checksum(index uint64, body []byte) uint32 {
	var key [8]byte
	binary.BigEndian.PutUint64(key[:], index)
	return crc32.Update(crc32.Checksum(key[:], castagnoli), castagnoli, body)
}

// decodeEntry fills l from a stored value, which it copies. Whatever is wrong
// with the value is rpc.ErrCorrupt.
func decodeEntry(index uint64, value []byte, l *raft.Log) error {
	err := decodeEntryValue(index, value, l)
	if err != nil {
		return fmt.Errorf("log entry %d: %w: %w", index, rpc.ErrCorrupt, err)
	}
	return nil
}

func decodeEntryValue(index uint64, value []byte, l *raft.Log) error {
	if len(value) < entryHeader {
		return errTruncated
	}
	if value[0] != entryVersion {
		return fmt.Errorf("unknown format %d", value[0])
	}
	body := value[entryHeader:]
	if checksum(index, body) != binary.BigEndian.Uint32(value[1:]) {
		return errors.New("checksum mismatch")
	}
	term, n := binary.Uvarint(body)
	if n <= 0 || len(body) == n {
		return errTruncated
	}
	kind := raft.LogType(body[n])
	body = body[n+1:]
	at, n := binary.Varint(body)
	if n <= 0 {
		return errTruncated
	}
	body = body[n:]
	extensions, n := binary.Uvarint(body)
	if n <= 0 || extensions > uint64(len(body)-n) {
		return errTruncated
	}
	body = append([]byte(nil), body[n:]...)
	*l = raft.Log{Index: index, Term: term, Type: kind}
	if at != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	if extensions > 0 {
		l.Extensions = body[:extensions:extensions]
	}
	if rest := body[extensions:]; len(rest) > 0 {
		l.Data = rest
	}
	return nil
}

// encodedLen is the length of what appendEntry appends.
func encodedLen(l *raft.Log) int {
	var buf [binary.MaxVarintLen64]byte
	var at int64
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	return entryHeader + 1 + binary.PutUvarint(buf[:], l.Term) + binary.PutVarint(buf[:], at) +
		binary.PutUvarint(buf[:], uint64(len(l.Extensions))) + len(l.Extensions) + len(l.Data)
}
