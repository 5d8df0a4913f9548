package group

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// fullDisks gives every replica a disk that can be made full.
func fullDisks(of map[*replica]*atomic.Bool) func(*replica) {
	return func(r *replica) {
		full := &atomic.Bool{}
		of[r] = full
		r.fs = errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
			switch op.Kind {
			case errorfs.OpFileWrite, errorfs.OpCreate, errorfs.OpReuseForWrite:
				if full.Load() {
					return syscall.ENOSPC
				}
			}
			return nil
		}))
	}
}

// A leader whose disk fills up answers the writers that wait for it, says no
// more than it knows, and lets another lead. It follows once it has room.
func TestAFullLeaderAnswersAndLetsAnotherLead(t *testing.T) {
	t.Parallel()
	disks := map[*replica]*atomic.Bool{}
	c := newClusterOf(t, 3, 3, fullDisks(disks))
	old := c.leader()
	c.put(old, "k")
	c.mustAppend(old, "k", "before")
	disks[old].Store(true)
	t.Cleanup(func() { disks[old].Store(false) })

	answers := [2]chan error{make(chan error, 1), make(chan error, 1)}
	appending := func(i int) {
		go func() {
			_, err := c.append(old, "k", fmt.Sprintf("lost %d", i))
			answers[i] <- err
		}()
	}
	appending(0)
	c.eventually(old.group.proposing.Load, "nothing is proposed")
	appending(1)
	c.eventually(func() bool { return len(old.group.queue) == 1 }, "nothing waits")
	ended := func(i int) func() bool {
		return func() bool {
			old.group.Stall(old.engine.Health() != nil)
			return len(answers[i]) == 1
		}
	}
	c.eventually(ended(0), "the append that was proposed has no answer")
	c.eventually(ended(1), "the append that waited has no answer")
	require.ErrorIs(t, <-answers[0], rpc.ErrOutcomeUnknown)
	err := <-answers[1]
	require.ErrorIs(t, err, rpc.ErrStorageFull)
	require.NotErrorIs(t, err, rpc.ErrOutcomeUnknown)

	var next *replica
	c.eventually(func() bool {
		old.group.Stall(true)
		for _, r := range c.replicas {
			if r != old && r.group.Leading() {
				next = r
			}
		}
		return next != nil
	}, "nobody else leads")
	require.False(t, old.group.Leading())
	c.mustAppend(next, "k", "after")

	disks[old].Store(false)
	c.eventually(func() bool {
		old.group.Stall(old.engine.Health() != nil)
		page, err := old.group.machine.Messages("k", 1, 10, 1<<20)
		return err == nil && old.group.applyDeferred() == nil && old.group.Leader() == next.id && len(page.Messages) == 2
	}, "the replica does not follow")
}

// A disk without room alone stalls nothing: the reserve takes what is in flight.
func TestAFullDiskWithReserveDoesNotStall(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, 1)
	r := c.leader()
	c.put(r, "k")
	for range 3 {
		r.group.Stall(true)
		c.mustAppend(r, "k", "x")
	}
	require.False(t, r.group.stall.stalled)
	require.True(t, r.group.Leading())
}
