package socket

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/router/stream/streamtest"
)

// subscriber is a client that comes and goes, and what it has seen.
type subscriber struct {
	kind transport
	key  string
	next uint64
	conn listener // nil while it is away
	// sizes are those of the messages of the conversation, by sequence.
	sizes map[uint64]int
}

// read takes one event and checks that it is the next.
func (s *subscriber) read(t require.TestingT) (done bool) {
	e := s.conn.next()
	switch e.Type {
	case "message":
		require.Equal(t, s.next, e.Seq, "%s of %s", transportNames[s.kind], s.key)
		require.Equal(t, string(streamtest.JSON(e.Seq, s.sizes[e.Seq])), string(e.Message))
		s.next++
	case "tombstone":
		return true
	default:
		require.Equal(t, "caught_up", e.Type, "%+v", e)
	}
	return false
}

// Whatever happens upstream, and however often clients come, go and come back,
// each sees each sequence once and in order, on all transports.
func TestEverySequenceOnceOnAllTransports(t *testing.T) {
	t.Parallel()
	rounds := 0
	rapid.Check(t, func(rt *rapid.T) {
		if rounds++; rounds > 40 {
			return // each opens connections, of which there are not that many
		}
		h := newHarness(t)
		defer func() { h.server.Close() }()
		lengths, sizes := map[string]uint64{}, map[string]map[uint64]int{"a": {}, "b": {}}
		keys := []string{"a", "b"}
		for _, key := range keys {
			h.log.Create(rpc.Key(key))
		}
		var all []*subscriber
		for range rapid.SampledFrom([]int{5, 20, 50}).Draw(rt, "steps") {
			key := rapid.SampledFrom(keys).Draw(rt, "key")
			var s *subscriber
			if len(all) > 0 {
				s = rapid.SampledFrom(all).Draw(rt, "subscriber")
			}
			switch what := rapid.IntRange(0, 9).Draw(rt, "what"); {
			case what <= 2:
				n := rapid.IntRange(1, 40).Draw(rt, "messages")
				size := rapid.IntRange(70, 2000).Draw(rt, "size")
				h.log.Append(rpc.Key(key), n, size)
				for range n {
					lengths[key]++
					sizes[key][lengths[key]] = size
				}
			case what <= 4:
				from := uint64(rapid.IntRange(1, int(lengths[key])+2).Draw(rt, "from"))
				kind := transport(rapid.IntRange(0, int(transports)-1).Draw(rt, "transport"))
				all = append(all, &subscriber{kind, key, from, h.open(kind, key, from), sizes[key]})
			case what == 5 && s != nil && s.conn != nil: // goes away, perhaps with something unread
				s.conn.close()
				s.conn = nil
			case what == 6 && s != nil && s.conn == nil: // comes back where it was, perhaps otherwise
				s.kind = transport(rapid.IntRange(0, int(transports)-1).Draw(rt, "transport"))
				s.conn = h.open(s.kind, s.key, s.next)
			case what == 7 && s != nil && s.conn != nil && s.next <= lengths[s.key]:
				for until := lengths[s.key]; s.next <= until; {
					s.read(rt)
				}
			case what == 8:
				h.log.ChangeLeader(rapid.IntRange(0, 3).Draw(rt, "failures"), rapid.IntRange(0, 2).Draw(rt, "reads behind"), rapid.IntRange(0, 8).Draw(rt, "repeated"))
			case what == 9:
				h.log.Withhold(rapid.Bool().Draw(rt, "withhold"))
			}
		}
		for _, key := range keys {
			h.log.Tombstone(rpc.Key(key))
		}
		for _, s := range all {
			if s.conn == nil {
				s.conn = h.open(s.kind, s.key, s.next)
			}
			for !s.read(rt) {
			}
			require.Equal(rt, max(lengths[s.key]+1, s.next), s.next, fmt.Sprint(s.key))
			s.conn.close()
		}
	})
}
