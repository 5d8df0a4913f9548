package conformance

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
)

var (
	mutations    = flag.Int("mutations", 10_000, "mutated requests to send")
	mutationSeed = flag.Uint64("mutation-seed", 0, "seed of the mutations; 0 takes a random one")
)

// TestMutations sends valid requests with something in them broken, and holds
// two things that must be true of any request whatever: the server never
// answers 5xx, nor not at all; and an answer of 4xx changed nothing. The state
// is compared by the conversation resource, whose head covers every byte of
// every message.
func TestMutations(t *testing.T) {
	a := setup(t)
	base, err := url.Parse(a.Base())
	require.NoError(t, err)
	if base.Scheme != "http" {
		t.Skip("needs a plain connection")
	}
	seed := *mutationSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-mutation-seed %d repeats the requests of this run", seed)

	const workers = 4
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex // guards counts
		counts = map[int]int{}
	)
	for w := range workers {
		m := newMutator(a, base.Host, rand.New(rand.NewPCG(seed, uint64(w))))
		wg.Go(func() {
			defer m.close()
			for range *mutations / workers {
				if t.Failed() {
					return
				}
				if err := m.step(); err != nil {
					t.Errorf("worker %d: %v", w, err)
					return
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for status, n := range m.counts {
				counts[status] += n
			}
		})
	}
	wg.Wait()
	t.Logf("answers by status: %v", counts)
}

// mutator is one worker: a connection, and the conversations it may hit.
type mutator struct {
	api  api
	host string
	rand *rand.Rand

	conn   net.Conn // nil before the first request and after a close
	reader *bufio.Reader

	live, tombstoned, missing string
	counts                    map[int]int
}

func newMutator(a api, host string, r *rand.Rand) *mutator {
	m := &mutator{api: a, host: host, rand: r, counts: map[int]int{}, missing: unique()}
	m.live = a.filled(3)
	m.tombstoned = a.filled(2)
	require.Equal(a.t, http.StatusNoContent, a.delete(m.tombstoned).Status)
	return m
}

func (m *mutator) close() {
	if m.conn != nil {
		_ = m.conn.Close()
		m.conn = nil
	}
}

// step sends one mutated request and checks what came of it.
func (m *mutator) step() error {
	q := m.valid()
	for range 1 + m.rand.IntN(3) {
		q.mutate(m.rand)
	}
	watched := []string{m.live, m.tombstoned, m.missing}
	if id, ok := q.conversation(); ok && id != m.live && id != m.tombstoned && id != m.missing {
		watched = append(watched, id)
	}
	before, err := m.states(watched)
	if err != nil {
		return err
	}
	status, err := m.send(q)
	if err != nil {
		return fmt.Errorf("%w\nrequest: %s", err, q)
	}
	m.counts[status]++
	if status >= 500 {
		return fmt.Errorf("answered %d\nrequest: %s", status, q)
	}
	if status < 400 && q.writes() {
		return m.restore()
	}
	after, err := m.states(watched)
	if err != nil {
		return err
	}
	for i, id := range watched {
		if before[i] != after[i] {
			return fmt.Errorf("answered %d, but conversation %q changed\nfrom %s\nto   %s\nrequest: %s", status, id, before[i], after[i], q)
		}
	}
	return nil
}

// restore brings the live conversation back if a mutated request that the
// server rightly took has closed it, and forgets the missing one if made.
func (m *mutator) restore() error {
	states, err := m.states([]string{m.live, m.missing})
	if err != nil {
		return err
	}
	if strings.Contains(states[0], `"tombstoned":true`) {
		m.live = unique()
		if err := m.api.Create(m.api.ctx, m.live); err != nil {
			return err
		}
		// Never empty: a read may ask to wait for the first message.
		if _, err := m.api.Append(m.api.ctx, m.live, client.TextBody("", "first")); err != nil {
			return err
		}
	}
	if strings.HasPrefix(states[1], "200") {
		m.missing = unique()
	}
	return nil
}

// states returns what the server says of conversations.
func (m *mutator) states(ids []string) ([]string, error) {
	out := make([]string, len(ids))
	for i, id := range ids {
		reply, err := m.api.Do(m.api.ctx, http.MethodGet, client.Path(id), nil)
		if err != nil {
			return nil, err
		}
		if reply.Status >= 500 {
			return nil, fmt.Errorf("read of conversation %q: %s", id, reply)
		}
		out[i] = fmt.Sprintf("%d %s", reply.Status, reply.Body)
		if reply.Status != http.StatusOK {
			// Error bodies may carry an id of the request.
			out[i] = fmt.Sprint(reply.Status)
		}
	}
	return out, nil
}

// send writes the request as it is and reads the answer. Kept-alive
// connections may be closed by the server between requests, so a failure on a
// used connection is tried once more on a new one.
func (m *mutator) send(q *request) (int, error) {
	used := m.conn != nil
	status, err := m.exchange(q)
	if err != nil && used {
		status, err = m.exchange(q)
	}
	return status, err
}

func (m *mutator) exchange(q *request) (status int, err error) {
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	if m.conn == nil {
		if m.conn, err = net.Dial("tcp", m.host); err != nil {
			return 0, fmt.Errorf("connect: %w", err)
		}
		m.reader = bufio.NewReader(m.conn)
	}
	if err := m.conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return 0, err
	}
	// A server that answers before it has read everything makes writes fail;
	// its answer is what counts.
	_, writeErr := m.conn.Write(q.encode(m.host))
	reply, err := http.ReadResponse(m.reader, &http.Request{Method: q.method})
	for err == nil && reply.StatusCode == http.StatusContinue {
		reply, err = http.ReadResponse(m.reader, &http.Request{Method: q.method})
	}
	if err != nil {
		return 0, fmt.Errorf("no answer: %w", errors.Join(err, writeErr))
	}
	if _, err := io.Copy(io.Discard, reply.Body); err != nil {
		return 0, fmt.Errorf("read the answer: %w", err)
	}
	_ = reply.Body.Close()
	if reply.Close || writeErr != nil {
		m.close()
	}
	return reply.StatusCode, nil
}
