package console

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// serve starts a single server and a page, which is not opened yet.
func serve(t *testing.T, args ...string) *subject {
	t.Helper()
	if testing.Short() {
		t.Skip("it starts a server and a browser (-short)")
	}
	p := openBrowser(t)
	server := process.MustStart(t, process.Config{DataDir: t.TempDir(), Args: args})
	s := &subject{page: p, base: server.URL(), client: client.New(server.URL())}
	t.Cleanup(s.client.Close)
	return s
}

// TestServer: a server of its own has a console that shows its one node, all
// stages of its appends, and takes no orders, for it has no token.
func TestServer(t *testing.T) {
	t.Parallel()
	s := serve(t)
	s.conversation(trip)
	s.size(390, 844, true)
	s.open(s.base + "/console#/conversations/" + escaped)
	s.until("it is followed", `document.getElementById('live-text').textContent === 'Live'`)
	s.say(trip, "m6", "assistant", text("Good night."))
	s.until("the appended message is shown", `document.getElementById('messages').lastElementChild.textContent.includes('Good night.')`)
	s.overEvents()
	s.evaluate(`location.hash = '#/'`)
	s.until("one node leads everything", `document.querySelectorAll('.cell[data-state="well"]').length === 256 && document.querySelectorAll('#legend li').length === 1`)
	require.EqualValues(t, 1, s.evaluate(`document.querySelectorAll('#nodes tr').length`))
	require.Equal(t, true, s.evaluate(`document.getElementById('unlock').hidden`), "nobody can prove to be the operator")
	s.load()
	s.until("the stages of the data node are measured here", `[...document.querySelectorAll('.breakdown tbody th')].map((h) => h.textContent).join() === 'receive,route,network,queue,disk,quorum,apply,respond,total'`)
	require.Regexp(t, `^[\d.]+ m?s$`, s.stage("total")[1])
	require.Equal(t, true, s.evaluate(`document.getElementById('scope').hidden`), "the process is all there is")
	s.settle()
	s.looksRight("server")
	s.shoot("server-phone-light", true)
	s.size(1440, 1000, false)
	s.prefer("dark")
	s.settle()
	s.looksRight("server, wide")
	s.shoot("server-wide-dark", true)
	require.NotEqual(t, true, s.evaluate("window.broken"))
	s.clean()

	got, err := http.Post(s.base+"/console/api/orders", "application/json", strings.NewReader(`{"order":"rebalance"}`))
	require.NoError(t, err)
	body, err := io.ReadAll(got.Body)
	require.NoError(t, err)
	require.NoError(t, got.Body.Close())
	require.Equal(t, http.StatusForbidden, got.StatusCode)
	require.Contains(t, string(body), "read_only")
}

// overEvents: where WebSockets do not get through, Server-Sent Events do.
func (s *subject) overEvents() {
	s.t.Helper()
	s.evaluate(`(() => {
		window.sources = 0;
		window.WebSocket = class { constructor() { setTimeout(() => this.onclose?.()); } close() {} };
		window.EventSource = class extends EventSource { constructor(url) { super(url); window.sources++; } };
		location.hash = '#/conversations';
	})()`)
	s.until("the conversation is left", `document.getElementById('transcript-head').hidden`)
	s.evaluate(`location.hash = '#/conversations/` + escaped + `'`)
	s.until("it is followed another way", `document.getElementById('live-text').textContent === 'Live' && window.sources > 0`)
	s.say(trip, "m7", "user", text("Sleep well."))
	s.until("the appended message is shown", `document.getElementById('messages').lastElementChild.textContent.includes('Sleep well.')`)
	require.Equal(s.t, "1,2,3,4,5,6,7", s.evaluate(seqs), "each once")
}

// TestWithoutConsole: who does not want it does not have it.
func TestWithoutConsole(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a server (-short)")
	}
	t.Parallel()
	server := process.MustStart(t, process.Config{DataDir: t.TempDir(), Args: []string{"--console=false"}})
	c := client.New(server.URL())
	t.Cleanup(c.Close)
	for _, path := range []string{"/console", "/console/app.js", "/console/api/cluster"} {
		got, err := c.Do(t.Context(), http.MethodGet, path, nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusNotFound, got.Status, path)
	}
}
