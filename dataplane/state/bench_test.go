package state

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// benchMachine opens a machine on a real disk, with options like a node's.
func benchMachine(b *testing.B) *harness {
	opts := &pebble.Options{
		Logger: quiet{}, FormatMajorVersion: pebble.FormatNewest, MemTableSize: 64 << 20,
		CacheSize: 64 << 20,
	}
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		opts.Levels[i].BlockSize = 16 << 10
	}
	db, err := pebble.Open(b.TempDir(), opts)
	require.NoError(b, err)
	m, err := Open(db, 7, Options{Cache: NewCache(32 << 20)})
	require.NoError(b, err)
	h := &harness{t: b, db: db, m: m, group: 7, clock: epoch}
	b.Cleanup(h.close)
	return h
}

const benchConversations = 40 // of one group, as 10,000 over 256 groups

// BenchmarkApply applies appends of 400 bytes; an op is one append.
func BenchmarkApply(b *testing.B) {
	for _, ops := range []int{1, 16} {
		for _, ids := range []bool{false, true} {
			b.Run(fmt.Sprintf("ops=%d/ids=%v", ops, ids), func(b *testing.B) { benchApply(b, ops, ids) })
		}
	}
}

func benchApply(b *testing.B, ops int, ids bool) {
	h := benchMachine(b)
	keys := make([]rpc.Key, benchConversations)
	for i := range keys {
		keys[i] = rpc.Key(fmt.Sprintf("conversation-%04d", i))
		h.put(keys[i], `{"user_id":"u_123"}`)
	}
	body := strings.Repeat("x", 300)
	const prepared = 512
	index := uint64(len(h.log))
	next := 0
	batch := make([]Op, ops)
	entries := make([]Entry, prepared)
	prepare := func() {
		for i := range entries {
			for j := range batch {
				m := text("", body)
				if ids {
					m = text(fmt.Sprintf("message-%d", next), body)
				}
				batch[j] = AppendOp(&rpc.AppendRequest{Key: keys[next%len(keys)], Messages: []rpc.NewMessage{m}})
				next++
			}
			index++
			entries[i] = Entry{Index: index, Term: 1, Data: EncodeCommand(nil, epoch.Add(time.Duration(index)*time.Millisecond), batch...)}
		}
	}
	prepare()
	b.ReportAllocs()
	b.SetBytes(400)
	b.ResetTimer()
	at := 0
	for i := 0; i < b.N; i += ops {
		if at == prepared {
			b.StopTimer()
			prepare()
			b.StartTimer()
			at = 0
		}
		if _, err := h.m.Apply(entries[at : at+1]); err != nil {
			b.Fatal(err)
		}
		at++
	}
}

// benchFill makes a conversation of n messages, and compacts it.
func benchFill(b *testing.B, h *harness, key rpc.Key, n int) {
	h.put(key, "")
	body := strings.Repeat("x", 300)
	for n > 0 {
		k := min(n, 500)
		messages := make([]rpc.NewMessage, k)
		for i := range messages {
			messages[i] = text("", body)
		}
		h.append(key, messages...)
		n -= k
	}
	require.NoError(b, h.db.Flush())
}

func BenchmarkTail(b *testing.B) {
	for _, n := range []int{200, 100_000} {
		b.Run(fmt.Sprintf("messages=%d", n), func(b *testing.B) {
			h := benchMachine(b)
			benchFill(b, h, "c", n)
			b.ReportAllocs()
			for b.Loop() {
				page, err := h.m.Tail("c", 0, 0, 100, 0)
				if err != nil || len(page.Messages) != 100 {
					b.Fatal(err, len(page.Messages))
				}
			}
		})
	}
}

func BenchmarkTailOffset(b *testing.B) {
	h := benchMachine(b)
	benchFill(b, h, "c", 100_000)
	b.ReportAllocs()
	for b.Loop() {
		page, err := h.m.Tail("c", 0, 90_000, 100, 0)
		if err != nil || len(page.Messages) != 100 {
			b.Fatal(err, len(page.Messages))
		}
	}
}

func BenchmarkMessages(b *testing.B) {
	h := benchMachine(b)
	benchFill(b, h, "c", 100_000)
	for _, limit := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("limit=%d", limit), func(b *testing.B) {
			b.ReportAllocs()
			for from := uint64(1); b.Loop(); from = from%90_000 + 1000 {
				page, err := h.m.Messages("c", from, limit, 0)
				if err != nil || len(page.Messages) != limit {
					b.Fatal(err, len(page.Messages))
				}
			}
		})
	}
}

func BenchmarkConversation(b *testing.B) {
	h := benchMachine(b)
	benchFill(b, h, "c", 100)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.m.Conversation("c"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSnapshot(b *testing.B) {
	h := benchMachine(b)
	benchFill(b, h, "c", 100_000)
	s, err := h.m.OpenSnapshot()
	require.NoError(b, err)
	b.SetBytes(s.Size())
	require.NoError(b, s.Close())
	for b.Loop() {
		checkStream(b, h.m)
	}
}

func BenchmarkEncodeCommand(b *testing.B) {
	m := text("message-1", strings.Repeat("x", 300))
	op := AppendOp(&rpc.AppendRequest{Key: "conversation", Messages: []rpc.NewMessage{m}})
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = EncodeCommand(dst[:0], epoch, op)
	}
}
