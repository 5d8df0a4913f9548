package feed

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/feed/feedtest"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

// Receivers join at random moments of a run of random appends, some of them
// ignoring much of what they are told, while all subscriptions are ended again and
// again. Each must receive every message once, in order, as it is stored.
func TestReceiversMissNothing(t *testing.T) {
	t.Parallel()
	const receivers, commits, conversations = 12, 600, 3
	h := newHarness(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	key := func(n int) rpc.Key { return rpc.Key(fmt.Sprintf("conversation-%d", n)) }
	for i := range conversations {
		h.put(key(i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var all []*feedtest.Receiver
	join := func() {
		r := &feedtest.Receiver{Key: key(len(all) % conversations), Find: func() feedtest.Source { return h }}
		if len(all)%4 == 3 {
			r.Ignore = func() bool { return rand.IntN(3) > 0 }
		}
		all = append(all, r)
		wg.Go(func() { r.Run(ctx) })
	}
	for i := range commits {
		if i%(commits/receivers) == 0 {
			join()
		}
		var ops []state.Op
		for range 1 + random.IntN(3) {
			texts := make([]string, 1+random.IntN(4))
			for j := range texts {
				texts[j] = fmt.Sprint(i, j)
			}
			ops = append(ops, appendOp(key(random.IntN(conversations)), texts...))
		}
		h.apply(ops...)
		if random.IntN(60) == 0 {
			h.feed.End(&rpc.NotLeaderError{Group: 7})
		}
	}
	for i, r := range all {
		conv, err := h.machine.Conversation(r.Key)
		require.NoError(t, err)
		require.Eventually(t, func() bool { return r.Cursor() == conv.LastSeq }, time.Minute, time.Millisecond, "receiver %d", i)
	}
	cancel()
	wg.Wait()
	live := 0
	for i, r := range all {
		messages, n, _, broken := r.Received()
		require.Empty(t, broken, "receiver %d", i)
		live += n
		for at := 0; at < len(messages); {
			page, err := h.machine.Messages(r.Key, uint64(at)+1, 1000, 0)
			require.NoError(t, err)
			for _, m := range page.Messages {
				require.Equal(t, string(m.JSON), string(messages[at]))
				at++
			}
		}
	}
	require.Positive(t, live, "some came as news")
	require.Zero(t, h.quota.Used())
}
