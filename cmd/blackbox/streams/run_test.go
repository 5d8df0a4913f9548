package streams

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/cluster"
)

const (
	conversationsFollowed = 4
	writerPace            = 25 * time.Millisecond
	// readersPerFault come before each fault, so that some begin while it lasts.
	readersPerFault = 5
	// readersPerConversation are there from the start.
	readersPerConversation = 3
	socketReaders          = 3
)

// TestFollowingThroughFaults lets clients follow conversations on all transports,
// from wherever they like, while routers and data nodes are killed and restarted
// and leaders change. Everyone sees every sequence from their cursor on once, in
// order, as the same bytes that a read gives, and the tombstone last.
//
// Seed and round draw what clients and faults do; what they interrupt differs
// from run to run.
func TestFollowingThroughFaults(t *testing.T) {
	t.Parallel()
	seed := seedOf(t)
	control := 1
	if *runFor > 0 {
		control = 3
	}
	c := startCluster(t, cluster.Config{Control: control, Data: 3, Routers: 2, Proxied: true})
	for number, end := *runFrom, time.Now().Add(*runFor); ; number++ {
		ok := t.Run(fmt.Sprintf("round %d", number), func(t *testing.T) { round(t, c, seed, number) })
		if !ok {
			t.Fatalf("-streams-seed %d -streams-from %d begins with this round", seed, number)
		}
		if !time.Now().Before(end) {
			return
		}
	}
}

// order draws that of the faults of a round.
func order(random *rand.Rand, number int) []int {
	order := random.Perm(len(faults))
	if number == 0 {
		at := slices.Index(order, 0)
		order[0], order[at] = order[at], order[0]
	}
	return order
}

// round lets each fault happen once, in a drawn order, to conversations and
// clients of its own.
func round(t *testing.T, c *cluster.Cluster, seed uint64, number int) {
	random := rand.New(rand.NewPCG(seed, uint64(number)))
	source := func() *rand.Rand { return rand.New(rand.NewPCG(random.Uint64(), 0)) }
	s := &scene{t: t, c: c, random: source()}
	s.mark()
	s.writers = startWriters(t, c, fmt.Sprintf("round-%d", number), conversationsFollowed, writerPace, source)
	var routers []string
	for _, n := range c.Routers {
		routers = append(routers, n.URL())
	}
	r := startReaders(t, routers)
	all := s.writers.conversations
	for _, one := range all {
		for range readersPerConversation {
			r.add(one, source())
		}
	}
	for range socketReaders {
		r.addSocket(all, source())
	}
	s.writers.await(elections)
	for _, i := range order(random, number) {
		for range readersPerFault {
			r.add(all[random.IntN(len(all))], source())
		}
		began := time.Now()
		faults[i].inject(s)
		s.writers.await(1)
		t.Logf("%s: %v", faults[i].name, time.Since(began).Round(time.Millisecond))
		require.False(t, t.Failed(), "a client was told what it must not be")
	}
	began := time.Now()
	logs := s.writers.tombstone(connect(t, routers[0]))
	t.Logf("tombstoned: %v", time.Since(began).Round(time.Millisecond))
	r.finish(logs)
	t.Logf("all clients are at the end: %v", time.Since(began).Round(time.Millisecond))
	r.lookAgain(logs, source())
	require.NoError(t, c.CheckRunning())
	t.Logf("%d clients saw %d events on %d streams, of which %d were cut; %d times there was nobody to ask",
		len(r.all), r.told.Load(), r.streams.Load(), r.cut.Load(), r.refused.Load())
}
