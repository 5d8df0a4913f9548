package state

import (
	"sync"
	"unsafe"
)

// DefaultCacheBytes bounds the cache of a machine that was given none.
const DefaultCacheBytes = 4 << 20

// cacheShards spreads the lock. Groups share shards, and a shard has its part of
// the bytes, so that few are better than many when some groups are hotter.
const cacheShards = 4

// Cache holds the hot conversation records of all machines of a node, bounded
// by bytes, least recently used out first. Nothing depends on what it holds.
// It is safe for concurrent use.
type Cache struct {
	shards [cacheShards]cacheShard
}

// NewCache returns a cache of at most the given number of bytes, estimated.
func NewCache(bytes int) *Cache {
	c := &Cache{}
	for i := range c.shards {
		s := &c.shards[i]
		s.limit = bytes / cacheShards
		s.lru.next, s.lru.prev = &s.lru, &s.lru
	}
	return c
}

// Bytes returns an estimate of what the cache holds.
func (c *Cache) Bytes() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		n += s.bytes
		s.mu.Unlock()
	}
	return n
}

type cacheShard struct {
	mu    sync.Mutex // guards everything below, and the views of the shard
	lru   cacheEntry // sentinel; next is the most recently used
	bytes int
	limit int
}

type cacheEntry struct {
	next, prev *cacheEntry
	view       *cacheView
	key        string
	rec        record
	// ids and lookups belong to the Apply that checked the entry out.
	ids     *idSet
	lookups uint64
	bytes   int
	// out: an Apply is working on the conversation, readers must not see the
	// entry.
	out bool
}

// cacheEntryBytes is what an entry takes beside its key and metadata, with its
// share of the map.
const cacheEntryBytes = int(unsafe.Sizeof(cacheEntry{})) + 48

// cacheView is the part of the cache that belongs to one generation of one
// machine.
//
// An entry that readers can see always equals what is stored. Before an Apply
// changes a conversation it takes the entry out (begin, checkout), and puts the
// new record in after the batch is committed (end). A reader that found nothing
// may put in what it read from storage, unless an Apply ran meanwhile (lookup,
// offer).
type cacheView struct {
	shard   *cacheShard
	entries map[string]*cacheEntry
	writing bool   // between begin and end
	epoch   uint64 // counts begins
	dropped bool
}

func (c *Cache) view(group uint16) *cacheView {
	return &cacheView{shard: &c.shards[int(group)%cacheShards], entries: make(map[string]*cacheEntry)}
}

// begin opens a window in which readers do not fill the cache.
func (v *cacheView) begin() {
	v.shard.mu.Lock()
	v.writing = true
	v.epoch++
	v.shard.mu.Unlock()
}

// checkout hides an entry from readers until end and moves it to d, with a
// string of its key that may be kept. It returns false when there is none.
func (v *cacheView) checkout(key []byte, d *dirty) bool {
	v.shard.mu.Lock()
	defer v.shard.mu.Unlock()
	e := v.entries[string(key)]
	if e == nil {
		return false
	}
	e.out = true
	d.rec, d.key, d.ids, d.lookups = e.rec, e.key, e.ids, e.lookups
	return true
}

// end closes the window and shows the records of the conversations that exist.
func (v *cacheView) end(touched []*dirty) {
	v.shard.mu.Lock()
	defer v.shard.mu.Unlock()
	v.writing = false
	for _, d := range touched {
		if d.exists {
			v.put(d.key, &d.rec, d.ids, d.lookups)
		}
	}
}

// lookup returns what a reader may use, and on a miss the epoch for offer.
func (v *cacheView) lookup(key string) (rec record, epoch uint64, found bool) {
	v.shard.mu.Lock()
	defer v.shard.mu.Unlock()
	e := v.entries[key]
	if e == nil || e.out {
		return record{}, v.epoch, false
	}
	v.shard.touch(e)
	return e.rec, v.epoch, true
}

// offer caches what a reader loaded after a lookup that returned epoch.
func (v *cacheView) offer(key string, rec *record, epoch uint64) {
	v.shard.mu.Lock()
	defer v.shard.mu.Unlock()
	if !v.writing && v.epoch == epoch && v.entries[key] == nil {
		v.put(key, rec, nil, 0)
	}
}

// drop removes all entries; the view takes no more.
func (v *cacheView) drop() {
	v.shard.mu.Lock()
	defer v.shard.mu.Unlock()
	v.dropped = true
	for _, e := range v.entries {
		v.shard.remove(e)
	}
}

// The rest is called with the shard's lock held.

func (v *cacheView) put(key string, rec *record, ids *idSet, lookups uint64) {
	if v.dropped {
		return
	}
	e := v.entries[key]
	if e == nil {
		e = &cacheEntry{view: v, key: key}
		v.entries[key] = e
		e.next, e.prev = e, e
	}
	e.rec, e.ids, e.lookups, e.out = *rec, ids, lookups, false
	bytes := cacheEntryBytes + len(e.key) + cap(rec.metadata) + ids.bytes()
	v.shard.bytes += bytes - e.bytes
	e.bytes = bytes
	v.shard.touch(e)
	for v.shard.bytes > v.shard.limit && v.shard.lru.prev != &v.shard.lru {
		v.shard.remove(v.shard.lru.prev)
	}
}

// touch makes e the most recently used, whether it is in the list or not.
func (s *cacheShard) touch(e *cacheEntry) {
	e.prev.next, e.next.prev = e.next, e.prev
	e.next, e.prev = s.lru.next, &s.lru
	e.next.prev, e.prev.next = e, e
}

func (s *cacheShard) remove(e *cacheEntry) {
	e.prev.next, e.next.prev = e.next, e.prev
	delete(e.view.entries, e.key)
	s.bytes -= e.bytes
}
