package archive

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/cluster"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// groups is how many groups there are, and so how many leases.
const groups = 256

// startCluster starts three data nodes that archive to the same database, and
// what they need.
func startCluster(t *testing.T, url string, prepare ...func(*cluster.Cluster)) *cluster.Cluster {
	t.Helper()
	c, err := cluster.New(cluster.Config{Dir: t.TempDir(), Env: []string{
		"FASTPACA_ARCHIVE_URL=" + url, "FASTPACA_ARCHIVE_INTERVAL=20ms", "FASTPACA_ARCHIVE_BATCH=50",
		"FASTPACA_TAIL_KEEP=3", "FASTPACA_LOG_LEVEL=warn",
	}})
	require.NoError(t, err)
	t.Cleanup(func() {
		c.Close()
		if t.Failed() {
			for _, n := range c.Data {
				t.Logf("output of %s:\n%s", n.Name, n.Output())
			}
		}
	})
	for _, f := range prepare {
		f(c)
	}
	ctx, cancel := context.WithTimeout(t.Context(), process.ReadyTimeout)
	defer cancel()
	require.NoError(t, c.Start(ctx))
	return c
}

// leases returns the epoch of each group's lease that the nodes hold, and how
// many they hold of the same.
func leases(t *testing.T, nodes ...*cluster.Node) (epochs map[int]int, twice int) {
	t.Helper()
	epochs = map[int]int{}
	for _, n := range nodes {
		status, err := statusOf(t.Context(), n.Ops())
		if err != nil {
			continue // it is not there now
		}
		for _, g := range status.Groups {
			if _, held := epochs[g.Group]; held {
				twice++
			}
			epochs[g.Group] = max(epochs[g.Group], g.Epoch)
		}
	}
	return epochs, twice
}

// Data nodes are killed while they archive under load; one is paused until its
// leases are with others, and wakes up. Nothing is lost, repeated or trimmed too
// early, and each group has one archiver again, under a higher epoch.
func TestDataNodesFailWhileArchiving(t *testing.T) {
	t.Parallel()
	p := newPostgres(t)
	url := p.database(database)
	c := startCluster(t, url)
	router := client.New(c.Routers[0].URL())
	t.Cleanup(router.Close)
	l := startLoad(t, "cluster", 24, func() *client.Client { return router })
	settled := func() bool {
		held, twice := leases(t, c.Data...)
		return len(held) == groups && twice == 0
	}
	eventually(t, "every group has an archiver", settled)
	ctx, cancel := context.WithTimeout(t.Context(), 3*process.ReadyTimeout)
	defer cancel()
	for _, n := range c.Data[:2] {
		l.await(100)
		require.NoError(t, n.Restart())
		l.await(100)
		require.NoError(t, n.WaitReady(ctx))
	}
	eventually(t, "every group has an archiver", settled)

	var paused *cluster.Node
	var before map[int]int
	for _, n := range c.Data {
		if held, _ := leases(t, n); len(held) > len(before) {
			paused, before = n, held
		}
	}
	var others []*cluster.Node
	for _, n := range c.Data {
		if n != paused {
			others = append(others, n)
		}
	}
	require.NoError(t, paused.Pause())
	eventually(t, "the others archive what the paused one did", func() bool {
		held, _ := leases(t, others...)
		for group, epoch := range before {
			if held[group] <= epoch {
				return false
			}
		}
		return true
	})
	l.await(100)
	require.NoError(t, paused.Continue())
	l.await(100)
	eventually(t, "every group has one archiver again", settled)
	after, _ := leases(t, c.Data...)
	for group, epoch := range before {
		require.Greater(t, after[group], epoch)
	}
	require.NoError(t, c.CheckRunning())
	l.finish(url)
}

// One data node loses its way to PostgreSQL, the others keep theirs. It gives
// back what it archives and hands over what it leads, so that all of the history
// goes on to be archived; when it has its way back, it takes its part again.
func TestOneNodeLosesPostgres(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a node waits for half a minute before it gives up: left out with -short")
	}
	p := newPostgres(t)
	url := p.database(database)
	p.sql("postgres", "CREATE ROLE lonely SUPERUSER LOGIN")
	c := startCluster(t, url, func(c *cluster.Cluster) {
		c.Data[0].AddEnv("FASTPACA_ARCHIVE_URL=" + p.url("lonely", database))
	})
	lonely, others := c.Data[0], c.Data[1:]
	router := client.New(c.Routers[0].URL())
	t.Cleanup(router.Close)
	l := startLoad(t, "lonely", 24, func() *client.Client { return router })
	holds := func(nodes ...*cluster.Node) int {
		held, _ := leases(t, nodes...)
		return len(held)
	}
	eventually(t, "every group has an archiver", func() bool { return holds(c.Data...) == groups })
	require.Positive(t, holds(lonely))
	l.await(100)

	p.sql("postgres", "ALTER ROLE lonely NOLOGIN", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'lonely'")
	eventually(t, "the node says what is wrong", func() bool {
		status, err := statusOf(t.Context(), lonely.Ops())
		return err == nil && status.Error != ""
	})
	eventually(t, "the others archive everything", func() bool { return holds(lonely) == 0 && holds(others...) == groups })
	status, err := statusOf(t.Context(), lonely.Ops())
	require.NoError(t, err)
	require.NotEmpty(t, status.Leases)
	at := map[string]uint64{}
	for _, id := range l.ids {
		conversation, err := router.Conversation(t.Context(), id)
		require.NoError(t, err)
		at[id] = conversation.LastSeq
	}
	eventually(t, "all is archived that was there", func() bool {
		for id, seq := range at {
			conversation, err := router.Conversation(t.Context(), id)
			if err != nil || conversation.ArchivedSeq < seq {
				return false
			}
		}
		return true
	})

	p.sql("postgres", "ALTER ROLE lonely LOGIN")
	// What it should lead comes back one by one, and leases follow.
	eventually(t, "the node archives again", func() bool { return holds(lonely) > 0 })
	l.finish(url)
}
