package feed

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
	"github.com/fastpaca/fastpaca/dataplane/storage"
)

type nobody struct{}

func (nobody) Deliver(rpc.News) {}
func (nobody) End(error)        {}

// BenchmarkCommitted measures telling one appended message of 400 bytes.
func BenchmarkCommitted(b *testing.B) {
	list := []state.Committed{{Key: "conversation-0001", Messages: []rpc.Message{{Seq: 1, Version: 1, JSON: make([]byte, 400)}}}}
	for _, c := range []struct {
		name        string
		mine, other int
	}{{"none", 0, 0}, {"others=5000", 0, 5000}, {"mine=1", 1, 5000}, {"mine=10", 10, 5000}} {
		b.Run(c.name, func(b *testing.B) {
			f := New(NewQuota(1 << 20))
			subscribe := func(key rpc.Key) {
				_, _, err := f.Subscribe(key, nobody{}, func() (*rpc.SubscribeReply, error) { return nil, nil })
				require.NoError(b, err)
			}
			for range c.mine {
				subscribe(list[0].Key)
			}
			for i := range c.other {
				subscribe(rpc.Key(fmt.Sprintf("other-%d", i)))
			}
			b.ReportAllocs()
			for b.Loop() {
				f.Committed(list, nil)
			}
		})
	}
}

// BenchmarkApply measures an append of 400 bytes with and without a feed that
// nobody subscribed to.
func BenchmarkApply(b *testing.B) {
	for _, with := range []bool{false, true} {
		b.Run(fmt.Sprintf("feed=%v", with), func(b *testing.B) {
			engine, err := storage.Open(storage.DefaultOptions(b.TempDir()))
			require.NoError(b, err)
			var m *state.Machine
			f := New(NewQuota(1))
			opts := state.Options{}
			if with {
				opts.OnCommit = func(list []state.Committed) { f.Committed(list, m.Conversation) }
			}
			m, err = state.Open(engine.DB(), 7, opts)
			require.NoError(b, err)
			index := uint64(0)
			apply := func(op state.Op) {
				index++
				data := state.EncodeCommand(nil, time.Unix(int64(index), 0), op)
				if _, err := m.Apply([]state.Entry{{Index: index, Term: 1, Data: data}}); err != nil {
					b.Fatal(err)
				}
			}
			apply(state.PutOp(&rpc.PutRequest{Key: "a"}))
			op := state.AppendOp(&rpc.AppendRequest{Key: "a", Messages: []rpc.NewMessage{{Content: make([]byte, 400)}}})
			b.ReportAllocs()
			for b.Loop() {
				apply(op)
			}
			require.NoError(b, m.Close())
			require.NoError(b, engine.Close())
		})
	}
}
