package stream

import (
	"bytes"
	"compress/flate"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

func TestFrames(t *testing.T) {
	t.Parallel()
	frames, size := framesOf([]rpc.Message{{Seq: 7, Version: 3, JSON: []byte(`{"seq":7}`)}, {Seq: 8, Version: 1<<64 - 1, JSON: []byte(`{}`)}})
	require.Equal(t, `{"type":"message","seq":7,"version":3,"message":{"seq":7}}`, string(frames[0].Payload))
	require.Equal(t, `{"type":"message","seq":8,"version":18446744073709551615,"message":{}}`, string(frames[1].Payload))
	require.Equal(t, uint64(8), frames[1].Seq)
	require.GreaterOrEqual(t, size, len(frames[0].Payload)+len(frames[1].Payload))
	// They share a buffer, and cannot grow into each other.
	_ = append(frames[0].Payload, "xxxx"...)
	require.True(t, bytes.HasPrefix(frames[1].Payload, []byte(`{"type"`)))
}

func TestDeflated(t *testing.T) {
	t.Parallel()
	f := &Frame{Payload: []byte(strings.Repeat("the same again ", 200))}
	packed := f.Deflated()
	require.Less(t, len(packed), len(f.Payload)/4)
	require.Same(t, &packed[0], &f.Deflated()[0], "made once")
	unpacked, err := io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(packed), bytes.NewReader(deflateTail), bytes.NewReader([]byte{1, 0, 0, 0xff, 0xff}))))
	require.NoError(t, err)
	require.Equal(t, f.Payload, unpacked)
	require.Nil(t, (&Frame{Payload: []byte("x")}).Deflated(), "not worth it")
}

func TestRing(t *testing.T) {
	t.Parallel()
	var r ring
	held := 0
	for seq := uint64(1); seq <= 50; seq++ {
		held += r.push(&Frame{Seq: seq, Payload: make([]byte, 100)}, 10, 650)
		require.Equal(t, r.bytes, held)
		require.LessOrEqual(t, r.bytes, 650)
	}
	require.Equal(t, uint64(45), r.first())
	require.Empty(t, r.from(44, nil, 100, 1000))
	require.Empty(t, r.from(51, nil, 100, 1000))
	require.Len(t, r.from(45, nil, 100, 1000), 6)
	require.Len(t, r.from(45, nil, 4, 1000), 4)
	require.Len(t, r.from(45, nil, 100, 150), 2)
	require.Equal(t, uint64(48), r.from(48, nil, 1, 1)[0].Seq, "at least one")
	r.push(&Frame{Seq: 51, Payload: make([]byte, 5000)}, 10, 650)
	require.Equal(t, uint64(51), r.first(), "one is kept whatever its size")
	require.Equal(t, 5000, r.clear())
	require.Empty(t, r.from(51, nil, 100, 1000))
}

func BenchmarkPull(b *testing.B) {
	var r ring
	for seq := uint64(1); seq <= 200; seq++ {
		r.push(&Frame{Seq: seq, Payload: make([]byte, 300)}, 256, 1<<20)
	}
	var frames []*Frame
	b.ReportAllocs()
	for b.Loop() {
		frames = r.from(100, frames[:0], maxStepFrames, maxStepBytes)
	}
}
