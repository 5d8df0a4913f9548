package socket

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/router/stream"
)

// Errors before a connection is taken over.
var (
	// ErrDraining: the router is stopping. errors.Is matches rpc.ErrUnavailable.
	ErrDraining = fmt.Errorf("the router is stopping: %w", rpc.ErrUnavailable)
	// ErrFull: as many connections are open as may be. errors.Is matches
	// rpc.ErrOverloaded.
	ErrFull = fmt.Errorf("too many streams are open: %w", rpc.ErrOverloaded)
)

// HandshakeError reports that the request cannot become the stream it asks for.
type HandshakeError struct {
	Status int // of HTTP
	Reason string
}

func (e *HandshakeError) Error() string { return "handshake: " + e.Reason }

// Server serves streams on connections that it takes over from net/http. All
// its methods may be called from any goroutine.
//
// Goroutines: one that keeps time for all connections, and those of each link.
// Shutdown and Close stop and wait for all.
type Server struct {
	cfg     Config
	metrics *metrics
	clock   atomic.Int64 // seconds since the start, coarse
	outputs sync.Pool    // of *output

	ctx    context.Context // ends when draining begins
	refuse context.CancelFunc
	stop   chan struct{}
	ended  chan struct{} // of the timekeeper
	once   sync.Once

	mu       sync.Mutex // guards the rest
	wheel    [beatSeconds]map[*link]struct{}
	open     int // links, and requests about to become one
	draining bool
	emptied  chan struct{} // closed when open becomes 0 while draining
}

// beatSeconds is how often each connection is looked after. They are spread over
// a wheel with one slot per second, so that none has a timer of its own.
const beatSeconds = 15

// New returns a running Server.
func New(cfg Config) (*Server, error) {
	cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("stream server: %w", err)
	}
	s := &Server{cfg: cfg, metrics: newMetrics(), stop: make(chan struct{}), ended: make(chan struct{}), emptied: make(chan struct{})}
	if err := s.metrics.register(cfg.Registerer); err != nil {
		return nil, fmt.Errorf("stream server metrics: %w", err)
	}
	s.ctx, s.refuse = context.WithCancel(context.Background())
	s.outputs.New = func() any { return new(output) }
	for i := range s.wheel {
		s.wheel[i] = make(map[*link]struct{})
	}
	go s.keepTime()
	return s, nil
}

// keepTime turns the wheel.
func (s *Server) keepTime() {
	defer close(s.ended)
	seconds := time.NewTicker(time.Second)
	defer seconds.Stop()
	var due []*link
	for {
		select {
		case <-s.stop:
			return
		case <-seconds.C:
		}
		due = s.due(s.clock.Add(1), due[:0])
		for i, l := range due {
			l.tick()
			due[i] = nil
		}
	}
}

func (s *Server) due(now int64, due []*link) []*link {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.wheel[now%beatSeconds] {
		due = append(due, l)
	}
	return due
}

// admit reserves a place for one more connection. Whoever was admitted calls
// release, unless the connection becomes a link.
func (s *Server) admit() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining:
		return ErrDraining
	case s.open >= s.cfg.MaxConnections:
		return ErrFull
	}
	s.open++
	return nil
}

func (s *Server) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	if s.open == 0 && s.draining {
		close(s.emptied)
	}
}

// link makes a connection that was taken over a link.
func (s *Server) link(kind transport, c *conn, protocolOf func(*link) protocol) {
	l := &link{server: s, kind: kind, conn: c, slot: rand.IntN(beatSeconds)}
	l.session = s.cfg.Hub.NewSession(l.work)
	l.proto = protocolOf(l)
	s.metrics.of[kind].open.Inc()
	s.mu.Lock()
	s.wheel[l.slot][l] = struct{}{}
	draining := s.draining
	s.mu.Unlock()
	l.proto.start()
	if draining { // began between admission and now
		l.order(restarting)
	}
	go l.run()
}

// forget is the last that a link does.
func (s *Server) forget(l *link) {
	s.mu.Lock()
	delete(s.wheel[l.slot], l)
	s.mu.Unlock()
	s.metrics.of[l.kind].open.Dec()
	s.metrics.closed.WithLabelValues(l.cause).Inc()
	s.release()
}

func (s *Server) borrow(c *conn) *output {
	o := s.outputs.Get().(*output)
	o.conn = c
	return o
}

func (s *Server) giveBack(l *link, o *output) {
	of := &s.metrics.of[l.kind]
	of.sent.Add(float64(o.sent))
	if o.err == nil && o.sent > 0 && !o.news.IsZero() {
		of.delivery.Observe(time.Since(o.news).Seconds())
	}
	if cap(o.buf) > maxPooledBytes {
		o.buf = nil
	}
	clear(o.step.Frames)
	*o = output{buf: o.buf[:0], step: stream.Step{Frames: o.step.Frames[:0]}}
	s.outputs.Put(o)
}

// Drain refuses new connections from now on. Those that are open go on.
func (s *Server) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return
	}
	s.draining = true
	s.refuse()
	if s.open == 0 {
		close(s.emptied)
	}
}

var restarting = &goodbye{code: codeRestart, reason: "the server is restarting, reconnect", cause: causeDrain}

// Bounds of the waves in which a stopping server sends its clients away.
const (
	drainPerConnection = time.Millisecond
	drainShare         = 2 // of the time that is left, one part in so many
)

// Shutdown sends all clients away, one after the other in random order, so that
// they do not come back to another router as one. When ctx ends first, what is
// left is cut off and the context's error returned.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Drain()
	s.sendAway(ctx)
	var err error
	select {
	case <-s.emptied:
	case <-ctx.Done():
		err = fmt.Errorf("drain streams: %w", ctx.Err())
	}
	s.Close()
	return err
}

func (s *Server) sendAway(ctx context.Context) {
	links := s.links()
	if len(links) == 0 {
		return
	}
	rand.Shuffle(len(links), func(i, j int) { links[i], links[j] = links[j], links[i] })
	spread := time.Duration(len(links)) * drainPerConnection
	if deadline, ok := ctx.Deadline(); ok {
		spread = min(spread, time.Until(deadline)/drainShare)
	}
	const waves = 50
	pause := time.NewTicker(max(spread/waves, time.Millisecond))
	defer pause.Stop()
	for size := (len(links) + waves - 1) / waves; len(links) > 0; {
		wave := links[:min(size, len(links))]
		links = links[len(wave):]
		for _, l := range wave {
			l.order(restarting)
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) links() []*link {
	s.mu.Lock()
	defer s.mu.Unlock()
	var links []*link
	for _, slot := range s.wheel {
		for l := range slot {
			links = append(links, l)
		}
	}
	return links
}

// Close cuts all connections off, and returns once all goroutines have ended.
func (s *Server) Close() {
	s.Drain()
	for _, l := range s.links() {
		l.blame(causeDrain)
		_ = l.conn.Close()
	}
	<-s.emptied
	s.once.Do(func() { close(s.stop) })
	<-s.ended
}

// Open is the number of connections.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// begin admits a stream of one conversation and finds it. done gives back what
// it took; taken says that the place went to a link.
func (s *Server) begin(ctx context.Context, key rpc.Key) (done func(taken bool), err error) {
	if err := s.admit(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	_, unhold, err := s.cfg.Hub.Await(ctx, key)
	if err != nil {
		s.release()
		return nil, err
	}
	return func(taken bool) {
		unhold()
		if !taken {
			s.release()
		}
	}, nil
}

// errHijack: the connection cannot be taken over, as with HTTP/2.
var errHijack = errors.New("the connection cannot be taken over")

var _ http.Hijacker = (*takeover)(nil)
