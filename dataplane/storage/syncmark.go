package storage

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// marksName names the file that holds the sync marks.
const marksName = "SYNCED"

const (
	marksMagic = "fpsync1\n"
	marksBytes = len(marksMagic) + 4*8 + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// syncMark says that the first Length bytes of the log numbered Num have been
// synced. The zero mark says nothing.
type syncMark struct {
	Num    uint64
	Length int64
}

// syncMarks remembers how far the newest write-ahead log and the newest
// MANIFEST have been synced, so that the next start can tell a damaged log from
// one that ends where a crash cut it off: what was synced must be readable.
//
// The write-ahead log's mark is written after each of its syncs, and not synced
// itself. It is therefore never ahead of the log: exact after a crash of the
// process, some seconds old after a crash of the machine. The MANIFEST's mark
// is synced, because it is written once per flush or compaction.
type syncMarks struct {
	logger *slog.Logger

	mu       sync.Mutex // guards all below, and orders the writes
	file     vfs.File   // nil after an error: marks are a check, not a need
	wal      syncMark
	manifest syncMark
	buf      [marksBytes]byte
}

// openSyncMarks reads the marks in dir and opens their file for writing. Marks
// that are missing or damaged read as zero.
func openSyncMarks(fsys vfs.FS, dir string, logger *slog.Logger) (*syncMarks, error) {
	name := fsys.PathJoin(dir, marksName)
	m := &syncMarks{logger: logger}
	if err := m.load(fsys, name); err != nil {
		return nil, err
	}
	f, err := fsys.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	m.file = f
	return m, nil
}

func (m *syncMarks) load(fsys vfs.FS, name string) error {
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.ReadFull(f, m.buf[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if n > 0 && !m.decode(m.buf[:n]) {
		m.logger.Warn("sync marks are damaged; logs are checked less strictly", "file", name)
	}
	return nil
}

// set records that a log was synced up to length. It is called by the
// goroutine that synced it, before anyone is told of the sync.
func (m *syncMarks) set(kind logKind, num uint64, length int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	mark := &m.wal
	if kind == manifestLog {
		mark = &m.manifest
	}
	*mark = syncMark{Num: num, Length: length}
	if m.file == nil {
		return
	}
	_, err := m.file.WriteAt(m.encode(), 0)
	if err == nil && kind == manifestLog {
		err = m.file.SyncData()
	}
	if err != nil {
		m.logger.Warn("sync marks cannot be written; the next start checks logs less strictly", "error", err)
		_ = m.file.Close()
		m.file = nil
	}
}

func (m *syncMarks) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.file == nil {
		return nil
	}
	err := m.file.Close()
	m.file = nil
	return err
}

func (m *syncMarks) encode() []byte {
	b := append(m.buf[:0], marksMagic...)
	for _, v := range [...]uint64{m.wal.Num, uint64(m.wal.Length), m.manifest.Num, uint64(m.manifest.Length)} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func (m *syncMarks) decode(b []byte) bool {
	const body = marksBytes - 4
	if len(b) < marksBytes || string(b[:len(marksMagic)]) != marksMagic ||
		binary.LittleEndian.Uint32(b[body:]) != crc32.Checksum(b[:body], castagnoli) {
		return false
	}
	field := func(i int) uint64 { return binary.LittleEndian.Uint64(b[len(marksMagic)+8*i:]) }
	m.wal = syncMark{Num: field(0), Length: int64(field(1))}
	m.manifest = syncMark{Num: field(2), Length: int64(field(3))}
	return true
}
