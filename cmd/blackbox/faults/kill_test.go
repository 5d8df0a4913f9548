package faults

import (
	"flag"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

var kills = flag.Int("kills", 20, "how often to kill the server under load")

// TestKillUnderLoad kills a server with SIGKILL in the middle of concurrent
// appends, restarts it on the same directory, asks again for what has an id and
// an unknown outcome, verifies everything, and goes on, so that later rounds
// also verify what earlier recoveries wrote.
func TestKillUnderLoad(t *testing.T) {
	t.Parallel()
	const clients, conversations = 16, 40
	dir := t.TempDir()
	l := &ledger{}
	server := process.MustStart(t, process.Config{DataDir: dir})
	c := connect(t, server)
	ids := names(t, c, conversations)
	for range *kills {
		run := startLoad(t, c, l, ids, clients, none)
		run.await(t, 50+rand.IntN(300))
		server.Kill()
		run.end()
		require.False(t, t.Failed())

		server = process.MustStart(t, process.Config{DataDir: dir})
		c = connect(t, server)
		l.verify(t, c)
		l.retryUnknown(t, c)
		l.verify(t, c)
	}
	t.Logf("%d acknowledged, %d unknown in %d kills", l.count(acked), l.count(unknown), *kills)
}

// A server killed before it has served anything, again and again, still comes
// up: formation of the directory is as crash-safe as appends are.
func TestKillDuringFirstStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for range 5 {
		server := process.MustLaunch(t, process.Config{DataDir: dir})
		awaitOutputOrFiles(t, server, dir, 1+rand.IntN(40))
		server.Kill()
	}
	server := process.MustStart(t, process.Config{DataDir: dir})
	l := &ledger{}
	c := connect(t, server)
	ids := names(t, c, 10)
	run := startLoad(t, c, l, ids, 4, none)
	run.await(t, 50)
	run.end()
	l.verify(t, c)
	server.MustStop(t)
}
