package transport

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func rawFrame(k kind, group uint16, id uint64, body []byte) []byte {
	b := append(appendHeader(nil, k, group, id), body...)
	sealFrame(b, 0)
	return b
}

// trickle splits a stream into reads of the given sizes.
type trickle struct {
	src   io.Reader
	sizes []int
}

func (r *trickle) Read(p []byte) (int, error) {
	if len(r.sizes) > 0 && len(p) > 0 {
		n := r.sizes[0]
		r.sizes = append(r.sizes[1:], n)
		p = p[:min(len(p), n)]
	}
	return r.src.Read(p)
}

func TestFramesSurviveAnySplit(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		type sent struct {
			k     kind
			group uint16
			id    uint64
			body  []byte
		}
		var stream []byte
		var want []sent
		for range rapid.IntRange(0, 20).Draw(t, "frames") {
			s := sent{
				kind(rapid.Byte().Draw(t, "kind")), rapid.Uint16().Draw(t, "group"), rapid.Uint64().Draw(t, "id"),
				bytes.Repeat([]byte{rapid.Byte().Draw(t, "fill")}, rapid.SampledFrom([]int{0, 1, 500, 70_000, 300_000}).Draw(t, "size")),
			}
			want = append(want, s)
			stream = append(stream, rawFrame(s.k, s.group, s.id, s.body)...)
		}
		sizes := rapid.SliceOfN(rapid.IntRange(1, 100_000), 1, 5).Draw(t, "reads")
		r := newFrameReader(&trickle{bytes.NewReader(stream), sizes}, 1<<20)
		for _, s := range want {
			f, err := r.next()
			require.NoError(t, err)
			require.Equal(t, s.k, f.kind)
			require.Equal(t, s.group, f.group)
			require.Equal(t, s.id, f.id)
			require.True(t, bytes.Equal(s.body, f.body))
		}
		_, err := r.next()
		require.ErrorIs(t, err, io.EOF)
	})
}

func TestFrameReaderRefuses(t *testing.T) {
	t.Parallel()
	good := rawFrame(kindAppend, 3, 9, []byte("payload"))
	edit := func(f func([]byte)) []byte {
		b := bytes.Clone(good)
		f(b)
		return b
	}
	for name, tc := range map[string]struct {
		stream []byte
		want   error
	}{
		"nothing":        {nil, io.EOF},
		"cut header":     {good[:headerLen-1], io.ErrUnexpectedEOF},
		"cut body":       {good[:len(good)-1], io.ErrUnexpectedEOF},
		"flipped body":   {edit(func(b []byte) { b[len(b)-1] ^= 1 }), ErrProtocol},
		"flipped group":  {edit(func(b []byte) { b[10] ^= 1 }), ErrProtocol},
		"flipped id":     {edit(func(b []byte) { b[15] ^= 1 }), ErrProtocol},
		"other version":  {edit(func(b []byte) { b[8]++ }), ErrProtocol},
		"huge length":    {edit(func(b []byte) { binary.LittleEndian.PutUint32(b, 1<<31) }), ErrProtocol},
		"beyond limit":   {rawFrame(kindAppend, 0, 0, make([]byte, 1025)), ErrProtocol},
		"another tongue": {[]byte("GET / HTTP/1.1\r\nHost: example\r\n\r\n"), ErrProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := newFrameReader(bytes.NewReader(tc.stream), 1024).next()
			require.ErrorIs(t, err, tc.want)
		})
	}
}

// A header may promise much: memory follows what arrives.
func TestFrameReaderGrowsWithWhatArrives(t *testing.T) {
	t.Parallel()
	header := appendHeader(nil, kindAppend, 0, 0)
	binary.LittleEndian.PutUint32(header, 512<<20)
	r := newFrameReader(bytes.NewReader(append(header, make([]byte, 1000)...)), 1<<30)
	_, err := r.next()
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Len(t, r.buf, readBufferBytes)
}

func TestFrameReaderShrinksAfterLargeFrame(t *testing.T) {
	t.Parallel()
	stream := append(rawFrame(kindAppend, 0, 1, make([]byte, 1<<20)), rawFrame(kindPing, 0, 2, nil)...)
	r := newFrameReader(&trickle{bytes.NewReader(stream), []int{1<<20 + headerLen}}, 1<<21)
	_, err := r.next()
	require.NoError(t, err)
	require.Greater(t, len(r.buf), 1<<20)
	f, err := r.next()
	require.NoError(t, err)
	require.Equal(t, uint64(2), f.id)
	require.Len(t, r.buf, readBufferBytes)
}

func TestFrameReaderPassesErrorsOn(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	_, err := newFrameReader(iotest.ErrReader(broken), 1024).next()
	require.ErrorIs(t, err, broken)
	_, err = newFrameReader(iotest.DataErrReader(bytes.NewReader(rawFrame(kindPing, 0, 0, nil))), 1024).next()
	require.NoError(t, err, "an error that comes with the last bytes is for later")
}

func FuzzFrameReader(f *testing.F) {
	f.Add([]byte{})
	f.Add(rawFrame(kindAppend, 1, 2, []byte("body")))
	f.Add(append(rawFrame(kindPing, 0, 0, nil), rawFrame(kindVote, 255, 1<<63, make([]byte, 300))...))
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := newFrameReader(bytes.NewReader(stream), 4096)
		read := 0
		for {
			fr, err := r.next()
			if err != nil {
				return
			}
			read += headerLen + len(fr.body)
			if read > len(stream) {
				t.Fatalf("%d bytes out of %d", read, len(stream))
			}
		}
	})
}
