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

// Whatever happens upstream, changes of the leader too, and however slow clients
// are, each of them sees each sequence from its cursor on once and in order.
func TestEverySequenceOnceAndInOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		log := streamtest.New()
		h := testHub(t, log, func(c *Config) {
			// From samples: ranges are drawn from their low ends mostly, and with
			// the smallest ring it never serves anybody.
			c.RingMessages = rapid.SampledFrom([]int{1, 3, 20, 100}).Draw(rt, "ring")
			c.PageBytes = rapid.SampledFrom([]int{1, 500, 5000, 100_000}).Draw(rt, "page")
			c.PageBudget = rapid.SampledFrom([]int64{500, 5000, 50_000, 1 << 20}).Draw(rt, "page budget")
			c.RingBudget = rapid.SampledFrom([]int64{1, 2000, 20_000, 1 << 20}).Draw(rt, "ring budget")
		})
		defer h.Close()
		keys := []rpc.Key{"a", "b", "c"}
		lengths := map[rpc.Key]uint64{}
		var clients []*client
		for range 3 {
			clients = append(clients, newClient(t, h))
		}
		var all []follower
		steps := rapid.SampledFrom([]int{5, 20, 60}).Draw(rt, "steps")
		for range steps {
			key := rapid.SampledFrom(keys).Draw(rt, "key")
			c := rapid.SampledFrom(clients).Draw(rt, "client")
			switch rapid.IntRange(0, 9).Draw(rt, "what") {
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
			case 9:
				log.ChangeLeader(rapid.IntRange(0, 5).Draw(rt, "failures"), rapid.IntRange(0, 3).Draw(rt, "reads behind"), rapid.IntRange(0, 8).Draw(rt, "repeated"))
			}
		}
		for _, key := range keys {
			log.Tombstone(key)
		}
		if rapid.Bool().Draw(rt, "change leader at the end") {
			log.ChangeLeader(1, 1, 8)
		}
		for _, c := range clients {
			c.resume()
		}
		for _, f := range all {
			got := f.client.until(f.cursor, tombstoned)
			require.Equal(rt, run(f.from, lengths[f.key]), got.seqs)
			require.Equal(rt, 1, got.joined)
			require.Len(rt, got.caughtUp, 1)
			require.Equal(rt, 1, got.tombstone)
			require.Empty(rt, got.gaps)
			require.Equal(rt, "tombstone", got.order[len(got.order)-1])
		}
		for _, c := range clients {
			c.session.Close()
			for cursor := range c.steps {
				cursor.Leave()
			}
		}
		require.Zero(rt, h.cursors.Load())
	})
}
