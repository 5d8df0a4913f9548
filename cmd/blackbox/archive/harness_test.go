package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// database is the name of the database that archives of these tests are in.
const database = "history"

// server is a fastpaca that archives.
type server struct {
	*process.Server
	*client.Client
	t   *testing.T
	cfg process.Config
	url string // of the archive
	ops string
}

// serve starts a server over a new directory with an archive, and with flags
// beside those that make it archive at once and keep little.
func serve(t *testing.T, url string, flags ...string) *server {
	t.Helper()
	ops, err := process.FreeAddress()
	require.NoError(t, err)
	s := &server{t: t, url: url, ops: ops, cfg: process.Config{
		DataDir: t.TempDir(),
		Args:    append([]string{"--ops-listen", ops, "--archive-url", url, "--archive-interval", "50ms", "--tail-keep", "3", "--log-level", "error"}, flags...),
	}}
	s.start()
	return s
}

func (s *server) start() {
	s.t.Helper()
	if s.Client != nil {
		s.Client.Close()
	}
	s.Server = process.MustStart(s.t, s.cfg)
	s.Client = client.New(s.Server.URL())
	s.t.Cleanup(s.Client.Close)
}

// restart kills the server and starts it again.
func (s *server) restart() {
	s.t.Helper()
	s.Kill()
	s.start()
}

// run runs a command line of the program to its end.
func run(t *testing.T, args ...string) (code int, output string) {
	t.Helper()
	binary, err := process.Binary()
	require.NoError(t, err)
	s, err := process.Start(process.Config{Command: append([]string{binary}, args...)})
	require.NoError(t, err)
	defer s.Kill()
	code, err = s.Wait(t.Context())
	require.NoError(t, err)
	return code, s.Output()
}

// verify runs `fastpaca archive verify` and requires that it finds nothing.
func verify(t *testing.T, base, url string, conversations, messages int) {
	t.Helper()
	code, out := run(t, "archive", "verify", "--server", base, "--archive-url", url)
	require.Zero(t, code, out)
	require.Contains(t, out, fmt.Sprintf("%d conversations, %d archived messages compared, 0 conversations differ", conversations, messages))
}

// append appends one message with a text to a conversation that exists.
func (s *server) append(id string, texts ...string) {
	s.t.Helper()
	for _, text := range texts {
		_, err := s.Append(s.t.Context(), id, client.TextBody("", text))
		require.NoError(s.t, err)
	}
}

// fill makes a conversation of n messages, and waits until all are archived.
func (s *server) fill(id string, n int) {
	s.t.Helper()
	require.NoError(s.t, s.Create(s.t.Context(), id))
	for i := range n {
		s.append(id, textAt(i+1))
	}
	s.awaitArchived(id)
}

func textAt(seq int) string { return fmt.Sprintf("text %d of ü\u2028\"\\", seq) }

// awaitArchived waits until all messages of the conversations are archived.
func (s *server) awaitArchived(ids ...string) { awaitArchived(s.t, s.Client, ids...) }

func awaitArchived(t *testing.T, c *client.Client, ids ...string) {
	t.Helper()
	for _, id := range ids {
		eventually(t, id+" is archived", func() bool {
			conversation, err := c.Conversation(t.Context(), id)
			return err == nil && conversation.ArchivedSeq == conversation.LastSeq
		})
	}
}

// messages reads a page.
func messages(t *testing.T, c *client.Client, target string) (client.Reply, []client.Message) {
	t.Helper()
	reply, err := c.Do(t.Context(), http.MethodGet, target, nil)
	require.NoError(t, err)
	if reply.Status != http.StatusOK {
		return reply, nil
	}
	page, err := client.DecodeMessages(reply.Body)
	require.NoError(t, err)
	return reply, page.Messages
}

// archiveStatus is what a data node tells of its archiver.
type archiveStatus struct {
	Ready         bool
	Error, Leases string
	Groups        []struct {
		Group, Epoch int
		Leading      bool
	}
}

func statusOf(ctx context.Context, ops string) (s archiveStatus, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+ops+"/archive/status", nil)
	if err != nil {
		return s, err
	}
	transport := &http.Transport{DisableKeepAlives: true}
	reply, err := transport.RoundTrip(request)
	if err != nil {
		return s, err
	}
	defer func() { _ = reply.Body.Close() }()
	body, err := io.ReadAll(reply.Body)
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	return s, err
}

// load is writers that each append to a conversation of their own, one message
// after the other, and ask again, with the same message id, until it is
// acknowledged: then the conversation must hold each text once, in this order.
type load struct {
	t     *testing.T
	where func() *client.Client // as servers come and go
	ids   []string
	done  []atomic.Int64 // messages acknowledged
	stop  atomic.Bool
	wg    sync.WaitGroup
}

func startLoad(t *testing.T, name string, writers int, where func() *client.Client) *load {
	t.Helper()
	l := &load{t: t, where: where, done: make([]atomic.Int64, writers)}
	for i := range writers {
		id := fmt.Sprintf("%s-%d", name, i)
		l.ids = append(l.ids, id)
		require.NoError(t, where().Create(t.Context(), id))
		l.wg.Go(func() { l.write(i) })
	}
	l.wg.Go(l.watch)
	t.Cleanup(func() { l.stop.Store(true); l.wg.Wait() })
	return l
}

func (l *load) text(i, n int) string { return fmt.Sprintf("%s says %d", l.ids[i], n) }

func (l *load) write(i int) {
	for n := 1; !l.stop.Load(); {
		text := l.text(i, n)
		answer, err := l.where().Append(l.t.Context(), l.ids[i], client.TextBody(text, text))
		var status *client.StatusError
		switch {
		case err == nil && answer.Seq != uint64(n):
			l.t.Errorf("%s: message %d has seq %d", l.ids[i], n, answer.Seq)
			return
		case err == nil:
			l.done[i].Store(int64(n))
			n++
			continue
		case errors.As(err, &status) && status.Reply.Status < 500 && status.Reply.Status != http.StatusTooManyRequests:
			l.t.Errorf("%s: %v", l.ids[i], err)
			return
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-l.t.Context().Done():
			return
		}
	}
}

// watch sees to it that no watermark falls.
func (l *load) watch() {
	highest := make([]uint64, len(l.ids))
	for i := 0; !l.stop.Load(); i = (i + 1) % len(l.ids) {
		c, err := l.where().Conversation(l.t.Context(), l.ids[i])
		if err == nil && c.ArchivedSeq < highest[i] {
			l.t.Errorf("%s: archived_seq fell from %d to %d", l.ids[i], highest[i], c.ArchivedSeq)
		}
		highest[i] = max(highest[i], c.ArchivedSeq)
		select {
		case <-time.After(5 * time.Millisecond):
		case <-l.t.Context().Done():
			return
		}
	}
}

func (l *load) total() (sum int) {
	for i := range l.done {
		sum += int(l.done[i].Load())
	}
	return sum
}

// await waits for n more acknowledgements.
func (l *load) await(n int) {
	l.t.Helper()
	before := l.total()
	eventually(l.t, fmt.Sprintf("%d more appends", n), func() bool { return l.total() >= before+n || l.t.Failed() })
	require.False(l.t, l.t.Failed())
}

// finish ends the load, waits until all of it is archived, and compares.
func (l *load) finish(url string) {
	l.t.Helper()
	l.stop.Store(true)
	l.wg.Wait()
	require.False(l.t, l.t.Failed())
	c := l.where()
	awaitArchived(l.t, c, l.ids...)
	sum := 0
	for i, id := range l.ids {
		conversation, log, err := c.Verified(l.t.Context(), id)
		require.NoError(l.t, err)
		require.EqualValues(l.t, conversation.LastSeq, len(log))
		require.GreaterOrEqual(l.t, int64(len(log)), l.done[i].Load())
		for n, m := range log {
			require.Equal(l.t, l.text(i, n+1), m.TextOf())
		}
		sum += len(log)
	}
	verify(l.t, c.Base(), url, len(l.ids), sum)
}
