package browser

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/cluster"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// harness is a cluster, and a server by which suites break it.
type harness struct {
	cluster *cluster.Cluster
	control *httptest.Server

	mu sync.Mutex // one fault at a time
}

// faults are what a suite can ask for. Each returns when the cluster is whole
// again.
var faults = map[string]func(context.Context, *cluster.Cluster) error{
	"router/kill":    killRouter,
	"router/restart": restartRouter,
	"data/kill":      killDataNodes,
}

func startHarness(t *testing.T) *harness {
	t.Helper()
	c, err := cluster.New(cluster.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() {
		c.Close()
		if t.Failed() {
			for _, n := range c.Nodes() {
				t.Logf("end of the output of %s:\n%s", n.Name, lastLines(n.Output(), 40))
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), process.ReadyTimeout)
	defer cancel()
	require.NoError(t, c.Start(ctx))
	h := &harness{cluster: c}
	h.control = httptest.NewServer(http.HandlerFunc(h.serve))
	t.Cleanup(h.control.Close)
	return h
}

func (h *harness) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	fault, known := faults[strings.TrimPrefix(r.URL.Path, "/")]
	if !known || r.Method != http.MethodPost {
		http.Error(w, "no such fault", http.StatusNotFound)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	ctx, cancel := context.WithTimeout(r.Context(), process.ReadyTimeout)
	defer cancel()
	if err := fault(ctx, h.cluster); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func killRouter(ctx context.Context, c *cluster.Cluster) error {
	router := c.Routers[0]
	if err := router.Restart(); err != nil {
		return err
	}
	return router.WaitReady(ctx)
}

// restartRouter has the router stop as an operator does: it tells its clients.
func restartRouter(ctx context.Context, c *cluster.Cluster) error {
	router := c.Routers[0]
	if err := router.Terminate(); err != nil {
		return err
	}
	if code, err := router.Server().Wait(ctx); err != nil || code != 0 {
		return fmt.Errorf("the router ended with code %d: %w", code, err)
	}
	if err := router.Start(); err != nil {
		return err
	}
	return router.WaitReady(ctx)
}

// killDataNodes kills and restarts the data nodes in turn, so that whoever leads
// the group of a conversation is among them.
func killDataNodes(ctx context.Context, c *cluster.Cluster) error {
	for _, n := range c.Data {
		if err := n.Restart(); err != nil {
			return err
		}
		if err := n.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
