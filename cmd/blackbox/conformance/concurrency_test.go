package conformance

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
)

func TestC22ManyConversationsAtOnce(t *testing.T) {
	a := setup(t)
	const conversations, appends = 100, 10
	run := unique()
	var wg sync.WaitGroup
	for i := range conversations {
		wg.Go(func() {
			id := fmt.Sprintf("%s-%d", run, i)
			if err := a.Create(a.ctx, id); err != nil {
				t.Errorf("create: %v", err)
				return
			}
			for n := range appends {
				got, err := a.Append(a.ctx, id, client.TextBody("", fmt.Sprint(n)))
				if err != nil || got.Seq != uint64(n)+1 {
					t.Errorf("append %d to %s: seq %d, %v", n, id, got.Seq, err)
					return
				}
			}
		})
	}
	wg.Wait()
	require.False(t, t.Failed())
	for i := range conversations {
		require.Len(t, a.verified(fmt.Sprintf("%s-%d", run, i)), appends)
	}
}

// Writers of one conversation each get a sequence of their own, and find their
// text at it.
func TestC22OneConversationAtOnce(t *testing.T) {
	a := setup(t)
	const writers, appends = 32, 10
	id := a.created()
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex // guards acks
		acks = map[uint64]string{}
	)
	for w := range writers {
		wg.Go(func() {
			for n := range appends {
				body := fmt.Sprintf("%d-%d", w, n)
				got, err := a.Append(a.ctx, id, client.TextBody("", body))
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
				mu.Lock()
				acks[got.Seq] = body
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	require.False(t, t.Failed())
	log := a.verified(id)
	require.Len(t, log, writers*appends)
	require.Len(t, acks, writers*appends)
	for _, m := range log {
		require.Equal(t, acks[m.Seq], m.TextOf(), "seq %d", m.Seq)
	}
}

// Of writers that guard with the same version, one wins.
func TestGuardedWritersRace(t *testing.T) {
	a := setup(t)
	id := a.created()
	statuses, _ := together(a, 20, id, `{"if_version":0,"message":{"role":"user",`+onePart+`}}`)
	require.Equal(t, map[int]int{201: 1, 409: 19}, statuses)
	require.Len(t, a.verified(id), 1)
}
