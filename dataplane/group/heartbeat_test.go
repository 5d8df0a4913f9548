package group

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// silent is a timing with which Raft does nothing by itself during a test.
func silent() Timing {
	return Timing{Heartbeat: time.Hour, Election: time.Hour, Commit: time.Hour}
}

// Heartbeats are sent when asked for, and tell followers what was committed.
func TestHeartbeatTellsWhatIsCommitted(t *testing.T) {
	t.Parallel()
	c := newClusterOf(t, 3, 3, func(r *replica) { r.timing = silent() })
	c.replicas[0].group.Campaign()
	leader := c.leader()
	c.put(leader, "chat")
	for range 3 {
		c.mustAppend(leader, "chat", "text")
	}
	// Who made the quorum of the last append could not know that it was one.
	committed := leader.group.commitIndex()
	informed := func() (all bool) {
		all = true
		for _, r := range c.others(leader) {
			all = all && r.group.commitIndex() == committed
		}
		return all
	}
	require.False(t, informed())
	c.eventually(func() bool { leader.group.Heartbeat(); return informed() }, "followers do not know what is committed")
	// Others send none.
	for _, r := range c.others(leader) {
		r.group.Heartbeat()
		require.Equal(t, leader.id, r.group.Leader())
	}
}

// Raft has long timeouts where it leads, and only there.
func TestTimeoutsFollowLeadership(t *testing.T) {
	t.Parallel()
	c := newClusterOf(t, 3, 3, func(r *replica) { r.timing = patient() })
	c.replicas[0].group.Campaign()
	require.Less(t, patient().HeartbeatInterval(), patient().Heartbeat*quietStretch/10, "raft's timers would fire")
	asLed := func(leader *replica) func() bool {
		return func() bool {
			for _, r := range c.replicas {
				want := patient()
				if r == leader {
					want.Heartbeat *= quietStretch
					want.Election *= quietStretch
				}
				have := r.group.raft.Load().ReloadableConfig()
				if have.HeartbeatTimeout != want.Heartbeat || have.ElectionTimeout != want.Election {
					return false
				}
			}
			return true
		}
	}
	old := c.leader()
	c.eventually(asLed(old), "timeouts of the first leader")
	c.converged()
	next := c.others(old)[0]
	require.NoError(t, old.group.TransferLeadership(next.id))
	c.eventually(next.group.Leading, "the leader that was asked for")
	c.eventually(asLed(next), "timeouts after a transfer")

	// A transfer that nobody takes over leaves them as they were.
	c.stop(old)
	require.Error(t, next.group.TransferLeadership(old.id))
	have := next.group.raft.Load().ReloadableConfig()
	require.Equal(t, patient().Heartbeat*quietStretch, have.HeartbeatTimeout)
}

func TestNewsForFollowers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		act  func(*lease)
		want uint64
	}{
		"nothing is known of it":          {func(*lease) {}, 0},
		"it holds all that is committed":  {func(l *lease) { l.renew("b", 5, time.Now(), 90) }, 80},
		"it is known to hold less":        {func(l *lease) { l.renew("b", 5, time.Now(), 70) }, 70},
		"it only answered heartbeats":     {func(l *lease) { l.renew("b", 5, time.Now(), 0) }, 0},
		"it answered in another term":     {func(l *lease) { l.renew("b", 4, time.Now(), 90) }, 0},
		"another follower answered":       {func(l *lease) { l.renew("c", 5, time.Now(), 90) }, 0},
		"it knows":                        {func(l *lease) { l.renew("b", 5, time.Now(), 90); l.tell("b", 5, 80) }, 0},
		"it knows something older":        {func(l *lease) { l.renew("b", 5, time.Now(), 90); l.tell("b", 5, 60) }, 80},
		"told in another term":            {func(l *lease) { l.renew("b", 5, time.Now(), 90); l.tell("b", 4, 80) }, 80},
		"it may have forgotten":           {func(l *lease) { l.renew("b", 5, time.Now(), 90); l.tell("b", 5, 80); l.untell("b") }, 80},
		"it left and what it held is not": {func(l *lease) { l.renew("b", 5, time.Now(), 90); l.forget("b") }, 0},
		"a term later":                    {func(l *lease) { l.renew("b", 5, time.Now(), 90); l.renew("b", 6, time.Now(), 90) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var l lease
			c.act(&l)
			require.Equal(t, c.want, l.news("b", 5, 80))
		})
	}
}

// A follower that hears its leader has long timeouts too, and short ones again
// when a leader has to be found.
func TestQuietFollowersHaveLongTimeouts(t *testing.T) {
	t.Parallel()
	c := newClusterOf(t, 3, 3, func(r *replica) { r.timing = patient() })
	c.replicas[0].group.Campaign()
	leader := c.leader()
	c.converged()
	follower := c.others(leader)[0]
	timeout := func() time.Duration { return follower.group.raft.Load().ReloadableConfig().HeartbeatTimeout }
	calm := func() {
		c.eventually(func() bool {
			return !follower.group.Failover(time.Now(), "") && timeout() == quietStretch*patient().Heartbeat
		}, "long timeouts")
	}
	calm()
	soon := time.Now().Add(patient().Heartbeat)
	c.eventually(func() bool { return follower.group.Failover(soon, "") && timeout() == patient().Heartbeat }, "short timeouts")
	require.Equal(t, leader.id, follower.group.Leader(), "it looked, and found its leader alive")
	calm()

	follower.cut.set(true)
	follower.group.Campaign()
	c.eventually(func() bool { return follower.group.raft.Load().State() == raft.Candidate }, "an election nobody hears of")
	follower.group.Failover(time.Now(), "")
	require.Equal(t, patient().Heartbeat, timeout())
}
