package remote

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// A lane against a model of it: callers come and give up, a stream comes, takes
// frames, answers and breaks, in any order. Whatever happens, the counters tell
// the truth, every call is answered once, and the frames carry exactly what was
// not withdrawn.
func TestLaneModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		opts := Options{MaxQueued: 8, MaxQueuedBytes: 2000}.withDefaults()
		m := &laneModel{
			lane: newLane(&opts, slog.New(slog.DiscardHandler)), opts: opts,
			queued: map[uint64]*call{}, sent: map[uint64]*call{},
		}
		t.Repeat(map[string]func(*rapid.T){
			"call":    m.call,
			"give up": m.giveUp,
			"up":      m.up,
			"take":    m.take,
			"answer":  m.answer,
			"down":    m.down,
			"refuse":  m.refuse,
			"":        m.check,
		})
	})
}

type laneModel struct {
	lane         *lane
	opts         Options
	window       int
	inFlight     int
	refusing     bool
	queued, sent map[uint64]*call // by id
	gone         []uint64         // sent, and given up
}

func (m *laneModel) call(t *rapid.T) {
	w := &write{kind: opAppend, append: &rpc.AppendRequest{Key: "k", Messages: repeat(1, rapid.IntRange(1, 900).Draw(t, "size"))}}
	c := &call{done: make(chan struct{}, 1)}
	size := w.size()
	full := len(m.queued) >= m.opts.MaxQueued || len(m.queued) > 0 && m.lane.out.bytes+size > m.opts.MaxQueuedBytes
	id, err := m.lane.enqueue(context.Background(), c, w, size)
	switch {
	case m.refusing:
		require.ErrorIs(t, err, rpc.ErrUnavailable)
	case full:
		require.ErrorIs(t, err, rpc.ErrOverloaded)
	default:
		require.NoError(t, err)
		m.queued[id] = c
	}
}

func (m *laneModel) giveUp(t *rapid.T) {
	if id, c, ok := pick(t, m.queued); ok {
		require.ErrorIs(t, m.lane.giveUp(id, c), rpc.ErrUnavailable)
		delete(m.queued, id)
	}
	if id, c, ok := pick(t, m.sent); ok {
		require.ErrorIs(t, m.lane.giveUp(id, c), rpc.ErrOutcomeUnknown)
		delete(m.sent, id)
		m.gone = append(m.gone, id)
	}
}

func (m *laneModel) up(t *rapid.T) {
	if m.window == 0 {
		m.window = rapid.IntRange(1, 20).Draw(t, "window")
		m.lane.up(m.window)
		m.refusing = false
	}
}

func (m *laneModel) take(t *rapid.T) {
	f, more := m.lane.take()
	require.Equal(t, m.window > 0, more)
	if f == nil {
		room := m.inFlight == 0 || m.inFlight+len(m.queued) <= m.window
		require.True(t, m.window == 0 || len(m.queued) == 0 || !room || len(m.lane.out.frames) > 1, "it had to send")
		return
	}
	jobs, _, err := decodeJobs(*f.buf)
	require.NoError(t, err)
	require.Len(t, jobs, f.entries)
	for _, j := range jobs {
		require.Contains(t, m.queued, j.id)
		m.sent[j.id] = m.queued[j.id]
		delete(m.queued, j.id)
	}
	require.True(t, m.inFlight == 0 || m.inFlight+f.entries <= m.window, "beyond the window")
	m.inFlight += f.entries
}

func (m *laneModel) answer(t *rapid.T) {
	var replies []reply
	id, c, ok := pick(t, m.sent)
	if ok {
		replies = append(replies, reply{id: id, kind: resultTombstone})
		delete(m.sent, id)
	}
	if len(m.gone) > 0 {
		replies = append(replies, reply{id: m.gone[0]})
		m.gone = m.gone[1:]
	}
	_, err := m.lane.deliver(replies, nil)
	require.NoError(t, err)
	m.inFlight -= len(replies)
	if ok {
		<-c.done
		require.Equal(t, id, c.reply.id)
		require.Nil(t, m.lane.giveUp(id, c), "it is answered")
	}
	if id, _, ok := pick(t, m.queued); ok {
		_, err := m.lane.deliver([]reply{{id: id}}, nil)
		require.ErrorIs(t, err, errUnasked)
	}
}

func (m *laneModel) down(t *rapid.T) {
	if m.window == 0 {
		return
	}
	m.window, m.inFlight, m.gone = 0, 0, nil
	m.lane.down(errDrained)
	for id, c := range m.sent {
		<-c.done
		require.ErrorIs(t, c.reply.err, rpc.ErrOutcomeUnknown)
		delete(m.sent, id)
	}
}

func (m *laneModel) refuse(t *rapid.T) {
	if m.window > 0 {
		return
	}
	m.refusing = true
	m.lane.refuse(rpc.ErrUnavailable)
	for id, c := range m.queued {
		<-c.done
		require.ErrorIs(t, c.reply.err, rpc.ErrUnavailable)
		delete(m.queued, id)
	}
	require.Zero(t, m.lane.out.bytes)
}

func (m *laneModel) check(t *rapid.T) {
	var s Stats
	m.lane.addStats(&s)
	require.Equal(t, len(m.queued), s.Queued)
	require.Equal(t, m.inFlight, s.InFlight)
	require.Len(t, m.lane.calls, len(m.queued)+len(m.sent))
	for _, calls := range []map[uint64]*call{m.queued, m.sent} {
		for _, c := range calls {
			require.Empty(t, c.done, "answered while it waits")
		}
	}
	bytes := 0
	for _, f := range m.lane.out.frames {
		bytes += len(*f.buf)
	}
	require.Equal(t, bytes, m.lane.out.bytes)
}

// pick draws a call of a map.
func pick(t *rapid.T, calls map[uint64]*call) (uint64, *call, bool) {
	var ids []uint64
	for id := range calls {
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return 0, nil, false
	}
	// Maps have no order, and rapid must be able to repeat a run.
	lowest := ids[0]
	for _, id := range ids {
		lowest = min(lowest, id)
	}
	highest := lowest
	for _, id := range ids {
		highest = max(highest, id)
	}
	id := rapid.SampledFrom([]uint64{lowest, highest}).Draw(t, "id")
	return id, calls[id], true
}

// What is too big for a frame travels alone, and a frame is never over its
// bounds.
func TestFramesAreBounded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var out outbox
		var entries []int
		for range rapid.IntRange(0, 700).Draw(t, "entries") {
			size := rapid.SampledFrom([]int{1, 1, 1, 1, 1, 1, 1, 1000, maxFrameBytes / 2, maxFrameBytes + 1}).Draw(t, "size")
			f := out.frame(size, nil)
			before := len(*f.buf)
			*f.buf = append(*f.buf, make([]byte, size)...)
			out.bytes += len(*f.buf) - before
			f.entries++
			entries = append(entries, size)
			if len(out.frames) > 5 {
				break
			}
		}
		total := 0
		for out.first() != nil {
			f := out.pop()
			require.LessOrEqual(t, f.entries, maxFrameEntries)
			if f.entries > 1 {
				require.LessOrEqual(t, len(*f.buf), maxFrameBytes)
			}
			total += f.entries
			frames.Put(f.buf)
		}
		require.Len(t, entries, total)
		require.Zero(t, out.bytes)
	})
}

func TestServerTimeouts(t *testing.T) {
	t.Parallel()
	s := NewServer(&stubNode{}, ServerOptions{MaxTime: time.Minute})
	for name, c := range map[string]struct {
		micros       uint64
		waited, want time.Duration
	}{
		"none":        {0, 0, time.Minute},
		"long":        {10e6, 0, 10*time.Second - maxReplyMargin},
		"short":       {80_000, 0, 70 * time.Millisecond},
		"waited":      {10e6, time.Second, 9*time.Second - maxReplyMargin},
		"beyond":      {3600e6, time.Second, 59 * time.Second},
		"beyond all":  {1 << 63, 0, time.Minute},
		"used up":     {1000, time.Millisecond, 0},
		"long passed": {1000, 9 * time.Millisecond, -7 * time.Millisecond},
	} {
		require.Equal(t, c.want, s.timeout(c.micros, c.waited), name)
	}
	require.NoError(t, s.Close(context.Background()))
}

// Writes that end at about the same time share a context, which ends with the
// last of them.
func TestDeadlinesAreShared(t *testing.T) {
	t.Parallel()
	st := &serverStream{stream: &scriptedStream{ctx: context.Background()}, began: time.Now().Add(-time.Hour)}
	r := &reader{st: st}
	at := st.began.Add(2 * time.Hour)
	a := r.deadline(at)
	b := r.deadline(at.Add(deadlineGrain / 2))
	c := r.deadline(at.Add(deadlineGrain))
	require.Same(t, a, b)
	require.NotSame(t, a, c)
	got, ok := a.ctx.Deadline()
	require.True(t, ok)
	require.WithinRange(t, got, at.Add(-deadlineGrain), at)
	a.release()
	require.NoError(t, a.ctx.Err())
	b.release()
	require.Error(t, a.ctx.Err())
	c.release()
	require.NoError(t, c.ctx.Err(), "the reader may give it to another write")
	r.last.release()
	require.Error(t, c.ctx.Err())
}
