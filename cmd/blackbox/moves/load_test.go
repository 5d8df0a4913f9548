package moves

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
)

const (
	// conversations of a load; one per group would be better still, and too much
	// for a small machine.
	conversations = 64
	// pace is the rest of each client between two appends.
	pace = 100 * time.Millisecond
	// attempt bounds one request, and retry is the rest before the next.
	attempt = 5 * time.Second
	retry   = 20 * time.Millisecond
)

// load is clients that append, each to a conversation of its own. Every message
// has an id and is sent until it is acknowledged.
// Goroutines: one per client.
type load struct {
	client  *client.Client
	cancel  context.CancelFunc
	clients sync.WaitGroup
	logs    []log
}

// log is what a client knows of its conversation. It is the client's until the
// load has ended.
type log struct {
	id    string
	acked map[string]uint64 // seq by message id
	// failures were healed by a retry, the slowest after worst.
	failures int
	worst    time.Duration
	err      error
}

func startLoad(t *testing.T, s *scene) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{client: client.New(s.Routers[0].URL()), cancel: cancel, logs: make([]log, conversations)}
	t.Cleanup(l.client.Close)
	t.Cleanup(l.end)
	for i := range l.logs {
		g := &l.logs[i]
		g.id, g.acked = fmt.Sprint("moved-", i), map[string]uint64{}
		s.eventually("conversation "+g.id, func() error { return l.client.Create(t.Context(), g.id) })
		l.clients.Go(func() { l.run(ctx, g) })
	}
	return l
}

func (l *load) end() {
	l.cancel()
	l.clients.Wait()
}

func (l *load) run(ctx context.Context, g *log) {
	for n := 0; ctx.Err() == nil && g.err == nil; n++ {
		g.append(l.client, fmt.Sprint(g.id, "-", n))
		rest(ctx, pace)
	}
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// append sends a message until it is acknowledged, also when the load ends
// meanwhile, so that no outcome is unknown.
func (g *log) append(c *client.Client, id string) {
	var failed time.Time
	for {
		ctx, cancel := context.WithTimeout(context.Background(), attempt)
		got, err := c.Append(ctx, g.id, client.TextBody(id, "text of "+id))
		cancel()
		if err == nil {
			g.acked[id] = got.Seq
			if !failed.IsZero() {
				g.worst = max(g.worst, time.Since(failed))
			}
			return
		}
		if failed.IsZero() {
			failed = time.Now()
		}
		g.failures++
		var status *client.StatusError
		if errors.As(err, &status) && status.Reply.Status < http.StatusInternalServerError && status.Reply.Status != http.StatusTooManyRequests {
			g.err = fmt.Errorf("append %s: %w", id, err)
			return
		}
		if time.Since(failed) > bound {
			g.err = fmt.Errorf("append %s: not acknowledged within %v: %w", id, bound, err)
			return
		}
		rest(context.Background(), retry)
	}
}

// finish ends the load and reads everything back: each acknowledged message is
// there once, at the sequence that its writer was told, and nothing else is.
func (l *load) finish(t *testing.T) {
	t.Helper()
	l.end()
	total, failures, worst := 0, 0, time.Duration(0)
	for i := range l.logs {
		g := &l.logs[i]
		require.NoError(t, g.err)
		_, messages, err := l.client.Verified(t.Context(), g.id)
		require.NoError(t, err)
		require.Len(t, messages, len(g.acked), "conversation %s", g.id)
		for _, m := range messages {
			require.Equal(t, m.Seq, g.acked[m.ID], "message %s of conversation %s", m.ID, g.id)
		}
		total, failures, worst = total+len(messages), failures+g.failures, max(worst, g.worst)
	}
	require.NotZero(t, total)
	t.Logf("%d appends acknowledged and found, %d failed answers, the slowest healed after %v", total, failures, worst.Round(time.Millisecond))
}
