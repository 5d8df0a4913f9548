package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// pager reads pages of logs for cursors that are behind their topic's ring.
// Cursors at the same position share one read, and pages are kept for a moment,
// because clients come back together. It bounds the reads under way and the
// bytes of the pages held; a page outlives its delivery until each cursor that
// waited for it has had one step of it, so every read gets its readers on, unless
// their clients are slow.
type pager struct {
	hub   *Hub
	reads lanes

	mu      sync.Mutex // guards the rest
	fetches map[position]*fetch
	held    map[*topic][]*page
	oldest  *page // by last use; linked through newer
	newest  *page
	bytes   int64
}

type position struct {
	topic *topic
	seq   uint64
}

// fetch is a page that cursors wait for.
type fetch struct {
	position
	waiters  []*Cursor
	waiting  int // of them, those that have not left
	mean     int
	failures int
}

// page is a run of messages.
type page struct {
	topic        *topic
	frames       []Frame
	bytes        int64
	pins         int // cursors that wait to read it
	used         time.Time
	older, newer *page
}

// Page sizes. A page of a conversation whose message size is not known yet is
// short, because its messages may be large.
const (
	firstPageMessages = 8
	// pinFor is how long a page is kept for a cursor that does not come, because
	// its client takes nothing. The cursor will ask again.
	pinFor = 500 * time.Millisecond
	// budgetPause is how long a read waits when pages in use fill the budget.
	budgetPause = 10 * time.Millisecond
)

func newPager(h *Hub) *pager {
	p := &pager{hub: h, fetches: make(map[position]*fetch), held: make(map[*topic][]*page)}
	p.reads.init(h.cfg.PageReads)
	return p
}

// take fills the step from a page that holds the cursor's position, or with the
// gap that a read has found. If there is neither, the cursor waits for a read
// and take returns false.
func (p *pager) take(c *Cursor, most, mean int, step *Step) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.fetch != nil {
		return false
	}
	p.unpin(c)
	if c.earliest > c.pos {
		step.Gap, step.Expected, step.Actual = true, c.pos, c.earliest
		return true
	}
	for _, pg := range p.held[c.topic] {
		if first := pg.frames[0].Seq; c.pos >= first && c.pos-first < uint64(len(pg.frames)) {
			p.touch(pg)
			step.Frames = pg.from(c.pos, step.Frames, most)
			return true
		}
	}
	at := position{c.topic, c.pos}
	f := p.fetches[at]
	if f == nil {
		f = &fetch{position: at, mean: mean}
		p.fetches[at] = f
		p.reads.do(f.topic.group, func() { p.read(f) })
	}
	f.waiters = append(f.waiters, c)
	f.waiting++
	c.fetch = f
	return false
}

func (pg *page) from(seq uint64, dst []*Frame, most int) []*Frame {
	at := int(seq - pg.frames[0].Seq)
	for bytes := 0; at < len(pg.frames) && most > 0 && bytes < maxStepBytes; at++ {
		dst = append(dst, &pg.frames[at])
		bytes += len(pg.frames[at].Payload)
		most--
	}
	return dst
}

// leave forgets a cursor.
func (p *pager) leave(c *Cursor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unpin(c)
	if c.fetch != nil {
		c.fetch.waiting--
		c.fetch = nil
	}
}

func (p *pager) unpin(c *Cursor) {
	if c.page != nil {
		c.page.pins--
		c.page = nil
	}
}

// errMisread: the data plane answered something that cannot be, such as a node
// that is behind what another has told. Reading again helps.
var errMisread = errors.New("page does not begin where it should")

// read makes one try at a fetch. A worker calls it.
func (p *pager) read(f *fetch) {
	p.mu.Lock()
	if f.waiting == 0 {
		delete(p.fetches, f.position)
		p.mu.Unlock()
		return
	}
	if p.evict(); p.bytes >= p.hub.cfg.PageBudget {
		p.mu.Unlock()
		p.again(f, budgetPause)
		return
	}
	p.mu.Unlock()

	ctx, cancel := context.WithTimeout(p.hub.ctx, p.hub.cfg.CallTimeout)
	defer cancel()
	p.hub.metrics.pageReads.Inc()
	got, err := p.hub.cfg.Node.Messages(ctx, &rpc.MessagesRequest{Key: f.topic.key, From: f.seq, Limit: p.limit(f.mean)})
	var expired *rpc.CursorExpiredError
	p.reads.tell(f.topic.group, err != nil && !errors.As(err, &expired))
	switch {
	case expired != nil && expired.Earliest > f.seq:
		p.deliver(f, nil, expired.Earliest)
		return
	case err == nil && len(got.Messages) > 0 && got.Messages[0].Seq == f.seq:
		frames, size := framesOf(got.Messages)
		f.topic.mu.Lock()
		f.topic.measure(size / len(frames))
		f.topic.mu.Unlock()
		p.deliver(f, &page{topic: f.topic, frames: frames, bytes: int64(size)}, 0)
		return
	case err == nil:
		err = errMisread
	}
	if p.hub.ctx.Err() != nil {
		return
	}
	f.failures++
	p.hub.metrics.pageFailures.Inc()
	p.hub.cfg.Log.Debug("page not read", "conversation", string(f.topic.key), "from", f.seq, "failures", f.failures, "error", fmt.Errorf("read page: %w", err))
	p.again(f, p.hub.cfg.backoff(f.failures))
}

func (p *pager) again(f *fetch, pause time.Duration) {
	p.hub.keeper.after(pause, func() { p.reads.do(f.topic.group, func() { p.read(f) }) })
}

func (p *pager) limit(mean int) int {
	if mean == 0 {
		return firstPageMessages
	}
	return min(max(p.hub.cfg.PageBytes/mean, 1), rpc.MaxPageMessages)
}

// deliver hands the outcome of a read to those who wait for it.
func (p *pager) deliver(f *fetch, pg *page, earliest uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.fetches, f.position)
	if pg != nil && f.waiting > 0 {
		p.hold(pg)
	}
	for _, c := range f.waiters {
		if c.fetch != f {
			continue // left
		}
		c.fetch, c.earliest = nil, earliest
		if pg != nil {
			c.page = pg
			pg.pins++
		}
		c.session.push(c)
	}
}

func (p *pager) hold(pg *page) {
	p.held[pg.topic] = append(p.held[pg.topic], pg)
	p.bytes += pg.bytes
	pg.used = time.Now()
	p.link(pg)
}

func (p *pager) link(pg *page) {
	pg.older, pg.newer = p.newest, nil
	if p.newest == nil {
		p.oldest = pg
	} else {
		p.newest.newer = pg
	}
	p.newest = pg
}

func (p *pager) unlink(pg *page) {
	if pg.older == nil {
		p.oldest = pg.newer
	} else {
		pg.older.newer = pg.newer
	}
	if pg.newer == nil {
		p.newest = pg.older
	} else {
		pg.newer.older = pg.older
	}
}

func (p *pager) touch(pg *page) {
	pg.used = time.Now()
	p.unlink(pg)
	p.link(pg)
}

// evict drops the pages used least recently that nobody waits to read, until
// the budget has room.
func (p *pager) evict() {
	if p.bytes < p.hub.cfg.PageBudget {
		return
	}
	now := time.Now()
	for pg := p.oldest; pg != nil && p.bytes >= p.hub.cfg.PageBudget; {
		next := pg.newer
		if pg.pins == 0 || now.Sub(pg.used) > pinFor {
			p.drop(pg)
		}
		pg = next
	}
}

func (p *pager) drop(pg *page) {
	p.unlink(pg)
	p.bytes -= pg.bytes
	pages := p.held[pg.topic]
	for i := range pages {
		if pages[i] == pg {
			pages[i] = pages[len(pages)-1]
			pages = pages[:len(pages)-1]
			break
		}
	}
	if len(pages) == 0 {
		delete(p.held, pg.topic)
		return
	}
	p.held[pg.topic] = pages
}

// sweep drops pages that nobody has used for a while.
func (p *pager) sweep(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pg := p.oldest; pg != nil && now.Sub(pg.used) >= p.hub.cfg.RingAge; {
		next := pg.newer
		p.drop(pg)
		pg = next
	}
}
