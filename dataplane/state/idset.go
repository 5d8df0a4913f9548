package state

import (
	"errors"
	"hash/maphash"

	"github.com/cockroachdb/pebble/v2"

	"github.com/fastpaca/fastpaca/dataplane/storage"
)

// idSet holds fingerprints of everything that one conversation remembers. Most
// appends bring ids that are new, and asking storage for a row that is not there
// costs as much as the rest of the append. A set may hold too much, which costs
// a look into storage, but never too little. It lives in the cache with its
// record and is used by the applying goroutine only.
type idSet struct {
	slots []uint32 // open addressing, a power of two, 0 is free
	used  int
}

const (
	// maxIDSet bounds a set; a conversation with more goes without. It leaves
	// room above rememberedMessages, as sets keep what is forgotten.
	maxIDSet = 16 << 10
	// idSetAfter: a set is loaded from storage once there was one lookup for
	// so many messages that it may cover, so that a conversation which is
	// rarely written never pays for loading it.
	idSetAfter = 16
)

// A command alone must not outgrow a set, see noteID.
const _ = uint(maxIDSet - maxAppendMessages - rememberedMessages - 1)

// idSeed makes fingerprints unpredictable. They decide no outcome.
var idSeed = maphash.MakeSeed()

// fingerprint is of the row of an id or idempotency key.
func fingerprint(space byte, name []byte) uint32 {
	h := uint32(maphash.Bytes(idSeed, name)) ^ uint32(space)
	if h == 0 {
		return 1
	}
	return h
}

func (s *idSet) has(h uint32) bool {
	if s.used == 0 {
		return false
	}
	for i := int(h) & (len(s.slots) - 1); ; i = (i + 1) & (len(s.slots) - 1) {
		switch s.slots[i] {
		case h:
			return true
		case 0:
			return false
		}
	}
}

func (s *idSet) add(h uint32) {
	if 4*(s.used+1) > 3*len(s.slots) {
		old := s.slots
		s.slots, s.used = make([]uint32, max(8, 2*len(old))), 0
		for _, o := range old {
			if o != 0 {
				s.add(o)
			}
		}
	}
	i := int(h) & (len(s.slots) - 1)
	for s.slots[i] != 0 && s.slots[i] != h {
		i = (i + 1) & (len(s.slots) - 1)
	}
	if s.slots[i] == 0 {
		s.slots[i] = h
		s.used++
	}
}

func (s *idSet) bytes() int {
	if s == nil {
		return 0
	}
	return 4*cap(s.slots) + 32
}

// mayKnow reports whether the conversation may remember an id or key.
func (a *applier) mayKnow(d *dirty, space byte, name []byte) (bool, error) {
	if d.rec.releases == 0 {
		return false, nil
	}
	if d.ids == nil {
		d.lookups++
		// What the batch has written for the conversation cannot be loaded.
		if d.changed || d.rec.releases > maxIDSet || d.lookups*idSetAfter < d.rec.last-d.rec.floor {
			return true, nil
		}
		var err error
		d.lookups = 0
		if d.ids, err = a.loadIDs(d.rec.num); err != nil || d.ids == nil {
			return true, err
		}
	}
	return d.ids.has(fingerprint(space, name)), nil
}

// noteID adds what is about to be remembered.
func (a *applier) noteID(d *dirty, space byte, name []byte) {
	if d.ids == nil && d.rec.releases == 0 {
		d.ids = &idSet{}
	}
	if d.ids == nil {
		return
	}
	if d.ids.add(fingerprint(space, name)); d.ids.used > maxIDSet {
		d.ids, d.lookups = nil, 0
	}
}

// loadIDs reads a conversation's set, nil when it is too large.
func (a *applier) loadIDs(num uint64) (*idSet, error) {
	s := &idSet{}
	for _, space := range []byte{storage.SpaceMessageID, storage.SpaceIdempotency} {
		lower := a.keys.numbered(nil, space, num)
		it, err := a.m.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: a.keys.numbered(nil, space, num+1)})
		if err != nil {
			return nil, err
		}
		for ok := it.First(); ok && s.used <= maxIDSet; ok = it.Next() {
			name := it.Key()[len(lower):]
			if space == storage.SpaceMessageID {
				// Older contents have longer keys, the id is the same.
				name = name[1 : 1+int(name[0])]
			}
			s.add(fingerprint(space, name))
		}
		if err := errors.Join(it.Error(), it.Close()); err != nil {
			return nil, err
		}
	}
	if s.used > maxIDSet {
		return nil, nil
	}
	return s, nil
}
