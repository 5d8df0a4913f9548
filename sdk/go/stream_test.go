package fastpaca

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// stream is one connection of a scripted server: what it sends before it breaks.
type stream func(w io.Writer, from int64)

func send(w io.Writer, seqs ...int) {
	for _, seq := range seqs {
		fmt.Fprintf(w, "event: message\nid: %d\ndata: {\"type\":\"message\",\"seq\":%d,\"version\":%d,\"message\":%s}\n\n", seq, seq, seq, messageJSON(seq))
	}
}

func say(w io.Writer, data string) { fmt.Fprintf(w, "data: %s\n\n", data) }

// streaming returns a conversation of a server that plays one script per
// connection, and tells the cursors that it was asked for. After the last, the
// conversation is tombstoned.
func streaming(t *testing.T, opts []Option, scripts ...stream) (*Conversation, *cursors, *waits) {
	t.Helper()
	asked := &cursors{}
	client, waited := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/events") {
			answerJSON(w, 200, `{"id":"c","metadata":{},"last_seq":4}`)
			return
		}
		var from int64
		_, err := fmt.Sscan(r.FormValue("from"), &from)
		if err != nil || r.Header.Get("Accept") != "text/event-stream" {
			t.Errorf("from %q, accepting %q", r.FormValue("from"), r.Header.Get("Accept"))
		}
		if n := asked.add(from); n < len(scripts) {
			scripts[n](w, from)
			return
		}
		open(w)
		say(w, `{"type":"tombstone"}`)
	}, opts...)
	return client.Conversation("c"), asked, waited
}

// cursors are what a server was asked for.
type cursors struct {
	mu   sync.Mutex // guards from
	from []int64
}

// add returns how many there were before.
func (c *cursors) add(from int64) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.from = append(c.from, from)
	return len(c.from) - 1
}

func (c *cursors) all() []int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]int64(nil), c.from...)
}

func open(w io.Writer) { w.(http.ResponseWriter).Header().Set("Content-Type", "text/event-stream") }

func playing(seqs ...int) stream {
	return func(w io.Writer, _ int64) { open(w); send(w, seqs...) }
}

func saying(data ...string) stream {
	return func(w io.Writer, _ int64) {
		open(w)
		for _, d := range data {
			say(w, d)
		}
	}
}

func refusing(status int, body string) stream {
	return func(w io.Writer, _ int64) { answerJSON(w.(http.ResponseWriter), status, body) }
}

// follow ranges to the end and writes down what happened, in short.
func follow(t *testing.T, c *Conversation, from int64) string {
	t.Helper()
	var b strings.Builder
	for e, err := range c.Events(t.Context(), from) {
		switch {
		case err != nil:
			fmt.Fprintf(&b, " %s", failureIn(t, err).Code)
		case e.Type == EventMessage:
			require.Equal(t, e.Seq, e.Message.Seq)
			require.Equal(t, e.Seq, e.Version)
			require.Equal(t, messageJSON(int(e.Seq)), string(e.Message.Raw()))
			fmt.Fprintf(&b, " %d", e.Seq)
		case e.Type == EventGap:
			fmt.Fprintf(&b, " gap:%d-%d", e.Expected, e.Actual)
		case e.Type == EventCaughtUp:
			fmt.Fprintf(&b, " live:%d", e.Seq)
		case e.Type == EventReconnecting:
			require.Error(t, e.Err)
			require.Positive(t, e.Wait)
			b.WriteString(" …")
		default:
			b.WriteString(" " + string(e.Type))
		}
	}
	return strings.TrimSpace(b.String())
}

func TestSubscriptions(t *testing.T) {
	t.Parallel()
	const notFound = `{"error":"conversation_not_found","message":"x"}`
	const unavailable = `{"error":"unavailable","message":"x"}`
	const expired = `{"error":"cursor_expired","message":"x","earliest_seq":5}`
	for name, c := range map[string]struct {
		from    int64
		scripts []stream
		want    string
		asked   []int64
	}{
		"from the start":     {0, []stream{playing(1, 2)}, "1 2 … tombstone", []int64{1, 3}},
		"from the middle":    {7, []stream{playing(7)}, "7 … tombstone", []int64{7, 8}},
		"from now":           {FromNow, []stream{playing(), playing(5)}, "5 … tombstone", []int64{5, 5, 6}},
		"cut and resumed":    {1, []stream{playing(1, 2), playing(), playing(3), playing(4, 5)}, "1 2 … … 3 … 4 5 … tombstone", []int64{1, 3, 3, 4, 6}},
		"sent again":         {1, []stream{playing(1, 2, 1, 2), playing(1, 2, 3)}, "1 2 … 3 … tombstone", []int64{1, 3, 4}},
		"caught up":          {1, []stream{saying(`{"type":"caught_up","seq":0}`)}, "live:0 … tombstone", []int64{1, 1}},
		"a hole, repaired":   {1, []stream{playing(1, 3), playing(2, 3)}, "1 … 2 3 … tombstone", []int64{1, 2, 4}},
		"a hole, twice":      {1, []stream{playing(1, 3), playing(3)}, "1 … gap:2-3 3 … tombstone", []int64{1, 2, 4}},
		"a gap":              {1, []stream{saying(`{"type":"gap","expected":1,"actual":4}`), playing(4)}, "gap:1-4 … 4 … tombstone", []int64{1, 4, 5}},
		"a gap behind":       {5, []stream{saying(`{"type":"gap","expected":1,"actual":3}`), playing(5)}, "… 5 … tombstone", []int64{5, 5, 6}},
		"expired":            {2, []stream{refusing(416, expired), playing(5)}, "gap:2-5 5 … tombstone", []int64{2, 5, 6}},
		"expired, pointless": {6, []stream{refusing(416, expired)}, "cursor_expired", []int64{6}},
		"unknown events":     {1, []stream{saying(`{"type":"presence","who":1}`, `{}`), playing(1)}, "… 1 … tombstone", []int64{1, 1, 2}},
		"not JSON":           {1, []stream{playing(1), saying(`<html>`), playing(2)}, "1 … … 2 … tombstone", []int64{1, 2, 2, 3}},
		"no message":         {1, []stream{saying(`{"type":"message","seq":1,"message":{"seq":2}}`), saying(`{"type":"message","seq":1}`), playing(1)}, "… … 1 … tombstone", []int64{1, 1, 1, 2}},
		"unknown":            {1, []stream{refusing(404, notFound)}, "conversation_not_found", []int64{1}},
		"unavailable first":  {1, []stream{refusing(503, unavailable), refusing(429, unavailable), playing(1)}, "1 … tombstone", []int64{1, 1, 1, 2}},
		"unavailable later":  {1, []stream{playing(1), refusing(503, unavailable), playing(2)}, "1 … … 2 … tombstone", []int64{1, 2, 2, 3}},
		"unavailable": {1, []stream{refusing(503, unavailable), refusing(503, unavailable), refusing(503, unavailable), refusing(503, unavailable), refusing(503, unavailable), refusing(503, unavailable)},
			"unavailable", []int64{1, 1, 1, 1, 1, 1}},
		"deleted meanwhile": {1, []stream{playing(1), refusing(404, notFound)}, "1 … conversation_not_found", []int64{1, 2}},
		"another server":    {1, []stream{func(w io.Writer, _ int64) { _, _ = io.WriteString(w, "<html>hello") }}, "unexpected_response", []int64{1}},
		"another JSON":      {1, []stream{refusing(200, `{"id":"c"}`)}, "unexpected_response", []int64{1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conversation, asked, _ := streaming(t, nil, c.scripts...)
			require.Equal(t, c.want, follow(t, conversation, c.from))
			require.Equal(t, c.asked, asked.all())
		})
	}
}

func TestSubscribeTellsMessagesAndGaps(t *testing.T) {
	t.Parallel()
	conversation, _, _ := streaming(t, nil, func(w io.Writer, _ int64) {
		open(w)
		send(w, 1)
		say(w, `{"type":"caught_up","seq":1}`)
		say(w, `{"type":"gap","expected":2,"actual":4}`)
		send(w, 4)
	})
	var got []int64
	for m, err := range conversation.Subscribe(t.Context(), 1) {
		var gap *GapError
		if errors.As(err, &gap) {
			require.Equal(t, GapError{Expected: 2, Actual: 4}, *gap)
			require.ErrorContains(t, err, "2 to 3")
			got = append(got, -1)
			continue
		}
		require.NoError(t, err)
		got = append(got, m.Seq)
	}
	require.Equal(t, []int64{1, -1, 4}, got)
}

func TestLoopsThatEnd(t *testing.T) {
	t.Parallel()
	conversation, asked, _ := streaming(t, nil, playing(1, 2, 3), playing(1, 2, 3), saying(`{"type":"gap","expected":1,"actual":9}`))
	for range conversation.Subscribe(t.Context(), 1) {
		break
	}
	for e := range conversation.Events(t.Context(), 1) {
		if e.Type == EventReconnecting {
			break
		}
	}
	for range conversation.Events(t.Context(), 1) {
		break
	}
	require.Len(t, asked.all(), 3)
}

func TestSubscriptionsOfContextsThatEnd(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	conversation, _, _ := streaming(t, nil, func(w io.Writer, _ int64) {
		open(w)
		send(w, 1)
		_ = http.NewResponseController(w.(http.ResponseWriter)).Flush()
		<-ctx.Done() // a live stream that is silent
	})
	var last error
	for m, err := range conversation.Subscribe(ctx, 1) {
		if last = err; err == nil {
			require.EqualValues(t, 1, m.Seq)
			cancel()
		}
	}
	require.ErrorIs(t, last, context.Canceled)
	require.Equal(t, CodeCanceled, failureIn(t, last).Code)

	// While it waits to reconnect, too.
	waiting, stop := context.WithCancel(t.Context())
	defer stop()
	conversation, _, _ = streaming(t, nil, playing(1))
	conversation.client.wait = func(ctx context.Context, _ time.Duration) error { stop(); return wait(ctx, time.Hour) }
	for _, err := range conversation.Subscribe(waiting, 1) {
		last = err
	}
	require.ErrorIs(t, last, context.Canceled)
	require.ErrorContains(t, last, `subscribe to "c"`)
}

func TestNobodyToSubscribeTo(t *testing.T) {
	t.Parallel()
	for _, from := range []int64{1, FromNow} {
		client, err := New(refused(t), WithRetry(Retry{Attempts: 3}))
		require.NoError(t, err)
		client.wait = (&waits{}).wait
		rounds := 0
		for _, err := range client.Conversation("c").Subscribe(t.Context(), from) {
			require.Equal(t, CodeNetwork, failureIn(t, err).Code)
			require.Equal(t, 3, failureIn(t, err).Attempts)
			require.Contains(t, err.Error(), `subscribe to "c"`)
			rounds++
		}
		require.Equal(t, 1, rounds)
	}
}

// A stream that was alive is not given up, unless a limit says so.
func TestReconnectLimit(t *testing.T) {
	t.Parallel()
	scripts := []stream{playing(1)}
	for range 50 {
		scripts = append(scripts, refusing(503, `{"error":"unavailable","message":"x"}`))
	}
	conversation, asked, waited := streaming(t, nil, scripts...)
	require.Contains(t, follow(t, conversation, 1), "tombstone")
	require.Len(t, asked.all(), 52)
	for i, d := range waited.all() {
		require.LessOrEqual(t, d, maxReconnectWait, i)
	}
	conversation, asked, _ = streaming(t, []Option{WithReconnectLimit(time.Nanosecond)}, scripts...)
	require.Equal(t, "1 … unavailable", follow(t, conversation, 1))
	require.Len(t, asked.all(), 2)
}

// What the server asks for when it drains its connections.
func TestReconnectWaits(t *testing.T) {
	t.Parallel()
	conversation, _, waited := streaming(t, nil, func(w io.Writer, _ int64) {
		open(w)
		_, _ = io.WriteString(w, "retry: 4000\n\n")
		send(w, 1)
	}, func(w io.Writer, _ int64) {
		w.(http.ResponseWriter).Header().Set("Retry-After", "3")
		answerJSON(w.(http.ResponseWriter), 503, `{"error":"overloaded","message":"x"}`)
	})
	require.Equal(t, "1 … … tombstone", follow(t, conversation, 1))
	taken := waited.all()
	require.Len(t, taken, 2)
	require.GreaterOrEqual(t, taken[0], 2*time.Second)
	require.GreaterOrEqual(t, taken[1], 3*time.Second)
}

// A connection that is open and dead is left; a loop that takes its time is not
// mistaken for one.
func TestSilentConnections(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	silent := func(w io.Writer, _ int64) {
		open(w)
		send(w, 1)
		_ = http.NewResponseController(w.(http.ResponseWriter)).Flush()
		<-gone
	}
	conversation, asked, _ := streaming(t, nil, silent)
	defer close(gone) // before the servers wait for what they serve
	conversation.client.idle = 20 * time.Millisecond
	var cause error
	for e, err := range conversation.Events(t.Context(), 1) {
		require.NoError(t, err)
		if e.Type == EventMessage {
			<-time.After(3 * conversation.client.idle) // busy
		}
		if e.Type == EventReconnecting {
			cause = e.Err
		}
	}
	require.ErrorIs(t, cause, errSilent)
	require.Equal(t, []int64{1, 2}, asked.all())

	// One that does not even answer.
	conversation, _, _ = streaming(t, []Option{WithTimeout(10 * time.Millisecond)}, func(io.Writer, int64) { <-gone })
	require.Equal(t, "tombstone", follow(t, conversation, 1))
}

// Against a server that breaks off anywhere, repeats and refuses: every message
// once, in order.
func TestEveryMessageOnce(t *testing.T) {
	t.Parallel()
	const total = 300
	for round := range 20 {
		seed := rand.New(rand.NewPCG(uint64(round), 1))
		var scripts []stream
		for range 100 {
			scripts = append(scripts, func(w io.Writer, from int64) {
				if seed.IntN(5) == 0 {
					refusing(503, `{"error":"unavailable","message":"x"}`)(w, from)
					return
				}
				open(w)
				var b strings.Builder
				for seq := max(1, int(from)-seed.IntN(3)); seq <= min(total, int(from)+seed.IntN(20)); seq++ {
					if seq > 1 && seed.IntN(40) == 0 {
						seq++ // a hole, which it has the next time
					}
					send(&b, min(seq, total))
				}
				text := b.String()
				_, _ = io.WriteString(w, text[:seed.IntN(len(text)+1)])
			})
		}
		scripts = append(scripts, func(w io.Writer, from int64) {
			open(w)
			for seq := int(from); seq <= total; seq++ {
				send(w, seq)
			}
		})
		// The first connection must come about.
		conversation, _, _ := streaming(t, []Option{WithRetry(Retry{Attempts: 200, MaxWait: time.Minute})}, scripts...)
		next := int64(1)
		for m, err := range conversation.Subscribe(t.Context(), 1) {
			var gap *GapError
			if errors.As(err, &gap) { // the same hole twice in a row
				next = gap.Actual
				continue
			}
			require.NoError(t, err)
			require.Equal(t, next, m.Seq, "round %d", round)
			next++
		}
		require.EqualValues(t, total+1, next)
	}
}
