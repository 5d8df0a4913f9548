package archiver

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/archive/archivetest"
)

// A node that cannot write the archive gives its leases back, asks again when
// the archive answers, and rests when that was no use; another archives what it
// could not.
func TestResignsWhenTheArchiveCannotBeWritten(t *testing.T) {
	t.Parallel()
	url := archivetest.Shared(t).NewDatabase(t)
	c := newCluster(t, chat.Group())
	c.grant("n1")
	c.put(chat, `{}`)
	c.append(chat, 10)
	n := c.start("n1", url, func(o *Options) { o.resignAfter = 10 * time.Millisecond })
	n.store.around(func() error { return errors.New("no way to write") }, nil)
	c.append(chat, 10)
	eventually(t, "leases are given back twice", func() bool { return n.leases.released.Load() >= 2 })
	require.True(t, n.Resigned())
	status := n.Status()
	require.Empty(t, status.Groups)
	require.Contains(t, status.Leases, "none are asked for")
	require.Contains(t, status.Error, "no way to write")
	calls := n.leases.calls.Load()

	c.grant("n2")
	c.start("n2", url)
	c.settled(url, chat)
	require.Equal(t, calls, n.leases.calls.Load(), "it rests")
	n.Close()
}

// A node whose archive works keeps its leases, and one whose archive is away for
// less than the bound as well.
func TestShortFailuresDoNotResign(t *testing.T) {
	t.Parallel()
	url := archivetest.Shared(t).NewDatabase(t)
	c := newCluster(t, chat.Group())
	c.grant("n1")
	n := c.start("n1", url)
	n.store.around(func() error { return errors.New("for a moment") }, nil)
	c.put(chat, `{}`)
	c.append(chat, 10)
	eventually(t, "the failure is seen", func() bool { return n.Status().Error != "" })
	require.Positive(t, n.health.failing(time.Now()))
	n.store.around(nil, nil)
	c.settled(url, chat)
	eventually(t, "well again", func() bool { return n.health.failing(time.Now()) == 0 })
	require.False(t, n.Resigned())
	require.Zero(t, n.leases.released.Load())
}

func TestRestsGrowWhileNothingIsWritten(t *testing.T) {
	t.Parallel()
	var r resting
	require.Zero(t, r.next(5), "the first time")
	require.Equal(t, restMin, r.next(5))
	require.Equal(t, 2*restMin, r.next(5))
	for range 10 {
		r.next(5)
	}
	require.Equal(t, restMax, r.next(5))
	require.Zero(t, r.next(6), "something was written")
	require.Equal(t, restMin, r.next(6))
}
