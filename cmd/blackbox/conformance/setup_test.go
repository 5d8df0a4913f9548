package conformance

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// urlEnv names the environment variable with the base URL of the server under
// test.
const urlEnv = "FASTPACA_URL"

// underTest is the base URL, set before the first test.
var underTest string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if underTest = strings.TrimSuffix(os.Getenv(urlEnv), "/"); underTest != "" {
		underTest = strings.TrimSuffix(underTest, "/v1")
		if _, err := http.Get(underTest + "/health/live"); err != nil {
			fmt.Fprintf(os.Stderr, "nobody answers at %s=%s: %v\n", urlEnv, underTest, err)
			return 1
		}
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "fastpaca-conformance-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	server, err := process.Start(process.Config{DataDir: dir})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer server.Kill()
	ctx, cancel := context.WithTimeout(context.Background(), process.ReadyTimeout)
	defer cancel()
	if err := server.WaitReady(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	underTest = server.URL()
	code := m.Run()
	select {
	case <-server.Exited():
		fmt.Fprintln(os.Stderr, "the server under test exited by itself")
		code = 1
	default:
	}
	if code != 0 {
		fmt.Fprintf(os.Stderr, "output of the server under test:\n%s\n", server.Output())
	}
	return code
}

// api is a test's view of the server. Its methods fail the test when the
// exchange itself fails.
type api struct {
	*client.Client
	t   *testing.T
	ctx context.Context
}

// setup makes the test parallel and gives it a client of the server under test.
func setup(t *testing.T) api {
	t.Helper()
	t.Parallel()
	return connect(t, underTest)
}

func connect(t *testing.T, base string) api {
	c := client.New(base)
	t.Cleanup(c.Close)
	return api{Client: c, t: t, ctx: t.Context()}
}

// unique returns an id that nobody has used.
func unique() string { return "conformance-" + strings.ToLower(rand.Text()) }

// created returns the id of a new conversation.
func (a api) created() string {
	a.t.Helper()
	id := unique()
	require.NoError(a.t, a.Create(a.ctx, id))
	return id
}

// request sends a request; an empty body sends none.
func (a api) request(method, target, body string, headers ...client.Header) client.Reply {
	a.t.Helper()
	var sent []byte
	if body != "" {
		sent = []byte(body)
	}
	reply, err := a.Do(a.ctx, method, target, sent, headers...)
	require.NoError(a.t, err)
	return reply
}

func (a api) get(target string, headers ...client.Header) client.Reply {
	a.t.Helper()
	return a.request(http.MethodGet, target, "", headers...)
}

func (a api) put(id, body string) client.Reply {
	a.t.Helper()
	return a.request(http.MethodPut, client.Path(id), body)
}

func (a api) post(id, body string, headers ...client.Header) client.Reply {
	a.t.Helper()
	return a.request(http.MethodPost, client.Path(id)+"/messages", body, headers...)
}

func (a api) delete(id string) client.Reply {
	a.t.Helper()
	return a.request(http.MethodDelete, client.Path(id), "")
}

// conversation reads a conversation that must be there.
func (a api) conversation(id string) client.Conversation {
	a.t.Helper()
	c, err := a.Conversation(a.ctx, id)
	require.NoError(a.t, err)
	return c
}

// appended posts a body that must be answered with the status.
func (a api) appended(id string, status int, body string, headers ...client.Header) client.Appended {
	a.t.Helper()
	reply := a.post(id, body, headers...)
	require.Equal(a.t, status, reply.Status, reply)
	var out client.Appended
	require.NoError(a.t, json.Unmarshal(reply.Body, &out), reply)
	return out
}

// filled returns a new conversation of n messages with the texts "1" to "n",
// made by one append each.
func (a api) filled(n int) string {
	a.t.Helper()
	id := a.created()
	for i := range n {
		got := a.appended(id, http.StatusCreated, text(fmt.Sprint(i+1)))
		require.EqualValues(a.t, i+1, got.Seq)
	}
	return id
}

// tail and messages read a page that must be answered with 200.
func (a api) tail(id, query string) []client.Message {
	a.t.Helper()
	return a.page(client.Path(id) + "/tail" + query).Messages
}

func (a api) messages(id, query string) client.Messages {
	a.t.Helper()
	return a.page(client.Path(id) + "/messages" + query)
}

func (a api) page(target string) client.Messages {
	a.t.Helper()
	reply := a.get(target)
	require.Equal(a.t, http.StatusOK, reply.Status, reply)
	requireJSON(a.t, reply)
	page, err := client.DecodeMessages(reply.Body)
	require.NoError(a.t, err)
	return page
}

// verified reads a conversation whole: dense, and true to its head.
func (a api) verified(id string) []client.Message {
	a.t.Helper()
	_, log, err := a.Verified(a.ctx, id)
	require.NoError(a.t, err)
	return log
}

// text is the body that appends one message with one text part.
func text(s string) string { return string(client.TextBody("", s)) }

// message is the body that appends the message with the given members.
func message(members string) string { return `{"message":{` + members + `}}` }

func seqs(messages []client.Message) []uint64 {
	out := make([]uint64, len(messages))
	for i, m := range messages {
		out[i] = m.Seq
	}
	return out
}

// span is the dense sequence from first to last.
func span(first, last uint64) []uint64 {
	out := []uint64{}
	for n := first; n <= last; n++ {
		out = append(out, n)
	}
	return out
}

var stableCode = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// requireFault checks an error answer: status, code when the contract fixes
// one, and the shape that all errors share.
func requireFault(t *testing.T, reply client.Reply, status int, code string) client.Fault {
	t.Helper()
	require.Equal(t, status, reply.Status, reply)
	requireJSON(t, reply)
	fault := reply.Fault()
	require.Regexp(t, stableCode, fault.Code, reply)
	require.NotEmpty(t, fault.Message, reply)
	if code != "" {
		require.Equal(t, code, fault.Code, reply)
	}
	return fault
}

func requireJSON(t *testing.T, reply client.Reply) {
	t.Helper()
	require.Regexp(t, `^application/json(; ?charset=utf-8)?$`, strings.ToLower(reply.Header.Get("Content-Type")), reply)
}
