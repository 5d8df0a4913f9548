package conformance

import (
	"context"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/cluster"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
	"github.com/fastpaca/fastpaca/cmd/blackbox/streams"
)

// Streams opened before, during and after changes of the leader see each
// sequence once. Each data node in turn goes away, one of them without a word, so
// that whoever leads does. The suite cannot do that to a cluster that it did not
// start.
func TestC25StreamsAcrossLeaderChanges(t *testing.T) {
	if os.Getenv(urlEnv) != "" {
		t.Skipf("%s is set: the leaders are not ours to stop", urlEnv)
	}
	t.Parallel()
	c, err := cluster.New(cluster.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 2*process.ReadyTimeout)
	defer cancel()
	require.NoError(t, c.Start(ctx))
	a := connect(t, c.Routers[0].URL())
	id := a.filled(3)

	var all []*followed
	open := func() {
		for _, kind := range streams.Transports() {
			for _, from := range []uint64{1, 4} {
				all = append(all, a.follow(kind, id, streams.Options{From: from}))
			}
		}
	}
	open()
	appended := 3
	for i, n := range c.Data {
		if i == 1 {
			n.Kill()
		} else {
			require.NoError(t, n.Terminate())
		}
		open()
		a.appendUntil(ctx, id, n.Name)
		<-n.Server().Exited()
		a.appendUntil(ctx, id, n.Name+"-gone")
		require.NoError(t, n.Start())
		require.NoError(t, n.WaitReady(ctx))
		a.appendUntil(ctx, id, n.Name+"-back")
		appended += 3
	}
	open()
	require.Equal(t, http.StatusNoContent, a.delete(id).Status)
	log := a.verified(id)
	require.Len(t, log, appended)
	for _, f := range all {
		for !f.place.Done {
			e, err := f.stream.Next(ctx)
			require.NoError(t, err)
			require.NoError(t, f.place.Take(&e))
			if e.Type == "message" {
				require.Equal(t, string(log[e.Seq-1].Raw), string(e.Message))
			}
		}
		require.EqualValues(t, appended+1, f.place.Next)
	}
}

// appendUntil appends a message with an id until it is acknowledged.
func (a api) appendUntil(ctx context.Context, id, message string) {
	a.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := a.Append(ctx, id, client.TextBody(message, message))
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			require.NoError(a.t, err)
		}
	}
}
