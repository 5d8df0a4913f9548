package transport

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// inbox is the bounded queue of requests of one view. Requests go straight
// into Raft's Consumer channel, in the order of their arrival; one goroutine
// sends the answers back.
//
// Every request takes the next slot of a ring and is answered on the slot's own
// channel. Raft answers in order, so the goroutine waits at the oldest slot,
// and wakes once per request. Should Raft ever answer out of order, an answer
// still belongs to the request it came with; it would only be sent later.
//
// Goroutines: answer (owner of head), readers of connections (deliver).
type inbox struct {
	view  *View
	slots []slot
	head  atomic.Uint64 // oldest request without an answer
	bytes atomic.Int64  // of the requests without an answer

	mu     sync.Mutex // guards the fields below and the order of consumer
	tail   uint64     // next slot to use
	closed bool
}

type slot struct {
	// answer holds Raft's answer and the signal to stop, so that neither ever
	// waits: Raft would block its main loop.
	answer chan raft.RPCResponse
	conn   *conn
	id     uint64
	reply  kind
	bytes  int64
}

// errStop is the signal to stop, as an answer.
var errStop = errors.New("stop")

func (b *inbox) init(v *View, size int) {
	b.view = v
	b.slots = make([]slot, size)
	for i := range b.slots {
		b.slots[i].answer = make(chan raft.RPCResponse, 2)
	}
}

func (b *inbox) slot(n uint64) *slot { return &b.slots[n%uint64(len(b.slots))] }

// deliver queues a request for Raft, or says why not. It never blocks.
func (b *inbox) deliver(c *conn, f frame, req any) (refusal, bool) {
	size := int64(len(f.body))
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return refusedGroupClosed, false
	}
	waiting := b.tail - b.head.Load()
	if waiting == uint64(len(b.slots)) ||
		waiting > 0 && b.bytes.Load()+size > int64(b.view.mux.conf.Limits.GroupQueueBytes) {
		return refusedGroupBusy, false
	}
	s := b.slot(b.tail)
	s.conn, s.id, s.reply, s.bytes = c, f.id, f.kind.reply(), size
	select {
	case b.view.consumer <- raft.RPC{Command: req, RespChan: s.answer}:
	default:
		return refusedGroupBusy, false
	}
	b.bytes.Add(size)
	b.tail++
	return 0, true
}

// answer sends Raft's answers until the inbox closes, then refuses what is
// left.
func (b *inbox) answer() {
	for {
		head := b.head.Load()
		s := b.slot(head)
		a := <-s.answer
		if a.Error == errStop {
			break
		}
		b.send(s, a)
		b.head.Store(head + 1)
	}
	b.mu.Lock()
	tail := b.tail
	b.mu.Unlock()
	for n := b.head.Load(); n < tail; n++ {
		s := b.slot(n)
		select {
		case a := <-s.answer:
			if a.Error != errStop {
				b.send(s, a)
				continue
			}
		default:
		}
		s.conn.refuse(b.view.group, s.id, refusedGroupClosed)
	}
}

func (b *inbox) send(s *slot, a raft.RPCResponse) {
	b.bytes.Add(-s.bytes)
	c := s.conn
	s.conn = nil
	c.respond(b.view.group, s.id, s.reply, a.Response, a.Error)
}

// close refuses further requests and stops answer.
func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.closed = true
	for i := range b.slots {
		b.slots[i].answer <- raft.RPCResponse{Error: errStop}
	}
}
