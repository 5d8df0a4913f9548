package state

import (
	"crypto/sha256"
	"hash"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// applier is the working memory of one Apply: the batch that is being filled,
// and over it what the ops before have changed, because the batch cannot be
// read. It is used by one goroutine and pooled for all machines.
type applier struct {
	m             *Machine
	keys          keyspace
	view          *cacheView
	batch         *pebble.Batch
	meta          meta           // as it will be after the batch
	configuration *configuration // when the batch has one
	touched       bool           // an entry was added to the batch
	began         bool           // the cache view is in its window
	messages      int            // appended by the batch
	index         uint64         // of the current entry

	byKey map[string]*dirty
	order []*dirty // of byKey, as touched
	spare []*dirty
	// pending holds the message id and idempotency rows the batch has written,
	// nil for deleted ones.
	pending map[string][]byte

	command    command
	resolved   []resolution
	committed  []Committed
	hash       hash.Hash
	sum        [32]byte
	stamp      []byte // rendered stampMicros
	stampAt    int64
	key, value []byte // scratch for one row
	old        []byte // the row read last
	release    []byte // scratch for one release row
}

// dirty is a conversation that the batch works on.
type dirty struct {
	key         string
	rec         record
	exists      bool // the conversation was created
	changed     bool
	newMetadata bool
	closed      bool // tombstoned by this batch

	// base is last before the batch; before[i] is rec.stored before message
	// base+1+i.
	base   uint64
	before []uint64
	// entry is the entry that touched the conversation last, and entryLast was
	// last before it.
	entry, entryLast uint64

	ids     *idSet // nil when it is not known what is remembered
	lookups uint64 // that went without ids

	appended []rpc.Message // for the hook only
}

// maxSpare and maxScratch bound what a pooled applier keeps of a large batch.
const (
	maxSpare   = 256
	maxScratch = 64 << 10
)

var appliers = sync.Pool{New: func() any {
	return &applier{
		byKey:   make(map[string]*dirty),
		pending: make(map[string][]byte),
		hash:    sha256.New(),
		stampAt: -1,
	}
}}

// newApplier is called with the machine's apply lock held, as are all methods.
func newApplier(m *Machine) *applier {
	a := appliers.Get().(*applier)
	a.m, a.keys, a.view, a.meta = m, m.keys, m.view, m.meta
	a.batch = m.db.NewBatch()
	return a
}

// reset prepares for the next batch of the same Apply.
func (a *applier) reset() error {
	err := a.batch.Close()
	a.batch = a.m.db.NewBatch()
	a.forgetBatch()
	return err
}

func (a *applier) forgetBatch() {
	if len(a.pending) > maxSpare {
		a.pending = make(map[string][]byte)
	} else {
		clear(a.pending)
	}
	if len(a.byKey) > maxSpare {
		a.byKey = make(map[string]*dirty)
	} else {
		clear(a.byKey)
	}
	for i, d := range a.order {
		a.order[i] = nil
		if len(a.spare) < maxSpare && cap(d.before) <= maxSpare && cap(d.appended) <= maxSpare {
			clear(d.appended)
			*d = dirty{before: d.before[:0], appended: d.appended[:0]}
			a.spare = append(a.spare, d)
		}
	}
	a.order = a.order[:0]
	a.configuration, a.touched, a.messages = nil, false, 0
}

// free returns the applier to the pool. After a failure the cache view stays in
// its window, so that readers go to storage.
func (a *applier) free() {
	_ = a.batch.Close() // an uncommitted batch has nothing to fail
	a.forgetBatch()
	a.command.forget()
	for _, scratch := range []*[]byte{&a.key, &a.value, &a.old, &a.release} {
		if cap(*scratch) > maxScratch {
			*scratch = nil
		}
	}
	a.m, a.view, a.batch, a.began = nil, nil, nil, false
	appliers.Put(a)
}

// conversation returns the conversation as the ops so far have left it. Its
// exists is false when it was never created.
func (a *applier) conversation(key []byte) (*dirty, error) {
	d := a.byKey[string(key)]
	if d == nil {
		if !a.began {
			a.view.begin()
			a.began = true
		}
		d = a.newDirty()
		if d.exists = a.view.checkout(key, d); !d.exists {
			var err error
			d.key = string(key)
			if d.rec, d.exists, err = loadRecord(a.m.db, a.keys, d.key); err != nil {
				return nil, err
			}
		}
		d.base = d.rec.last
		a.byKey[d.key] = d
		a.order = append(a.order, d)
	}
	if d.entry != a.index {
		d.entry, d.entryLast = a.index, d.rec.last
	}
	return d, nil
}

func (a *applier) newDirty() *dirty {
	n := len(a.spare)
	if n == 0 {
		return &dirty{}
	}
	d := a.spare[n-1]
	a.spare[n-1] = nil
	a.spare = a.spare[:n-1]
	return d
}

// row returns a message id or idempotency row, valid until the next call, or nil
// when there is none.
func (a *applier) row(key []byte) ([]byte, error) {
	if value, ok := a.pending[string(key)]; ok {
		return value, nil
	}
	value, found, err := getRow(a.m.db, a.old[:0], key)
	a.old = value
	if !found {
		return nil, err
	}
	return value, err
}

// remember writes a row that later ops of the batch may read.
func (a *applier) remember(key, value []byte, old int) error {
	a.countRow(len(key)-prefixLen, len(value), old)
	op := a.batch.SetDeferred(len(key), len(value))
	copy(op.Key, key)
	copy(op.Value, value)
	a.pending[string(key)] = op.Value
	return op.Finish()
}

// drop deletes a row that remember wrote.
func (a *applier) drop(key []byte, old int) error {
	a.pending[string(key)] = nil
	return a.deleteRow(key, old)
}

// now is the stamp of a change to the conversation: the command's time, but
// never before the one that the conversation was changed at last.
func (a *applier) now(d *dirty) int64 { return max(a.command.at, d.rec.updated) }

func (a *applier) renderStamp(micros int64) []byte {
	if a.stampAt != micros {
		a.stamp = appendTime(a.stamp[:0], micros)
		a.stampAt = micros
	}
	return a.stamp
}
