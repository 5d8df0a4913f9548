package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answers are what the Admin API of a small cluster says. They hold things that a
// page is not to be told.
var answers = map[string]string{
	"/status": `{"cluster_id":"c-1","replication_factor":3,"healthy":true,"control":{"leader":"c1","term":4,"members":[{"id":"c1","address":"10.9.8.7:4100"}]},
		"groups":{"placed":256,"formed":256,"led":255,"no_quorum":[7]},"moves":{"under_way":1},"leases":2}`,
	"/nodes":  `{"nodes":[{"id":"d1","state":"up","alive":true,"zone":"a","address":"10.9.8.7:4200","incarnation":"secret-incarnation","replicas":256,"leaders":86,"max_lag":2}]}`,
	"/groups": `{"groups":[{"group":7,"leader":"d1","term":3,"quorum":true,"applied":12,"replicas":[{"node":"d1","voter":true,"lag":0}]}]}`,
	"/moves":  `{"moves":[{"id":9,"group":7,"phase":"join","reason":"rebalance","from":"d1","to":["d4"]}],"due":[],"rebalance":{"planned":4,"remaining":3}}`,
	"/leases": `{"leases":[{"group":7,"epoch":3,"holder":"d1"}]}`,
	"/events?limit=100": `{"events":[{"id":1,"kind":"node_registered","node":"d1","detail":"10.9.8.7:4200"},
		{"id":2,"kind":"groups_placed","detail":"256 groups"},{"id":3,"kind":"of_tomorrow","detail":"10.9.8.7:4200"}]}`,
}

// fakeCluster is the Admin API as answers has it, or one that fails.
type fakeCluster struct {
	mu    sync.Mutex // guards the below
	fails bool
	looks int
	hold  chan struct{} // not nil: looks wait for it
}

var errAway = errors.New("10.9.8.7:4100: connection refused")

func (f *fakeCluster) Look(ctx context.Context, path string, out any) error {
	f.mu.Lock()
	if path == "/status" {
		f.looks++
	}
	fails, hold := f.fails, f.hold
	f.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if fails {
		return errAway
	}
	return json.Unmarshal([]byte(answers[path]), out)
}

func (f *fakeCluster) set(fails bool, hold chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails, f.hold = fails, hold
}

func (f *fakeCluster) looked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.looks
}

// fakeOperator takes one token, and remembers what it was asked.
type fakeOperator struct {
	token string
	err   error
	asked []string
	block chan struct{} // not nil: orders wait for it
	taken chan struct{}
}

func (f *fakeOperator) Order(_ context.Context, token, method, path string, body []byte) ([]byte, error) {
	if f.block != nil {
		f.taken <- struct{}{}
		<-f.block
	}
	if token != f.token {
		return nil, ErrToken
	}
	if f.err != nil {
		return nil, f.err
	}
	f.asked = append(f.asked, strings.TrimSpace(method+" "+path+" "+string(body)))
	return []byte(`{"version":7}`), nil
}

// open returns a console, and the log that it writes.
func open(t *testing.T, conf Config) (*Console, *bytes.Buffer) {
	t.Helper()
	log := &bytes.Buffer{}
	if conf.Cluster == nil {
		conf.Cluster = &fakeCluster{}
	}
	if conf.Metrics == nil {
		conf.Metrics = prometheus.NewRegistry()
	}
	conf.Logger = slog.New(slog.NewTextHandler(log, nil))
	c, err := New(conf)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c, log
}

// ask makes a request. Headers are names and values in turn.
func ask(c *Console, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	c.ServeHTTP(w, r)
	return w
}

// code is the machine-readable name of a refusal.
func code(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	var body struct{ Error, Message string }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body), w.Body.String())
	require.NotEmpty(t, body.Message)
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	return body.Error
}

// pass lets time pass in a bubble of synctest, where it takes none.
func pass(d time.Duration) { <-time.After(d) }

var _ http.Handler = (*Console)(nil)
