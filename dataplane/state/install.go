package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/fastpaca/fastpaca/dataplane/storage"
)

// Installer receives a snapshot stream and stages it beside the live state, in a
// generation of its own that nobody reads. Commit swaps it in; until then the
// state is as it was, also after a crash. Applies go on meanwhile. It must end
// with Commit or Abort, before the machine is closed. It is safe for concurrent
// use, but the stream has one order.
type Installer struct {
	m    *Machine
	keys keyspace // of the staged generation

	mu    sync.Mutex // guards the rest
	err   error      // what made the stream bad, or the end of the installer
	batch *pebble.Batch

	part  streamPart
	in    []byte // of the current part, not complete yet
	need  int    // length of the current part
	sum   hash.Hash
	meta  meta
	conf  configuration
	frame uint64
	left  uint64 // bytes of rows still to come
	rows  []byte // bytes of a row that is not complete yet
	last  []byte // space and rest of the row before
	seen  meta   // counts what was staged
}

// streamPart is what an Installer waits for.
type streamPart uint8

const (
	partStart     streamPart = iota // magic and length of the header
	partHeader                      // header and its checksum
	partFrameHead                   // or the zero of the end
	partFrame
	partEnd
	partNone
)

// stageBytes bounds a staging batch.
const stageBytes = 1 << 20

// NewInstaller returns an installer for one stream.
func (m *Machine) NewInstaller() (*Installer, error) {
	m.apply.Lock()
	defer m.apply.Unlock()
	if m.failed != nil {
		return nil, fmt.Errorf("stage snapshot: %w", m.failed)
	}
	keys := keyspace{group: m.group, generation: m.lastGeneration + 1}
	// The marker comes before the first staged row, so a crash cannot leave
	// rows that no marker names.
	if err := m.db.Set(stagingKey(m.group, keys.generation), []byte{1}, pebble.NoSync); err != nil {
		return nil, fmt.Errorf("stage snapshot: %w", err)
	}
	m.lastGeneration = keys.generation
	return &Installer{
		m: m, keys: keys, batch: m.db.NewBatch(), sum: sha256.New(),
		need: len(streamMagic) + 4,
	}, nil
}

// Write takes the next bytes of the stream, in chunks of any size. An error
// matches ErrBadSnapshot unless storage failed; all later calls return it too.
func (in *Installer) Write(p []byte) (int, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for rest := p; in.err == nil && len(rest) > 0; {
		if in.part == partNone {
			in.err = fmt.Errorf("%w: bytes after its end", ErrBadSnapshot)
			break
		}
		n := min(in.need-len(in.in), len(rest))
		in.in = append(in.in, rest[:n]...)
		rest = rest[n:]
		if len(in.in) == in.need {
			in.err = in.advance()
		}
	}
	if in.err != nil {
		return 0, fmt.Errorf("install snapshot: %w", in.err)
	}
	return len(p), nil
}

// advance takes a complete part.
func (in *Installer) advance() error {
	switch in.part {
	case partStart:
		length := binary.BigEndian.Uint32(in.in[len(streamMagic):])
		if string(in.in[:len(streamMagic)]) != streamMagic || length > maxStreamHeader {
			return fmt.Errorf("%w: not a snapshot", ErrBadSnapshot)
		}
		in.sum.Write(in.in)
		in.expect(partHeader, int(length)+4)
	case partHeader:
		payload := in.in[:len(in.in)-4]
		if crc32.Checksum(payload, castagnoli) != binary.BigEndian.Uint32(in.in[len(payload):]) {
			return fmt.Errorf("%w: header checksum", ErrBadSnapshot)
		}
		var err error
		if in.meta, in.conf, err = decodeStreamHeader(payload, in.m.group); err != nil {
			return err
		}
		in.sum.Write(in.in)
		in.left = in.meta.bytes
		in.expectFrame()
	case partFrameHead:
		length := binary.BigEndian.Uint32(in.in)
		if uint64(length) != min(in.left, frameBytes) {
			return fmt.Errorf("%w: frame length", ErrBadSnapshot)
		}
		in.part, in.need = partFrame, frameHead+int(length) // head and payload in one piece
	case partFrame:
		return in.takeFrame()
	case partEnd:
		in.sum.Write(in.in[:4])
		if binary.BigEndian.Uint32(in.in) != 0 || !bytes.Equal(in.sum.Sum(nil), in.in[4:]) {
			return fmt.Errorf("%w: stream checksum", ErrBadSnapshot)
		}
		if err := in.checkCounts(); err != nil {
			return err
		}
		in.expect(partNone, 0)
		return in.flush()
	}
	return nil
}

func (in *Installer) expect(part streamPart, need int) {
	in.part, in.need, in.in = part, need, in.in[:0]
}

// expectFrame waits for a frame, or for the end when no rows are left.
func (in *Installer) expectFrame() {
	if in.left > 0 {
		in.expect(partFrameHead, frameHead)
	} else {
		in.expect(partEnd, endBytes)
	}
}

// takeFrame stages the rows that a frame completes.
func (in *Installer) takeFrame() error {
	payload := in.in[frameHead:]
	if frameSum(in.frame, payload) != binary.BigEndian.Uint32(in.in[4:]) {
		return fmt.Errorf("%w: frame checksum", ErrBadSnapshot)
	}
	in.sum.Write(in.in)
	in.frame++
	in.left -= uint64(len(payload))
	in.rows = append(in.rows, payload...)
	taken := 0
	for {
		n, err := in.takeRow(in.rows[taken:])
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		taken += n
	}
	in.rows = append(in.rows[:0], in.rows[taken:]...)
	in.expectFrame()
	return nil
}

// takeRow stages the row that b starts with and returns its length, or 0 when it
// is not complete yet.
func (in *Installer) takeRow(b []byte) (int, error) {
	d := decoder{in: b}
	space := d.byte()
	rest := d.bounded(1, maxKeyBytes+maxIDBytes)
	value := d.bounded(1, maxRowBytes)
	if d.bad {
		// Incomplete or malformed: no row is longer than this.
		if len(b) > maxRowBytes+maxKeyBytes+maxIDBytes+32 {
			return 0, fmt.Errorf("%w: row", ErrBadSnapshot)
		}
		return 0, nil
	}
	if !validRest(space, rest) {
		return 0, fmt.Errorf("%w: row key", ErrBadSnapshot)
	}
	if len(in.last) > 0 && (space < in.last[0] || space == in.last[0] && bytes.Compare(rest, in.last[1:]) <= 0) {
		return 0, fmt.Errorf("%w: row order", ErrBadSnapshot)
	}
	in.last = append(append(in.last[:0], space), rest...)
	in.seen.rows++
	in.seen.bytes += rowBytes(len(rest), len(value))
	switch {
	case space == storage.SpaceConversation && rest[0] == kindRecord:
		in.seen.conversations++
	case space == storage.SpaceMessage:
		in.seen.messages++
	}
	key := append(in.keys.prefix(make([]byte, 0, prefixLen+len(rest)), space), rest...)
	if err := in.batch.Set(key, value, nil); err != nil {
		return 0, err
	}
	if in.batch.Len() >= stageBytes {
		if err := in.flush(); err != nil {
			return 0, err
		}
	}
	return len(b) - len(d.in), nil
}

func (in *Installer) checkCounts() error {
	want := meta{rows: in.meta.rows, bytes: in.meta.bytes, conversations: in.meta.conversations, messages: in.meta.messages}
	if in.seen != want || len(in.rows) > 0 {
		return fmt.Errorf("%w: counts", ErrBadSnapshot)
	}
	return nil
}

// flush writes what is staged in memory.
func (in *Installer) flush() error {
	if err := in.batch.Commit(pebble.NoSync); err != nil {
		return err
	}
	err := in.batch.Close()
	in.batch = in.m.db.NewBatch()
	return err
}

// Verify reports whether the whole stream has arrived undamaged.
func (in *Installer) Verify() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.verify()
}

func (in *Installer) verify() error {
	if in.err == nil && in.part != partNone {
		return fmt.Errorf("install snapshot: %w: it is incomplete", ErrBadSnapshot)
	}
	if in.err != nil {
		return fmt.Errorf("install snapshot: %w", in.err)
	}
	return nil
}

// Meta returns what the stream's header says, see Snapshot.Meta; zeros before it
// has arrived.
func (in *Installer) Meta() (index, term uint64, configuration []byte, configurationIndex uint64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.meta.applied, in.meta.term, in.conf.data, in.conf.index
}

// Commit replaces the machine's state by the staged one, whatever the applied
// indexes of the two are, in one synced batch to which extra may add. It refuses
// a stream that is not complete and undamaged; when it fails the state is as it
// was. It must be called from where Apply is called. After it the installer has
// ended; after a failure it must still be aborted.
func (in *Installer) Commit(extra func(*pebble.Batch) error) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := in.verify(); err != nil {
		return err
	}
	m := in.m
	m.apply.Lock()
	defer m.apply.Unlock()
	if m.failed != nil {
		return fmt.Errorf("install snapshot: %w", m.failed)
	}
	installed := in.meta
	installed.generation = in.keys.generation
	if err := in.swap(&installed, extra); err != nil {
		return fmt.Errorf("install snapshot: %w", err)
	}
	in.err = errInstallerEnded
	m.waiters.all()
	if m.opts.OnReset != nil {
		m.opts.OnReset()
	}
	return nil
}

var errInstallerEnded = errors.New("the installer has ended")

// swap commits and shows the new generation. Readers wait for it.
func (in *Installer) swap(installed *meta, extra func(*pebble.Batch) error) error {
	m, b := in.m, in.batch // empty: what was staged is flushed
	m.swap.Lock()
	defer m.swap.Unlock()
	err := errors.Join(
		b.Set(m.metaKey, installed.append(nil), nil),
		b.Set(metaKey(m.group, kindConfiguration), in.conf.append(nil), nil),
		deleteGeneration(b, m.keys),
		b.Delete(stagingKey(m.group, installed.generation), nil),
	)
	if err == nil && extra != nil {
		err = extra(b)
	}
	if err != nil {
		b.Reset()
		return err
	}
	if err := b.Commit(pebble.Sync); err != nil {
		m.failed = err
		return err
	}
	m.meta = *installed
	m.keys = in.keys
	m.view.drop()
	m.view = m.cache.view(m.group)
	m.publish(&in.conf)
	return b.Close()
}

// Abort deletes what was staged. It does nothing after Commit or another Abort.
func (in *Installer) Abort() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if errors.Is(in.err, errInstallerEnded) {
		return nil
	}
	in.err = errInstallerEnded
	in.batch.Reset()
	err := deleteGeneration(in.batch, in.keys)
	if err == nil {
		err = in.batch.Commit(pebble.NoSync)
	}
	if err = errors.Join(err, in.batch.Close()); err != nil {
		return fmt.Errorf("abort snapshot: %w", err)
	}
	return nil
}
