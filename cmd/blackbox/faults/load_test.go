package faults

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// statusOf returns the status of an answer that was not the wanted one.
func statusOf(err error) (int, bool) {
	var status *client.StatusError
	if !errors.As(err, &status) {
		return 0, false
	}
	return status.Reply.Status, true
}

// connect returns a client of a server, closed when the test ends.
func connect(t *testing.T, s *process.Server) *client.Client {
	c := client.New(s.URL())
	t.Cleanup(c.Close)
	return c
}

// names returns n conversation ids, and creates them.
func names(t *testing.T, c *client.Client, n int) []string {
	t.Helper()
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("fault-%d", i)
		require.NoError(t, c.Create(t.Context(), ids[i]))
	}
	return ids
}

// load is a number of clients that append as fast as they are answered, until
// it is ended or the server has gone. Half of the appends carry a message id.
// Goroutines: one per client.
type load struct {
	ledger *ledger
	stop   atomic.Bool
	acks   chan struct{} // one per ack; the clients wait while nobody takes them
	gone   chan struct{} // closed when the last client has ended
}

// unique numbers texts over all loads of a test process.
var unique atomic.Uint64

// startLoad starts clients. tolerate says which answers other than an ack are
// part of the test; any other fails it.
func startLoad(t *testing.T, c *client.Client, l *ledger, conversations []string, clients int, tolerate func(status int) bool) *load {
	run := &load{ledger: l, acks: make(chan struct{}, 1<<20), gone: make(chan struct{})}
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for !run.stop.Load() {
				n := unique.Add(1)
				id := ""
				if n%2 == 0 {
					id = fmt.Sprintf("id-%d", n)
				}
				a := l.begin(conversations[rand.IntN(len(conversations))], id, fmt.Sprintf("text-%d", n))
				err := l.send(t, c, a)
				status, answered := statusOf(err)
				switch {
				case err == nil:
					run.acks <- struct{}{}
				case !answered:
					return // the server has gone
				case !tolerate(status):
					t.Errorf("append: %v", err)
					return
				}
			}
		})
	}
	go func() {
		wg.Wait()
		close(run.gone)
	}()
	t.Cleanup(run.end)
	return run
}

// none tolerates no refusal.
func none(int) bool { return false }

// await returns after n more acks; it fails the test if the clients end before.
func (r *load) await(t *testing.T, n int) {
	t.Helper()
	for range n {
		select {
		case <-r.acks:
		case <-r.gone:
			t.Fatal("the server has gone while appends were awaited")
		}
	}
}

// end stops the clients, or finds them stopped, and waits for them.
func (r *load) end() {
	r.stop.Store(true)
	<-r.gone
}
