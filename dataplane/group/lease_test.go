package group

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

func voters(ids ...string) []raft.Server {
	var servers []raft.Server
	for _, id := range ids {
		servers = append(servers, raft.Server{ID: raft.ServerID(id), Suffrage: raft.Voter})
	}
	return servers
}

func TestLease(t *testing.T) {
	t.Parallel()
	const d = time.Second
	start := time.Now()
	three := voters("a", "b", "c")

	for name, c := range map[string]struct {
		voters []raft.Server
		act    func(*lease)
		at     time.Time
		want   bool
	}{
		"a sole voter always holds it":                 {voters("a"), func(*lease) {}, start, true},
		"nobody answered":                              {three, func(*lease) {}, start, false},
		"one of two answered":                          {three, func(l *lease) { l.renew("b", 5, start, 9) }, start.Add(d / 2), true},
		"counted from when the question was sent":      {three, func(l *lease) { l.renew("b", 5, start, 9) }, start.Add(d), false},
		"an answer to an older question takes nothing": {three, func(l *lease) { l.renew("b", 5, start, 9); l.renew("b", 5, start.Add(-d), 9) }, start.Add(d / 2), true},
		"an answer of an older term":                   {three, func(l *lease) { l.renew("b", 4, start, 9) }, start, false},
		"an older term does not undo a newer":          {three, func(l *lease) { l.renew("b", 5, start, 9); l.renew("c", 4, start, 9) }, start, true},
		"a newer term forgets older answers":           {three, func(l *lease) { l.renew("b", 5, start, 9); l.renew("c", 6, start, 9) }, start, false},
		"revoked":                                      {three, func(l *lease) { l.renew("b", 5, start, 9); l.revoke() }, start, false},
		"forgotten":                                    {three, func(l *lease) { l.renew("b", 5, start, 9); l.forget("b") }, start, false},
		"renewed after being revoked":                  {three, func(l *lease) { l.revoke(); l.renew("b", 5, start, 9) }, start, true},
		"a non-voter does not count":                   {append(voters("a", "b"), raft.Server{ID: "c", Suffrage: raft.Nonvoter}), func(l *lease) { l.renew("c", 5, start, 9) }, start, false},
		"half of four is no quorum":                    {voters("a", "b", "c", "d"), func(l *lease) { l.renew("b", 5, start, 9) }, start, false},
		"the leader itself is no voter any more":       {voters("b", "c"), func(l *lease) { l.renew("b", 5, start, 9) }, start, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var l lease
			c.act(&l)
			require.Equal(t, c.want, l.valid("a", 5, c.voters, c.at, d))
		})
	}
}

// What a follower held before it left says nothing of what it holds when it
// comes back.
func TestForgottenFollowerHasNotCaughtUp(t *testing.T) {
	t.Parallel()
	var l lease
	l.renew("b", 5, time.Now(), 9)
	match, ok := l.matched("b", 5)
	require.True(t, ok)
	require.Equal(t, uint64(9), match)
	l.forget("b")
	_, ok = l.matched("b", 5)
	require.False(t, ok)
	l.renew("b", 5, time.Now(), 1)
	match, _ = l.matched("b", 5)
	require.Equal(t, uint64(1), match)
}
