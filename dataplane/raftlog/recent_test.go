package raftlog

import (
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// The window holds a run of what was added and not forgotten, within its
// bounds, and never anything else.
func TestRecent(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var r recent
		model := map[uint64]raft.Log{}
		next := uint64(1)
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "jump") == 0 {
					next += rapid.Uint64Range(1, 5).Draw(t, "by")
				}
				var logs []*raft.Log
				for range rapid.SampledFrom([]int{1, 2, maxRecentEntries + 3}).Draw(t, "n") {
					size := rapid.SampledFrom([]int{0, 10, 1000, maxRecentBytes / 3, maxRecentBytes + 1}).Draw(t, "size")
					e := raft.Log{Index: next, Term: rapid.Uint64().Draw(t, "term"), Data: make([]byte, size)}
					logs = append(logs, &e)
					model[next] = e
					next++
				}
				r.add(logs)
			},
			"forget": func(t *rapid.T) {
				low := rapid.Uint64Range(0, next).Draw(t, "low")
				high := rapid.Uint64Range(low, next+5).Draw(t, "high")
				r.forget(low, high)
				for i := low; i <= high; i++ {
					delete(model, i)
				}
				if high >= next-1 {
					next = min(next, max(low, 1))
				}
			},
			"": func(t *rapid.T) {
				if len(r.entries) == 0 {
					return
				}
				bytes := 0
				for i, e := range r.entries {
					want := model[e.Index]
					if e.Index != r.entries[0].Index+uint64(i) || e.Term != want.Term || len(e.Data) != len(want.Data) {
						t.Fatalf("holds %d/%d at place %d, want %d/%d", e.Index, e.Term, i, want.Index, want.Term)
					}
					bytes += entryBytes(&e)
				}
				require.Equal(t, bytes, r.bytes)
				require.LessOrEqual(t, bytes, maxRecentBytes)
				require.LessOrEqual(t, len(r.entries), maxRecentEntries)
				for i := r.entries[0].Index - 1; i <= r.entries[len(r.entries)-1].Index+1; i++ {
					var got raft.Log
					if want := model[i]; r.get(i, &got) && (got.Index != i || got.Term != want.Term) {
						t.Fatalf("index %d: got %d/%d, want %d/%d", i, got.Index, got.Term, want.Index, want.Term)
					}
				}
			},
		})
	})
}

func TestRecentKeepsWhatFits(t *testing.T) {
	t.Parallel()
	var r recent
	r.add(entries(1, 3*maxRecentEntries, 1))
	require.Len(t, r.entries, maxRecentEntries)
	r.forget(0, 3*maxRecentEntries-10)
	require.Len(t, r.entries, 10)
	r.forget(3*maxRecentEntries-4, ^uint64(0))
	require.Len(t, r.entries, 5)
	r.forget(3*maxRecentEntries-7, 3*maxRecentEntries-7)
	require.Empty(t, r.entries, "a hole is not kept")
}
