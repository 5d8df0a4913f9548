package state

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/storage"
)

// Kind tells what an entry holds.
type Kind uint8

const (
	// KindCommand: Data is what EncodeCommand made.
	KindCommand Kind = iota
	// KindConfiguration: Data is an opaque Raft configuration, kept with its
	// index.
	KindConfiguration
)

// Entry is one committed entry of the group's log.
type Entry struct {
	Index, Term uint64
	Kind        Kind
	Data        []byte // only read during Apply
}

// Outcome is what became of one op of a command.
type Outcome struct {
	// Reply is an *rpc.AppendReply or *rpc.PutReply, or nil when the op has no
	// reply or failed.
	Reply any
	// Err is one of the errors of package rpc (ErrNotFound, ErrTombstoned,
	// *VersionConflictError, ErrIdempotencyConflict, ErrEpochFenced),
	// ErrInvalidOp or ErrBadCommand.
	Err error
}

// Committed is what one batch of Apply did to one conversation.
type Committed struct {
	Key rpc.Key
	// Messages were appended, in order. The slice and each JSON are only valid
	// during the call.
	Messages []rpc.Message
	// Tombstoned: the conversation was closed, after Messages.
	Tombstoned bool
}

// Options configures a machine. The hooks are called on the goroutine that
// applies, after readers can see what happened; they must be quick and must not
// call Apply, an Installer or Close.
type Options struct {
	// Cache is shared by the machines of a node; nil gives the machine its own
	// of DefaultCacheBytes.
	Cache *Cache
	// OnCommit, when not nil, learns of appended messages and tombstones, in
	// the order in which they were applied.
	OnCommit func([]Committed)
	// OnReset, when not nil, learns that a snapshot replaced the state: any
	// conversation may have moved on without an OnCommit.
	OnReset func()
}

// Machine is the state machine of one group on one node. Apply and the commit
// of an Installer exclude each other; all other methods are safe from any
// goroutine at any time before Close.
type Machine struct {
	db      *pebble.DB
	group   uint16
	opts    Options
	cache   *Cache
	metaKey []byte

	// apply is held by whoever changes the state.
	apply          sync.Mutex
	meta           meta
	failed         error  // first storage failure; Apply stops for good
	lastGeneration uint32 // highest ever given out, so none is used twice

	// swap guards the generation: readers hold it while they read, an Installer
	// takes it to move them to another.
	swap sync.RWMutex
	keys keyspace
	view *cacheView

	published struct {
		sync.Mutex
		meta          meta
		configuration configuration
	}

	waiters waiters
}

// Open returns the machine of a group, whose state may be empty. Generations
// that an interrupted install left behind are deleted. The caller keeps db open
// until after Close; there must be one machine per group and database.
func Open(db *pebble.DB, group uint16, opts Options) (*Machine, error) {
	current, conf, err := loadMeta(db, group)
	if err != nil {
		return nil, fmt.Errorf("open state of group %d: %w", group, err)
	}
	m := &Machine{db: db, group: group, opts: opts, cache: opts.Cache, meta: current}
	m.metaKey = metaKey(group, kindMeta)
	if m.cache == nil {
		m.cache = NewCache(DefaultCacheBytes)
	}
	m.keys = keyspace{group: group, generation: current.generation}
	m.view = m.cache.view(group)
	m.published.meta, m.published.configuration = current, conf
	m.waiters.init()
	if err := m.reap(); err != nil {
		return nil, fmt.Errorf("open state of group %d: %w", group, err)
	}
	return m, nil
}

// reap deletes what unfinished installs staged. Each announces its generation
// before it writes to it, so the markers name them all.
func (m *Machine) reap() error {
	m.lastGeneration = m.meta.generation
	lower := metaKey(m.group, kindStaging)
	it, err := m.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: successor(lower)})
	if err != nil {
		return storageError(err)
	}
	batch := m.db.NewBatch()
	for it.First(); it.Valid() && err == nil; it.Next() {
		d := decoder{in: it.Key()[len(lower):]}
		generation := d.uint32()
		if !d.done() || generation == m.meta.generation {
			err = fmt.Errorf("staging marker: %w", rpc.ErrCorrupt)
			break
		}
		m.lastGeneration = max(m.lastGeneration, generation)
		err = deleteGeneration(batch, keyspace{group: m.group, generation: generation})
	}
	err = errors.Join(err, storageError(it.Error()), it.Close())
	if err == nil && !batch.Empty() {
		err = batch.Commit(pebble.NoSync)
	}
	return errors.Join(err, batch.Close())
}

// deleteGeneration deletes all data of a generation and its staging marker.
func deleteGeneration(b *pebble.Batch, ks keyspace) error {
	for _, space := range dataSpaces {
		lower, upper := ks.span(space)
		if err := b.DeleteRange(lower, upper, nil); err != nil {
			return err
		}
	}
	return b.Delete(stagingKey(ks.group, ks.generation), nil)
}

// Wipe adds to b the deletion of everything a group has stored. Its machine must
// be closed before b is committed, and opened again only after.
func Wipe(b *pebble.Batch, group uint16) error {
	for _, space := range append([]byte{storage.SpaceMeta}, dataSpaces[:]...) {
		lower := storage.AppendPrefix(nil, space, group)
		if err := b.DeleteRange(lower, successor(lower), nil); err != nil {
			return fmt.Errorf("wipe state of group %d: %w", group, err)
		}
	}
	return nil
}

// Close ends the machine: waiting callers get rpc.ErrClosed, as does Apply. It
// waits for an Apply that runs. Open snapshots stay readable until they are
// closed themselves.
func (m *Machine) Close() error {
	m.waiters.close()
	m.apply.Lock()
	defer m.apply.Unlock()
	if m.failed == nil {
		m.failed = rpc.ErrClosed
	}
	m.swap.RLock()
	defer m.swap.RUnlock()
	m.view.drop()
	return nil
}

// Applied returns the index and term of the newest applied entry, 0 when there
// is none. What it covers is visible to readers.
func (m *Machine) Applied() (index, term uint64) {
	m.published.Lock()
	defer m.published.Unlock()
	return m.published.meta.applied, m.published.meta.term
}

// Configuration returns the newest applied configuration and its index, nil and
// 0 when there is none. The bytes must not be modified.
func (m *Machine) Configuration() (data []byte, index uint64) {
	m.published.Lock()
	defer m.published.Unlock()
	return m.published.configuration.data, m.published.configuration.index
}

// Stats describes the state at one applied index.
type Stats struct {
	Applied, Term uint64
	Conversations uint64
	Messages      uint64 // in the hot log
	Rows, Bytes   uint64 // of all stored rows, as a snapshot would stream them
	ArchiveEpoch  uint64 // highest archiver lease epoch seen
}

// Stats returns counters that cost nothing to read.
func (m *Machine) Stats() Stats {
	m.published.Lock()
	defer m.published.Unlock()
	p := &m.published.meta
	return Stats{
		Applied: p.applied, Term: p.term,
		Conversations: p.conversations, Messages: p.messages,
		Rows: p.rows, Bytes: p.bytes, ArchiveEpoch: p.epoch,
	}
}
