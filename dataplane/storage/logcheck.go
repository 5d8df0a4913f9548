package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/wal"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// logKind tells the files that Pebble reads record by record when it opens,
// and of which it takes a damaged record for the end.
type logKind uint8

const (
	notALog logKind = iota
	walLog
	manifestLog
)

// parseLogName returns the kind and number of a log from its base name.
func parseLogName(base string) (logKind, uint64) {
	if num, _, ok := wal.ParseLogFilename(base); ok {
		return walLog, uint64(num)
	}
	if digits, ok := strings.CutPrefix(base, "MANIFEST-"); ok {
		if num, err := strconv.ParseUint(digits, 10, 64); err == nil {
			return manifestLog, num
		}
	}
	return notALog, 0
}

// logChecker checks logs before Pebble reads them. Pebble stops at the first
// record it cannot read. That is right for the tail a crash cut off, and loses
// data if the record was damaged later. Its own means of telling the two apart
// does not cover the MANIFEST, the newest blocks of the write-ahead log, a
// damaged log number, or the first log of a new database.
type logChecker struct {
	fs        vfs.FS
	wal       syncMark
	manifest  syncMark
	newestWAL uint64 // of those in the directory
}

// newLogChecker looks at which logs there are in dir. It returns
// rpc.ErrCorrupt when the log that was last synced is missing.
func newLogChecker(fsys vfs.FS, dir string, marks *syncMarks) (*logChecker, error) {
	c := &logChecker{fs: fsys, wal: marks.wal, manifest: marks.manifest}
	names, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if kind, num := parseLogName(name); kind == walLog {
			c.newestWAL = max(c.newestWAL, num)
		}
	}
	if c.newestWAL < c.wal.Num {
		return nil, fmt.Errorf("%w: write-ahead log %06d is missing", rpc.ErrCorrupt, c.wal.Num)
	}
	return c, nil
}

// check returns rpc.ErrCorrupt if the named file is a log that does not hold
// everything it must. Other files pass.
func (c *logChecker) check(name string) error {
	kind, num := parseLogName(c.fs.PathBase(name))
	if kind == notALog {
		return nil
	}
	f, err := c.fs.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	end, closed, err := walkLog(f, kind, num)
	if err != nil {
		return fmt.Errorf("check %s: %w", name, err)
	}
	mark := c.wal
	if kind == manifestLog {
		mark = c.manifest
	}
	switch {
	case num == mark.Num && end < mark.Length:
		return fmt.Errorf("%w: %s is damaged at byte %d of the %d that were synced", rpc.ErrCorrupt, name, end, mark.Length)
	case kind == walLog && num < c.newestWAL && !closed:
		// A log is closed, with a trailer, before the next one is made.
		return fmt.Errorf("%w: %s is damaged at byte %d: it has no end", rpc.ErrCorrupt, name, end)
	}
	return nil
}

// The layout of Pebble's logs, see its package record: blocks of 32 KiB hold
// chunks, each with a checksum, a length and an encoding; in write-ahead logs
// also the log's number and, in the newest encodings, an offset.
const (
	logBlockBytes         = 32 << 10
	chunkHeaderBytes      = 7
	recyclableHeaderBytes = chunkHeaderBytes + 4
	walSyncHeaderBytes    = recyclableHeaderBytes + 8

	encodingLegacyMax     = 4
	encodingRecyclableMin = 5 // also of the trailer that ends a closed log
	encodingRecyclableMax = 8
	encodingWALSyncMax    = 12
)

type chunkState uint8

const (
	chunkWhole   chunkState = iota
	chunkPadding            // the rest of the block is unused
	chunkTrailer            // the log ends here, by intention
	chunkBad                // cut off or damaged
)

// walkLog reads chunks until the first that is not whole. It returns how many
// bytes were readable and whether they end in the trailer of a closed log.
func walkLog(r io.Reader, kind logKind, num uint64) (end int64, closed bool, err error) {
	next := nextManifestChunk
	if kind == walLog {
		next = func(b []byte, room int) (int, chunkState) { return nextWALChunk(b, room, uint32(num)) }
	}
	block := make([]byte, logBlockBytes)
	for base := int64(0); ; base += logBlockBytes {
		n, err := io.ReadFull(r, block)
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			if errors.Is(err, io.EOF) {
				return base, false, nil
			}
			return base, false, err
		}
		for pos := 0; pos < logBlockBytes; {
			size, state := next(block[pos:n], logBlockBytes-pos)
			if state == chunkBad {
				return base + int64(pos), false, nil
			}
			pos += size
			if state == chunkTrailer {
				return base + int64(pos), true, nil
			}
		}
	}
}

// nextWALChunk returns the size and state of the chunk at the start of b, which
// is what there is of the room left in the block.
func nextWALChunk(b []byte, room int, num uint32) (int, chunkState) {
	if room < recyclableHeaderBytes {
		return padding(b, room)
	}
	if len(b) < chunkHeaderBytes {
		return 0, chunkBad
	}
	header := recyclableHeaderBytes
	switch encoding := b[6]; {
	case encoding == 0 && room < walSyncHeaderBytes:
		return padding(b, room)
	case encoding < encodingRecyclableMin || encoding > encodingWALSyncMax:
		return 0, chunkBad
	case encoding > encodingRecyclableMax:
		header = walSyncHeaderBytes
	}
	if len(b) < header {
		return 0, chunkBad
	}
	switch binary.LittleEndian.Uint32(b[chunkHeaderBytes:]) {
	case num:
	case num + 1: // what a reader takes for the end: only the exact trailer is
		if [chunkHeaderBytes]byte(b) == [chunkHeaderBytes]byte{6: encodingRecyclableMin} {
			return header, chunkTrailer
		}
		return 0, chunkBad
	default:
		return 0, chunkBad
	}
	return wholeChunk(b, header)
}

func nextManifestChunk(b []byte, room int) (int, chunkState) {
	if room < chunkHeaderBytes {
		return padding(b, room)
	}
	if len(b) < chunkHeaderBytes || b[6] == 0 || b[6] > encodingLegacyMax {
		return 0, chunkBad
	}
	return wholeChunk(b, chunkHeaderBytes)
}

func wholeChunk(b []byte, header int) (int, chunkState) {
	size := header + int(binary.LittleEndian.Uint16(b[4:]))
	if size > len(b) || binary.LittleEndian.Uint32(b) != chunkChecksum(b[6:size]) {
		return 0, chunkBad
	}
	return size, chunkWhole
}

// padding accepts the rest of a block if it is all there and all zero.
func padding(b []byte, room int) (int, chunkState) {
	if len(b) < room {
		return 0, chunkBad
	}
	for _, c := range b[:room] {
		if c != 0 {
			return 0, chunkBad
		}
	}
	return room, chunkPadding
}

// chunkChecksum is the CRC-32C of b, masked as RocksDB and Pebble mask it.
func chunkChecksum(b []byte) uint32 {
	c := crc32.Checksum(b, castagnoli)
	return (c>>15 | c<<17) + 0xa282ead8
}
