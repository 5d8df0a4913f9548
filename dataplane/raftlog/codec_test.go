package raftlog

import (
	"bytes"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

func TestCodec(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := raft.Log{
			Index:      rapid.Uint64().Draw(t, "index"),
			Term:       rapid.Uint64().Draw(t, "term"),
			Type:       raft.LogType(rapid.Byte().Draw(t, "type")),
			Data:       rapid.SliceOf(rapid.Byte()).Draw(t, "data"),
			Extensions: rapid.SliceOf(rapid.Byte()).Draw(t, "extensions"),
		}
		if nanos := rapid.Int64().Draw(t, "at"); nanos != 0 {
			want.AppendedAt = time.Unix(0, nanos)
		}
		value := appendEntry(nil, &want)
		require.Len(t, value, encodedLen(&want))
		var got raft.Log
		require.NoError(t, decodeEntry(want.Index, value, &got))
		require.True(t, bytes.Equal(want.Data, got.Data) && bytes.Equal(want.Extensions, got.Extensions))
		require.True(t, want.AppendedAt.Equal(got.AppendedAt))
		require.Equal(t, []any{want.Index, want.Term, want.Type}, []any{got.Index, got.Term, got.Type})

		require.ErrorIs(t, decodeEntry(want.Index+1, value, &got), rpc.ErrCorrupt, "another index")
		at := rapid.IntRange(0, len(value)-1).Draw(t, "flip")
		value[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		require.ErrorIs(t, decodeEntry(want.Index, value, &got), rpc.ErrCorrupt, "a flipped bit")
		require.ErrorIs(t, decodeEntry(want.Index, value[:at], &got), rpc.ErrCorrupt, "cut")
	})
}

// The decoder takes any bytes, also with a checksum that holds.
func FuzzDecodeEntry(f *testing.F) {
	f.Add(appendEntry(nil, &raft.Log{Index: 5, Term: 3, Data: []byte("data")}), false)
	f.Add(appendEntry(nil, &raft.Log{Index: 5, Extensions: []byte("e"), AppendedAt: time.Unix(1, 1)}), false)
	f.Add([]byte{entryVersion, 0, 0, 0, 0, 1}, true)
	f.Add([]byte{entryVersion, 0, 0, 0, 0, 1, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1}, true)
	f.Add([]byte(nil), false)
	f.Fuzz(func(t *testing.T, value []byte, sealed bool) {
		value = bytes.Clone(value)
		if sealed && len(value) >= entryHeader {
			value[0] = entryVersion
			sum := checksum(5, value[entryHeader:])
			copy(value[1:], []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
		}
		var e, again raft.Log
		if decodeEntry(5, value, &e) != nil {
			return
		}
		if err := decodeEntry(5, appendEntry(nil, &e), &again); err != nil {
			t.Fatalf("%+v does not encode: %v", e, err)
		}
		require.Equal(t, e, again)
	})
}
