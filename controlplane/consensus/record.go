package consensus

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// bbolt checks its meta pages only, so every value this package stores carries
// a checksum of its own that also covers what the value is stored under.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	// logRecord leads the stored data of a log entry: version and checksum.
	logRecordVersion = 1
	logRecordHeader  = 1 + 4

	stableRecordVersion = 1
	// maxStableKeys, maxStableKeyBytes and maxStableValueBytes bound the stable
	// store; raft keeps three small values in it.
	maxStableKeys       = 16
	maxStableKeyBytes   = 64
	maxStableValueBytes = 1024
)

// sealLog returns a copy of the entry as it is stored: its data is led by a
// checksum over the whole entry. The time raft stamped is only used by metrics
// we do not collect and is not stored.
func sealLog(entry *raft.Log) *raft.Log {
	data := make([]byte, logRecordHeader, logRecordHeader+len(entry.Data))
	data[0] = logRecordVersion
	binary.BigEndian.PutUint32(data[1:], logChecksum(entry, entry.Data))
	return &raft.Log{
		Index:      entry.Index,
		Term:       entry.Term,
		Type:       entry.Type,
		Data:       append(data, entry.Data...),
		Extensions: entry.Extensions,
	}
}

// openLog checks a stored entry that was read at index and strips what
// sealLog added.
func openLog(index uint64, entry *raft.Log) error {
	if entry.Index != index {
		return fmt.Errorf("%w: log entry %d says it is %d", ErrCorrupt, index, entry.Index)
	}
	if len(entry.Data) < logRecordHeader {
		return fmt.Errorf("%w: log entry %d is too short", ErrCorrupt, index)
	}
	if entry.Data[0] != logRecordVersion {
		return fmt.Errorf("%w: log entry %d has unknown version %d", ErrCorrupt, index, entry.Data[0])
	}
	sum, data := binary.BigEndian.Uint32(entry.Data[1:]), entry.Data[logRecordHeader:]
	if sum != logChecksum(entry, data) {
		return fmt.Errorf("%w: log entry %d fails its checksum", ErrCorrupt, index)
	}
	entry.Data = data
	entry.AppendedAt = time.Time{}
	return nil
}

func logChecksum(entry *raft.Log, data []byte) uint32 {
	var head [1 + 8 + 8 + 1 + 8]byte
	head[0] = logRecordVersion
	binary.BigEndian.PutUint64(head[1:], entry.Index)
	binary.BigEndian.PutUint64(head[9:], entry.Term)
	head[17] = byte(entry.Type)
	binary.BigEndian.PutUint64(head[18:], uint64(len(entry.Extensions)))
	sum := crc32.Update(0, castagnoli, head[:])
	sum = crc32.Update(sum, castagnoli, entry.Extensions)
	return crc32.Update(sum, castagnoli, data)
}

// encodeStable encodes all values of the stable store as one record, so that
// none of them can be lost alone.
func encodeStable(values map[string][]byte) []byte {
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	buf := make([]byte, 5, 128)
	buf[0] = stableRecordVersion
	buf = append(buf, byte(len(keys)))
	for _, key := range keys {
		buf = append(buf, byte(len(key)))
		buf = append(buf, key...)
		buf = binary.BigEndian.AppendUint16(buf, uint16(len(values[key])))
		buf = append(buf, values[key]...)
	}
	binary.BigEndian.PutUint32(buf[1:], crc32.Checksum(buf[5:], castagnoli))
	return buf
}

// decodeStable is the inverse of encodeStable; it accepts only what
// encodeStable writes.
func decodeStable(buf []byte) (map[string][]byte, error) {
	corrupt := func(what string) (map[string][]byte, error) {
		return nil, fmt.Errorf("%w: stable record %s", ErrCorrupt, what)
	}
	if len(buf) < 6 || buf[0] != stableRecordVersion {
		return corrupt("is too short or of an unknown version")
	}
	if binary.BigEndian.Uint32(buf[1:]) != crc32.Checksum(buf[5:], castagnoli) {
		return corrupt("fails its checksum")
	}
	count, rest := int(buf[5]), buf[6:]
	if count > maxStableKeys {
		return corrupt("has too many keys")
	}
	values := make(map[string][]byte, count)
	last := ""
	for i := range count {
		if len(rest) < 1 || len(rest) < 1+int(rest[0])+2 {
			return corrupt("is cut short")
		}
		key := string(rest[1 : 1+int(rest[0])])
		rest = rest[1+len(key):]
		size := int(binary.BigEndian.Uint16(rest))
		rest = rest[2:]
		if len(rest) < size || size > maxStableValueBytes || len(key) > maxStableKeyBytes {
			return corrupt("is cut short")
		}
		if i > 0 && key <= last {
			return corrupt("has keys out of order")
		}
		values[key], last = slices.Clone(rest[:size]), key
		rest = rest[size:]
	}
	if len(rest) != 0 {
		return corrupt("has trailing bytes")
	}
	return values, nil
}
