package storage

import (
	"context"
	"time"
)

// Pebble compacts to stay in shape, not to give back room: deletions that are
// small themselves may lie above what they delete for as long as nothing else
// pushes them down. The reclaimer pushes when that is worth it.
const (
	// reclaimInterval is how often the tree is looked at.
	reclaimInterval = 5 * time.Second
	// reclaimBytesMin is the garbage below which nothing is done.
	reclaimBytesMin = 8 << 20
	// reclaimShare bounds garbage to one over this of the live bytes. A pass
	// rewrites what is live, so room costs three times itself to get back.
	reclaimShare = 2
	// reclaimChunkBytes is how much is compacted at a time, or one group if that
	// is more. Close waits for one such compaction.
	reclaimChunkBytes = 64 << 20
	// reclaimRest is how many times as long as a pass took, at least, the next
	// one waits.
	reclaimRest = 3

	// Pebble estimates what a deletion covers when it writes the deletion's table,
	// by what lies in the levels below. It so misses what is beside it in the
	// first level, which is up to 256 MiB. In a tree of less than
	// reclaimSmallBytes that may be nearly all, so there a pass is made whenever
	// it comes to rest with deletions in it, but once per reclaimSmallEvery.
	reclaimSmallBytes = 512 << 20
	reclaimSmallEvery = 10 * time.Minute

	// A tree is quiet while at most quietBytes are written per interval, for
	// quietIntervals. A memtable with more than quietLogBytes in its log is
	// flushed then: what it deletes is not known to be garbage before.
	quietBytes     = 1 << 20
	quietIntervals = 2
	quietLogBytes  = 4 << 20
)

// reclaimSpaces hold what is deleted in the course of things.
var reclaimSpaces = []byte{SpaceLog, SpaceConversation, SpaceMessage, SpaceMessageID, SpaceIDBySeq, SpaceIdempotency}

// reclaimer decides when to reclaim room. It belongs to one goroutine.
type reclaimer struct {
	written   uint64 // as of the last look
	quiet     int    // intervals
	left      uint64 // garbage that the last pass could do nothing about
	notBefore time.Time
	smallNext time.Time // not before
}

// shape is what the reclaimer looks at, in bytes.
type shape struct {
	written uint64 // to the write-ahead log, ever
	logged  uint64 // in it, and not flushed
	tables  uint64
	garbage uint64 // estimated, in tables
	// deletions is how many are in tables, of rows and of ranges.
	deletions uint64
}

type reclaimAction uint8

const (
	reclaimNothing reclaimAction = iota
	reclaimFlush
	reclaimPass
)

// next decides what to do about the tree as it is.
func (r *reclaimer) next(now time.Time, s shape) reclaimAction {
	if s.written-r.written > quietBytes {
		r.quiet = 0
	} else {
		r.quiet++
	}
	r.written = s.written
	r.left = min(r.left, s.garbage)
	live := s.tables - min(s.garbage, s.tables)
	quiet := r.quiet >= quietIntervals
	switch {
	case quiet && s.logged > quietLogBytes:
		return reclaimFlush
	case now.Before(r.notBefore):
		return reclaimNothing
	case s.garbage-r.left > max(reclaimBytesMin, live/reclaimShare):
		return reclaimPass
	case quiet && s.deletions > 0 && s.tables > reclaimBytesMin && s.tables < reclaimSmallBytes && now.After(r.smallNext):
		r.smallNext = now.Add(reclaimSmallEvery)
		return reclaimPass
	}
	return reclaimNothing
}

// passed notes a pass that took so long, with the garbage before and after it.
// What came meanwhile is not held against it.
func (r *reclaimer) passed(now time.Time, took time.Duration, before, after uint64) {
	r.left, r.notBefore = min(before, after), now.Add(reclaimRest*took)
}

func (e *Engine) shape() shape {
	m := e.db.Metrics()
	total := m.Total()
	return shape{
		written: m.WAL.BytesIn, logged: m.WAL.Size,
		tables:    uint64(max(total.TablesSize, 0)),
		garbage:   m.Table.Garbage.PointDeletionsBytesEstimate + m.Table.Garbage.RangeDeletionsBytesEstimate,
		deletions: m.Keys.TombstoneCount,
	}
}

// reclaim gives room back until ctx ends.
func (e *Engine) reclaim(ctx context.Context) {
	defer close(e.reclaimDone)
	ticker := time.NewTicker(e.opts.reclaimInterval)
	defer ticker.Stop()
	var r reclaimer
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if e.Health() != nil {
			continue // a compaction needs room before it gives any
		}
		switch r.next(time.Now(), e.shape()) {
		case reclaimFlush:
			e.flushIdle(ctx)
		case reclaimPass:
			began := time.Now()
			before := e.shape()
			err := e.compactAll(ctx)
			if ctx.Err() != nil {
				return
			}
			after := e.shape()
			took := time.Since(began)
			r.passed(time.Now(), took, before.garbage, after.garbage)
			e.logger.Info("storage reclaimed room", "table_bytes_before", before.tables, "table_bytes", after.tables,
				"garbage_before", before.garbage, "garbage", after.garbage, "took", took, "error", err)
		}
	}
}

func (e *Engine) flushIdle(ctx context.Context) {
	done, err := e.db.AsyncFlush()
	if err != nil {
		e.logger.Warn("storage was not flushed", "error", err)
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// compactAll pushes all that is deleted down to what it deletes, a chunk at a
// time. Between chunks it rests for as long as the last one took, so that it
// takes half of one of Pebble's compactions at most.
func (e *Engine) compactAll(ctx context.Context) error {
	for _, space := range reclaimSpaces {
		for group := 0; group < groupsMax; {
			start, end, next, err := e.reclaimChunk(space, group, reclaimChunkBytes)
			if err != nil {
				return err
			}
			began := time.Now()
			if err := e.db.Compact(ctx, start, end, false); err != nil {
				return err
			}
			if err := e.Health(); err != nil {
				return err
			}
			group = next
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Since(began)):
			}
		}
	}
	return nil
}

// groupsMax is one above the highest group that keys have room for in practice;
// what is beyond is one chunk with the last.
const groupsMax = 256

// reclaimChunk returns the keys of as many groups, from the given one on, as
// have at least so many bytes in tables, and the group after them.
func (e *Engine) reclaimChunk(space byte, group int, bytes uint64) (start, end []byte, next int, err error) {
	start = AppendPrefix(nil, space, uint16(group))
	for next = group + 1; next < groupsMax; next++ {
		end = AppendPrefix(end[:0], space, uint16(next))
		size, err := e.db.EstimateDiskUsage(start, end)
		if err != nil {
			return nil, nil, 0, err
		}
		if size >= bytes {
			return start, end, next, nil
		}
	}
	return start, []byte{space + 1}, groupsMax, nil
}
