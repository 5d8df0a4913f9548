package stream

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/router/stream/streamtest"
)

// follower is a cursor and what it must come to see.
type follower struct {
	client *client
	cursor *Cursor
	key    rpc.Key
	from   uint64
}

// Whatever happens upstream and however slow clients are, each of them sees each
// sequence from its cursor on once and in order.
func TestEverySequenceOnceAndInOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		log := streamtest.New()
		h := testHub(t, log, func(c *Config) {
			c.RingMessages = rapid.IntRange(1, 20).Draw(rt, "ring")
			c.PageBytes = rapid.IntRange(1, 5000).Draw(rt, "page")
			c.PageBudget = int64(rapid.IntRange(1, 20_000).Draw(rt, "page budget"))
			c.RingBudget = int64(rapid.IntRange(1, 20_000).Draw(rt, "ring budget"))
		})
		defer h.Close()
		keys := []rpc.Key{"a", "b", "c"}
		lengths := map[rpc.Key]uint64{}
		var clients []*client
		for range 3 {
			clients = append(clients, newClient(t, h))
		}
		var all []follower
		steps := rapid.IntRange(5, 60).Draw(rt, "steps")
		for range steps {
			key := rapid.SampledFrom(keys).Draw(rt, "key")
			c := rapid.SampledFrom(clients).Draw(rt, "client")
			switch rapid.IntRange(0, 8).Draw(rt, "what") {
			case 0, 1, 2:
				n := rapid.IntRange(1, 30).Draw(rt, "messages")
				log.Append(key, n, rapid.IntRange(60, 600).Draw(rt, "size"))
				lengths[key] += uint64(n)
			case 3, 4:
				c.resume()
				from := uint64(rapid.IntRange(1, int(lengths[key])+3).Draw(rt, "from"))
				all = append(all, follower{c, c.join(key, from), key, from})
			case 5:
				c.stop()
			case 6:
				c.resume()
			case 7:
				log.Fail(rapid.IntRange(0, 5).Draw(rt, "failures"))
				log.Break(rpc.ErrUnavailable)
			case 8:
				log.Withhold(rapid.Bool().Draw(rt, "withhold"))
			}
		}
		for _, c := range clients {
			c.resume()
		}
		for _, key := range keys {
			log.Tombstone(key)
		}
		for _, f := range all {
			got := f.client.until(f.cursor, tombstoned)
			require.Equal(t, run(f.from, lengths[f.key]), got.seqs)
			require.Equal(t, 1, got.joined)
			require.Len(t, got.caughtUp, 1)
			require.Equal(t, 1, got.tombstone)
			require.Empty(t, got.gaps)
			require.Equal(t, "tombstone", got.order[len(got.order)-1])
		}
		for _, c := range clients {
			c.session.Close()
			for cursor := range c.steps {
				cursor.Leave()
			}
		}
		require.Zero(t, h.cursors.Load())
	})
}
