package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// The snapshot stream, all numbers big-endian:
//
//	magic      8 bytes
//	header     uint32 length, payload, uint32 CRC-32C of the payload
//	frames     uint32 length, uint32 CRC-32C of the frame's number and payload,
//	           payload; all but the last have frameBytes of payload
//	end        uint32 zero, SHA-256 of everything before it
//
// The payloads of the frames, one after the other, are the rows: space, uvarint
// length and rest of the key after the generation, uvarint length and value. As
// the meta row keeps count of them, the length of the stream is known before
// its first byte is read.
const (
	streamMagic   = "fpstate\x01"
	streamVersion = 1
	frameBytes    = 64 << 10
	frameHead     = 8
	endBytes      = 4 + 32
)

// maxRowBytes bounds one value in a stream.
const maxRowBytes = 8 << 20

// ErrBadSnapshot reports a stream that is not a complete, undamaged snapshot of
// the same group.
var ErrBadSnapshot = errors.New("snapshot stream is damaged or not of this group")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func frameSum(number uint64, payload []byte) uint32 {
	var head [8]byte
	binary.BigEndian.PutUint64(head[:], number)
	return crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, payload)
}

// appendStreamStart appends magic and header.
func appendStreamStart(dst []byte, group uint16, m *meta, c configuration) []byte {
	payload := []byte{streamVersion}
	payload = binary.BigEndian.AppendUint16(payload, group)
	payload = appendBytes(payload, m.append(nil))
	payload = appendBytes(payload, c.append(nil))
	dst = append(dst, streamMagic...)
	dst = append(binary.BigEndian.AppendUint32(dst, uint32(len(payload))), payload...)
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(payload, castagnoli))
}

const maxStreamHeader = maxConfigurationBytes + 1024

// decodeStreamHeader reads the payload of a header. The generation in it is the
// sender's and means nothing.
func decodeStreamHeader(payload []byte, group uint16) (meta, configuration, error) {
	d := decoder{in: payload}
	version, from := d.byte(), d.uint16()
	metaRow, confRow := d.bounded(1, 1024), d.bounded(8, maxConfigurationBytes)
	switch {
	case !d.bad && version != streamVersion:
		return meta{}, configuration{}, fmt.Errorf("%w: version %d", ErrBadSnapshot, version)
	case !d.done():
		return meta{}, configuration{}, fmt.Errorf("%w: header", ErrBadSnapshot)
	case from != group:
		return meta{}, configuration{}, fmt.Errorf("%w: it is of group %d", ErrBadSnapshot, from)
	}
	m, err := decodeMeta(metaRow)
	if err != nil {
		return meta{}, configuration{}, fmt.Errorf("%w: %w", ErrBadSnapshot, err)
	}
	c, err := decodeConfiguration(confRow)
	return m, c, err
}

// streamBytes is the length of a stream whose start has the given length.
func streamBytes(start int, rows uint64) int64 {
	frames := (rows + frameBytes - 1) / frameBytes
	return int64(start) + int64(rows+frames*frameHead) + endBytes
}

// appendRowHead appends what precedes the value of a row.
func appendRowHead(dst []byte, space byte, rest []byte, value int) []byte {
	dst = appendBytes(append(dst, space), rest)
	return binary.AppendUvarint(dst, uint64(value))
}
