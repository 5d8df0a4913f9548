package state

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"strconv"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// A message row is a header and the JSON as it is served:
//
//	format byte, chain hash (32), uvarint version, uvarint stored, JSON
//
// where stored is the record's stored before this message, so that the bytes of
// any run of messages are the difference of two rows.
const (
	messageFormat = 1
	jsonSeq       = `{"seq":`
	jsonInserted  = `,"inserted_at":"`
	jsonEnd       = `"}`
	timeLayout    = "2006-01-02T15:04:05.000000Z"
	timeLen       = len(timeLayout)
)

// maxStamp is the last microsecond of year 9999, the latest time that renders
// in timeLen bytes.
const maxStamp = 253402300799999999

// Chain extends a conversation's hash chain by one message: the SHA-256 of the
// previous hash (32 zero bytes before the first message), the sequence as 8
// big-endian bytes and the message's JSON exactly as served. A conversation's
// head is the hash of its newest message.
func Chain(previous [32]byte, seq uint64, json []byte) [32]byte {
	var sum [32]byte
	chain(sha256.New(), &previous, seq, json, &sum)
	return sum
}

func chain(h hash.Hash, previous *[32]byte, seq uint64, json []byte, sum *[32]byte) {
	*sum = *previous // the only buffer handed to h, so that it does not escape twice
	h.Reset()
	h.Write(sum[:])
	binary.BigEndian.PutUint64(sum[:8], seq)
	h.Write(sum[:8])
	h.Write(json)
	h.Sum(sum[:0])
}

func appendTime(dst []byte, micros int64) []byte {
	return time.UnixMicro(micros).UTC().AppendFormat(dst, timeLayout)
}

func jsonLen(seq uint64, content int) int {
	digits := 1
	for v := seq; v >= 10; v /= 10 {
		digits++
	}
	return len(jsonSeq) + digits + 1 + content + len(jsonInserted) + timeLen + len(jsonEnd)
}

// appendJSON renders a message as it is served.
func appendJSON(dst []byte, seq uint64, content, stamp []byte) []byte {
	dst = append(dst, jsonSeq...)
	dst = strconv.AppendUint(dst, seq, 10)
	dst = append(append(dst, ','), content...)
	dst = append(append(dst, jsonInserted...), stamp...)
	return append(dst, jsonEnd...)
}

func headerLen(version, stored uint64) int {
	return 1 + 32 + uvarintLen(version) + uvarintLen(stored)
}

type messageRow struct {
	version, stored uint64
	json            []byte // aliases the row
}

func decodeMessage(row []byte) (messageRow, error) {
	if len(row) < 35 || row[0] != messageFormat {
		return messageRow{}, fmt.Errorf("message row: %w", rpc.ErrCorrupt)
	}
	d := decoder{in: row[33:]}
	m := messageRow{version: d.uvarint(), stored: d.uvarint(), json: d.in}
	if d.bad || len(m.json) <= len(jsonSeq) {
		return messageRow{}, fmt.Errorf("message row: %w", rpc.ErrCorrupt)
	}
	return m, nil
}

// appendMessageHeader is the header of the message that rec.head covers.
func appendMessageHeader(dst []byte, rec *record) []byte {
	dst = append(append(dst, messageFormat), rec.head[:]...)
	dst = binary.AppendUvarint(dst, rec.version)
	return binary.AppendUvarint(dst, rec.stored)
}
