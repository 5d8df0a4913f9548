package mesh

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/pprof"
	"sync"
	"time"
)

// Listener is the internal listener of a process.
//
// Goroutines: run (accepts), and one per handshake in progress, of which there
// are at most limits.handshakes. Established connections have none. Close stops
// all of them and waits.
type Listener struct {
	conf     Config
	certs    *certificates // nil without TLS
	conns    *connSet
	failures *failureLog
	keys     keyring
	limits   limits
	ln       net.Listener

	closing chan struct{}  // closed by Close
	slots   chan struct{}  // one element per handshake goroutine
	tasks   sync.WaitGroup // run and the handshakes

	mu         sync.Mutex // guards the fields below
	closed     bool
	handshakes list.List // of net.Conn, oldest first
	stats      counters
	virtual    map[Kind]*virtualListener
}

// Listen opens the internal listener of a process on a TCP address and starts
// accepting. It reports all problems of the configuration, the certificates and
// the address, joined. Kinds are refused until Accept claims them.
func Listen(addr string, conf Config) (*Listener, error) {
	_, _, err := net.SplitHostPort(addr) // an empty address would be any port
	tcp, resolveErr := net.ResolveTCPAddr("tcp", addr)
	if err = cmp.Or(err, resolveErr); err != nil {
		return nil, errors.Join(conf.Validate(), fmt.Errorf("mesh: listen: %w", err))
	}
	l, err := prepare(tcp, conf)
	if err != nil {
		return nil, err
	}
	options := net.ListenConfig{}
	options.SetMultipathTCP(false)
	ln, err := options.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("mesh: listen: %w", err)
	}
	return l.start(ln)
}

// Serve is Listen on a listener that exists. It owns ln when it returns no
// error. Connections that are not *net.TCPConn work, at the price of the fast
// paths of one.
func Serve(ln net.Listener, conf Config) (*Listener, error) {
	l, err := prepare(ln.Addr(), conf)
	if err != nil {
		return nil, err
	}
	return l.start(ln)
}

func prepare(addr net.Addr, conf Config) (*Listener, error) {
	problems := []error{conf.Validate(), conf.checkExposure(addr)}
	certs, err := loadCertificates(conf.Credentials, conf.Logger, time.Now)
	problems = append(problems, err)
	keys, err := newKeyring(conf.Credentials.Token)
	if err := errors.Join(append(problems, err)...); err != nil {
		return nil, err
	}
	bounds := conf.limits.withDefaults()
	return &Listener{
		conf:     conf,
		certs:    certs,
		conns:    newConnSet(bounds.conns, conf.ClusterID),
		failures: newFailureLog(bounds.logEvery, time.Now),
		keys:     keys,
		limits:   bounds,
		closing:  make(chan struct{}),
		slots:    make(chan struct{}, bounds.handshakes),
		virtual:  make(map[Kind]*virtualListener),
	}, nil
}

// start checks the address once more: a name may resolve to another one now.
func (l *Listener) start(ln net.Listener) (*Listener, error) {
	if err := l.conf.checkExposure(ln.Addr()); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	l.ln = ln
	l.tasks.Add(1)
	go pprof.Do(context.Background(), pprof.Labels("component", "mesh"), func(context.Context) { l.run() })
	return l, nil
}

// Addr returns the address of the listener.
func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

// SetClusterID makes the id of the cluster known once the process has learned
// it, and breaks connections whose dialers said they belong to another. It
// fails with ErrWrongCluster when another id is known already: a process never
// changes its cluster.
func (l *Listener) SetClusterID(id string) error {
	if err := l.conns.setCluster(id); err != nil {
		return fmt.Errorf("mesh: set cluster id: %w", err)
	}
	return nil
}

// Accept claims a kind and returns the listener of its connections, each of
// them a Conn. From then on, until that listener or l is closed, connections of
// the kind are let in. A kind claimed already has one listener, which both
// callers get. The listener of an unknown kind, or of a closed Listener, only
// returns errors.
func (l *Listener) Accept(kind Kind) net.Listener {
	l.mu.Lock()
	defer l.mu.Unlock()
	if v := l.virtual[kind]; v != nil {
		return v
	}
	v := newVirtualListener(l, kind, l.limits.backlog)
	switch {
	case !kind.allows(l.conf.Role):
		v.shut(fmt.Errorf("%w: %v does not serve %v", ErrForbidden, l.conf.Role, kind))
	case l.closed:
		v.shut(nil)
	default:
		l.virtual[kind] = v
	}
	return v
}

func (l *Listener) claimed(kind Kind) *virtualListener {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.virtual[kind]
}

func (l *Listener) unclaim(v *virtualListener) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.virtual[v.kind] == v {
		delete(l.virtual, v.kind)
	}
}

// Close stops listening, breaks handshakes and every connection that is still
// open, closes the virtual listeners and waits until all goroutines of the
// Listener have ended. Protocols that end gracefully should have done so before.
func (l *Listener) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		l.tasks.Wait()
		return nil
	}
	l.closed = true
	close(l.closing)
	for e := l.handshakes.Front(); e != nil; e = e.Next() {
		_ = e.Value.(net.Conn).Close()
	}
	l.mu.Unlock()

	err := l.ln.Close()
	l.tasks.Wait()
	l.shutVirtual()
	l.conns.close()
	if err != nil {
		return fmt.Errorf("mesh: close: %w", err)
	}
	return nil
}

func (l *Listener) shutVirtual() {
	l.mu.Lock()
	all := make([]*virtualListener, 0, len(l.virtual))
	for _, v := range l.virtual {
		all = append(all, v)
	}
	l.mu.Unlock()
	for _, v := range all {
		_ = v.Close()
	}
}

// run accepts until the listener is closed. Other failures, such as a lack of
// file descriptors, pass; it waits a little longer after each.
func (l *Listener) run() {
	defer l.tasks.Done()
	const pauseMin, pauseMax = 5 * time.Millisecond, time.Second
	pause := pauseMin
	for {
		raw, err := l.ln.Accept()
		if err == nil {
			pause = pauseMin
			l.begin(raw)
			continue
		}
		select {
		case <-l.closing:
			return
		default:
		}
		if errors.Is(err, net.ErrClosed) {
			l.conf.Logger.Error("mesh: the listener was closed from outside", "error", err)
			l.shutVirtual()
			return
		}
		l.logFailure(slog.LevelError, "accept", "mesh: accepting fails", "error", err)
		timer := time.NewTimer(pause)
		select {
		case <-l.closing:
			timer.Stop()
			return
		case <-timer.C:
		}
		pause = min(2*pause, pauseMax)
	}
}

// begin starts the handshake of a new connection. When all slots are taken the
// oldest handshake gives way: an honest one takes milliseconds, so the oldest is
// the one most likely never to end, and who fills the slots locks nobody out.
func (l *Listener) begin(raw net.Conn) {
	select {
	case l.slots <- struct{}{}:
	default:
		l.evictOldest()
		select {
		case l.slots <- struct{}{}:
		case <-l.closing:
			_ = raw.Close()
			return
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		<-l.slots
		_ = raw.Close()
		return
	}
	entry := l.handshakes.PushBack(raw)
	l.tasks.Add(1)
	go l.handshake(entry, raw)
}

func (l *Listener) evictOldest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if entry := l.handshakes.Front(); entry != nil {
		l.handshakes.Remove(entry)
		l.stats.evicted++
		_ = entry.Value.(net.Conn).Close()
	}
}

// handshake runs one handshake in its own goroutine and delivers the result.
func (l *Listener) handshake(entry *list.Element, raw net.Conn) {
	defer l.tasks.Done()
	defer func() { <-l.slots }()
	result, err := l.establish(raw)

	l.mu.Lock()
	l.handshakes.Remove(entry) // does nothing when it was evicted
	l.stats.count(err)
	l.mu.Unlock()

	if err != nil {
		_ = raw.Close()
		l.report(raw.RemoteAddr(), result.hello, err)
		return
	}
	result.place.deliver(result.conn)
}

// logFailure logs at a bounded rate per key.
func (l *Listener) logFailure(level slog.Level, key, msg string, args ...any) {
	suppressed, ok := l.failures.allow(key)
	if !ok {
		return
	}
	if suppressed > 0 {
		args = append(args, "suppressed", suppressed)
	}
	l.conf.Logger.Log(context.Background(), level, msg, args...)
}
