package console

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	// lookInterval is the least time between two looks at the cluster, however
	// many pages are open.
	lookInterval = 2 * time.Second
	// lookTimeout bounds one.
	lookTimeout = 10 * time.Second
	// recentTimeout bounds the part of it that can be missing.
	recentTimeout = time.Second
	// lookPatience is how long a request waits for a look before it is answered
	// with the last one.
	lookPatience = 1500 * time.Millisecond
)

// picture is what is sent to pages. It is not changed once it is made.
type picture struct {
	plain, packed []byte
}

// sent is the JSON of a picture.
type sent struct {
	// At is when the cluster was last seen, in milliseconds since 1970; 0 if it
	// never was.
	At int64 `json:"at"`
	// Problem is why it could not be seen just now, or empty.
	Problem string          `json:"problem,omitempty"`
	Cluster json.RawMessage `json:"cluster,omitempty"`
}

// snapshot is the last that was seen of the cluster.
//
// Goroutines: two while a look is under way, which close waits for.
type snapshot struct {
	cluster Cluster
	latency Latency // may be nil
	log     *slog.Logger
	now     func() time.Time
	ctx     context.Context // ends with close
	stop    context.CancelFunc

	mu      sync.Mutex // guards the below
	closed  bool
	current *picture      // nil before the first look has ended
	looked  time.Time     // when the last look began
	looking chan struct{} // closed when the look under way has ended; nil when none is
	seen    sent          // the last success
	failing bool

	looks sync.WaitGroup
}

func newSnapshot(cluster Cluster, latency Latency, log *slog.Logger, now func() time.Time) *snapshot {
	ctx, stop := context.WithCancel(context.Background())
	return &snapshot{cluster: cluster, latency: latency, log: log, now: now, ctx: ctx, stop: stop}
}

// get returns the newest picture, and begins a look when that is old. It waits
// for the look, a while if there is an older picture and as long as ctx allows if
// there is none. It returns nil when ctx ends or the snapshot is closed first.
func (s *snapshot) get(ctx context.Context) *picture {
	current, looking := s.begin()
	if looking == nil {
		return current
	}
	if current != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, lookPatience)
		defer cancel()
	}
	select {
	case <-looking:
	case <-ctx.Done():
		return current
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// begin returns the picture there is and, when it is old, the look that will
// replace it.
func (s *snapshot) begin() (*picture, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.looking == nil && s.current != nil && s.now().Sub(s.looked) < lookInterval {
		return s.current, nil
	}
	if s.looking == nil {
		done := make(chan struct{})
		s.looking, s.looked = done, s.now()
		s.looks.Go(func() {
			defer close(done)
			s.look()
		})
	}
	return s.current, s.looking
}

func (s *snapshot) look() {
	ctx, cancel := context.WithTimeout(s.ctx, lookTimeout)
	defer cancel()
	seen, err := s.see(ctx)
	if err == nil {
		seen.At = s.now().UnixMilli()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looking = nil
	if s.ctx.Err() != nil {
		return
	}
	show := seen
	if err != nil {
		show = s.seen
		// The reason is for the log: it may name addresses.
		show.Problem = "The control plane does not answer. Messages are served without it."
		if !s.failing {
			s.log.Warn("the console cannot see the cluster", "error", err)
		}
	} else {
		s.seen = seen
		if s.failing {
			s.log.Info("the console sees the cluster again")
		}
	}
	s.failing = err != nil
	current, err := develop(show)
	if err != nil {
		s.log.Error("console", "error", err)
		return
	}
	s.current = current
}

func (s *snapshot) see(ctx context.Context) (seen sent, err error) {
	recent := make(chan *Recent, 1)
	s.looks.Go(func() { recent <- s.seeAppends(ctx) })
	o, err := lookAt(ctx, s.cluster)
	appends := <-recent
	if err != nil {
		return sent{}, err
	}
	o.Appends = appends
	seen.Cluster, err = json.Marshal(o)
	return seen, err
}

// seeAppends returns nil when nobody tells: the rest is worth seeing without.
func (s *snapshot) seeAppends(ctx context.Context) *Recent {
	if s.latency == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, recentTimeout)
	defer cancel()
	recent, err := s.latency.Recent(ctx)
	if err != nil {
		s.log.Debug("the console does not know how long appends take in the cluster", "error", err)
		return nil
	}
	return recent
}

// develop makes a picture once for all pages that will be shown it.
func develop(s sent) (*picture, error) {
	plain, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode the cluster: %w", err)
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(plain); err != nil {
		return nil, fmt.Errorf("compress the cluster: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("compress the cluster: %w", err)
	}
	return &picture{plain: plain, packed: packed.Bytes()}, nil
}

// close ends the look under way and begins no other.
func (s *snapshot) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.looks.Wait()
}
