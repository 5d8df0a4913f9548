package streams

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/cluster"
)

const (
	// attemptTimeout bounds one request of a writer. What it cuts off has an
	// unknown outcome, and is sent again with its ids.
	attemptTimeout = 3 * time.Second
	// retryPause is the wait before that.
	retryPause = 20 * time.Millisecond
	// writersPerConversation append at the same time.
	writersPerConversation = 2
)

// conversation is one that is written to and followed.
type conversation struct {
	id     string
	record *Record
	// submitted bounds from above how long the log may be, acked from below.
	submitted, acked atomic.Uint64
	acks             atomic.Uint64 // how many appends were acknowledged
	// refused is closed when a writer was told that it is tombstoned.
	refused chan struct{}
	once    sync.Once
}

// writers append to conversations until those are tombstoned.
// Goroutines: one per writer.
type writers struct {
	t             *testing.T
	conversations []*conversation
	routers       []*client.Client
	pace          time.Duration
	ctx           context.Context
	running       sync.WaitGroup
}

func startWriters(t *testing.T, c *cluster.Cluster, prefix string, conversations int, pace time.Duration, source func() *rand.Rand) *writers {
	t.Helper()
	w := &writers{t: t, pace: pace}
	for _, r := range c.Routers {
		w.routers = append(w.routers, connect(t, r.URL()))
	}
	for i := range conversations {
		one := &conversation{id: fmt.Sprintf("%s-%d", prefix, i), record: NewRecord(), refused: make(chan struct{})}
		within(t, func() error { return w.routers[0].Create(t.Context(), one.id) })
		w.conversations = append(w.conversations, one)
	}
	var cancel context.CancelFunc
	w.ctx, cancel = context.WithCancel(context.Background())
	for i, one := range w.conversations {
		for k := range writersPerConversation {
			number := i*writersPerConversation + k
			random := source()
			w.running.Go(func() { w.run(one, number, random) })
		}
	}
	t.Cleanup(func() { cancel(); w.running.Wait() })
	return w
}

func (w *writers) run(one *conversation, number int, random *rand.Rand) {
	for n := 0; w.ctx.Err() == nil; n++ {
		body, count := drawAppend(random, fmt.Sprintf("%d-%d", number, n))
		one.submitted.Add(uint64(count))
		if !w.append(one, number+n, body) {
			return
		}
		_ = pause(w.ctx, time.Duration(random.Int64N(2*int64(w.pace)+1)))
	}
}

// append sends an append until its outcome is known. It returns false when the
// conversation takes no more.
func (w *writers) append(one *conversation, turn int, body []byte) bool {
	for try := 0; w.ctx.Err() == nil; try++ {
		ctx, cancel := context.WithTimeout(w.ctx, attemptTimeout)
		got, err := w.routers[(turn+try)%len(w.routers)].Append(ctx, one.id, body)
		cancel()
		var status *client.StatusError
		switch {
		case err == nil:
			last := got.Seq
			if got.LastSeq != nil {
				last = *got.LastSeq
			}
			raise(&one.acked, last)
			one.acks.Add(1)
			return true
		case !errors.As(err, &status): // cut off, or nobody there
		case status.Reply.Status == http.StatusGone:
			one.once.Do(func() { close(one.refused) })
			return false
		case status.Reply.Status < 500 || status.Reply.Status == http.StatusInternalServerError:
			w.t.Errorf("append: %v", err)
			return false
		}
		_ = pause(w.ctx, retryPause)
	}
	return false
}

func raise(v *atomic.Uint64, to uint64) {
	for {
		if was := v.Load(); was >= to || v.CompareAndSwap(was, to) {
			return
		}
	}
}

// drawAppend draws the body of an append with ids, and how many messages it has.
// Some messages are large, so that readers who are slow find that what they want
// is no longer at hand.
func drawAppend(random *rand.Rand, id string) (body []byte, count int) {
	count = 1
	if random.IntN(8) == 0 {
		count = 2 + random.IntN(5)
	}
	messages := make([]string, count)
	for i := range messages {
		size := 20 + random.IntN(400)
		switch random.IntN(20) {
		case 0:
			size = 20_000 + random.IntN(40_000)
		case 1, 2, 3:
			size = 1000 + random.IntN(4000)
		}
		text, _ := json.Marshal(strings.Repeat(id+" é\n", size/len(id)+1)) // strings always encode
		messages[i] = fmt.Sprintf(`{"id":"%s-%d","role":"user","parts":[{"type":"text","text":%s,"z":1.0,"a":1e400}]}`, id, i, text)
	}
	if count == 1 {
		return []byte(`{"message":` + messages[0] + `}`), 1
	}
	return []byte(`{"messages":[` + strings.Join(messages, ",") + `]}`), count
}

// await waits until each conversation has been appended to n times more.
func (w *writers) await(n uint64) {
	w.t.Helper()
	var before []uint64
	for _, one := range w.conversations {
		before = append(before, one.acks.Load())
	}
	for i, one := range w.conversations {
		within(w.t, func() error {
			if more := one.acks.Load() - before[i]; more < n {
				return fmt.Errorf("%s was appended to %d times, want %d", one.id, more, n)
			}
			return nil
		})
	}
}

// tombstone closes all conversations under the hands of their writers, waits for
// those, and returns the logs.
func (w *writers) tombstone(router *client.Client) map[*conversation][]client.Message {
	w.t.Helper()
	logs := map[*conversation][]client.Message{}
	for _, one := range w.conversations {
		within(w.t, func() error {
			reply, err := router.Do(w.t.Context(), http.MethodDelete, client.Path(one.id), nil)
			if err == nil && reply.Status != http.StatusNoContent {
				err = errors.New(reply.String())
			}
			return err
		})
	}
	w.running.Wait()
	for _, one := range w.conversations {
		<-one.refused
		within(w.t, func() (err error) {
			_, logs[one], err = router.Verified(w.t.Context(), one.id)
			return err
		})
		require.LessOrEqual(w.t, one.acked.Load(), uint64(len(logs[one])), "an acknowledged message is not there")
	}
	return logs
}
