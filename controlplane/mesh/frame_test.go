package mesh

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func genName() *rapid.Generator[string] {
	return rapid.StringMatching(`[!-~]{0,255}`)
}

func gen32(t *rapid.T, label string) (b [32]byte) {
	copy(b[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, label))
	return b
}

// What one end encodes the other decodes to the same, in one frame, without
// reading further.
func TestFramesRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := &hello{
			kind: Kind(rapid.Byte().Draw(t, "kind")), lane: Lane(rapid.Byte().Draw(t, "lane")),
			role: Role(rapid.Byte().Draw(t, "role")), id: genName().Draw(t, "id"),
			cluster: genName().Draw(t, "cluster"), target: genName().Draw(t, "target"), nonce: gen32(t, "nonce"),
		}
		c := &challenge{nonce: gen32(t, "nonce")}
		p := &proof{mac: gen32(t, "mac")}
		w := &welcome{role: Role(rapid.Byte().Draw(t, "role")), id: genName().Draw(t, "id"),
			cluster: genName().Draw(t, "cluster"), mac: gen32(t, "mac")}
		r := refuse(code(rapid.Byte().Draw(t, "code")), "%s", rapid.String().Draw(t, "detail"))

		wire := bytes.NewBuffer(nil)
		for _, frame := range []rawFrame{h.encode(), c.encode(), p.encode(), w.encode(), r.encode()} {
			require.LessOrEqual(t, len(frame), maxFrame)
			wire.Write(frame)
		}
		wire.WriteString("what follows")
		next := func(kind frameType) []byte {
			f, err := readFrame(wire)
			require.NoError(t, err)
			require.Equal(t, kind, f.kind())
			require.EqualValues(t, protocolVersion, f.version())
			return f.body()
		}
		gotHello, err := decodeHello(next(frameHello))
		require.NoError(t, err)
		require.Equal(t, h, gotHello)
		gotChallenge, err := decodeChallenge(next(frameChallenge))
		require.NoError(t, err)
		require.Equal(t, c, gotChallenge)
		gotProof, err := decodeProof(next(frameProof))
		require.NoError(t, err)
		require.Equal(t, p, gotProof)
		gotWelcome, err := decodeWelcome(next(frameWelcome))
		require.NoError(t, err)
		require.Equal(t, w, gotWelcome)
		gotReject, err := decodeReject(next(frameReject))
		require.NoError(t, err)
		require.Equal(t, r, gotReject)
		require.Equal(t, "what follows", wire.String())
	})
}

func TestReadFrameIsStrict(t *testing.T) {
	t.Parallel()
	good := []byte((&challenge{}).encode())
	change := func(at int, b ...byte) []byte {
		f := bytes.Clone(good)
		copy(f[at:], b)
		return f
	}
	tests := map[string]struct {
		in   []byte
		want error
	}{
		"body too long":  {change(6, byte((maxBody+1)>>8), byte((maxBody+1)&255)), errOversized},
		"cut in body":    {good[:len(good)-1], io.ErrUnexpectedEOF},
		"cut in header":  {good[:3], io.ErrUnexpectedEOF},
		"empty":          {nil, io.EOF},
		"header only":    {good[:headerBytes], io.ErrUnexpectedEOF},
		"HTTP":           {[]byte("GET / HTTP/1.1\r\n\r\n"), errNotMagic},
		"nearly TLS":     {[]byte{tlsHandshake, 9, 1, 0, 0, 0, 0, 0, 0}, errNotMagic},
		"TLS":            {[]byte{tlsHandshake, 3, 1, 0, 200, 1, 0, 0, 0}, errTLSHello},
		"zeros":          {make([]byte, 64), errNotMagic},
		"other magic":    {change(3, 'X'), errNotMagic},
		"SSH":            {[]byte("SSH-2.0-OpenSSH_9.9\r\n"), errNotMagic},
		"all bytes high": {bytes.Repeat([]byte{0xff}, 64), errNotMagic},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := readFrame(bytes.NewReader(test.in))
			require.ErrorIs(t, err, test.want)
		})
	}

	// The body of a frame of another version is unknown and stays unread, unless
	// it is a reject, whose form never changes.
	future := change(4, protocolVersion+1)
	r := bytes.NewReader(future)
	f, err := readFrame(r)
	require.NoError(t, err)
	require.EqualValues(t, protocolVersion+1, f.version())
	require.Equal(t, len(good)-headerBytes, r.Len())
	reject := []byte(refuse(codeBusy, "later").encode())
	reject[4] = protocolVersion + 1
	f, err = readFrame(bytes.NewReader(reject))
	require.NoError(t, err)
	got, err := decodeReject(f.body())
	require.NoError(t, err)
	require.Equal(t, refuse(codeBusy, "later"), got)
}

func TestDecodersRefuse(t *testing.T) {
	t.Parallel()
	h := hello{kind: KindRaft, role: RoleData, id: "d1", cluster: "c", target: "d2"}
	body := h.encode().body()
	for cut := range body {
		_, err := decodeHello(body[:cut])
		require.ErrorIs(t, err, errMalformed, cut)
	}
	_, err := decodeHello(append(bytes.Clone(body), 0))
	require.ErrorIs(t, err, errMalformed)
	for _, bad := range []string{"a b", "\x00", "é", "\x7f", "a\n"} {
		for _, h := range []hello{{id: bad}, {cluster: bad}, {target: bad}} {
			_, err := decodeHello(h.encode().body())
			require.ErrorIs(t, err, errMalformed, bad)
		}
		for _, w := range []welcome{{id: bad}, {cluster: bad}} {
			_, err := decodeWelcome(w.encode().body())
			require.ErrorIs(t, err, errMalformed, bad)
		}
	}
	for _, decode := range []func([]byte) error{
		func(b []byte) error { _, err := decodeChallenge(b); return err },
		func(b []byte) error { _, err := decodeProof(b); return err },
		func(b []byte) error { _, err := decodeWelcome(b); return err },
		func(b []byte) error { _, err := decodeReject(b); return err },
	} {
		require.ErrorIs(t, decode(nil), errMalformed)
		require.ErrorIs(t, decode(make([]byte, maxBody)), errMalformed)
	}
}

func TestRejectDetailIsHarmless(t *testing.T) {
	t.Parallel()
	body := newFrame(frameReject).uint8(uint8(codeBusy)).string("a\x1b[31m\nb" + strings.Repeat("x", 250)).frame().body()
	r, err := decodeReject(body)
	require.NoError(t, err)
	require.Len(t, r.detail, maxDetail)
	require.Equal(t, "a?[31m?b", r.detail[:8])
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte((&hello{kind: KindGRPC, role: RoleRouter, id: "r", cluster: "c"}).encode()))
	f.Add([]byte((&challenge{}).encode()))
	f.Add([]byte((&welcome{role: RoleData, id: "d", cluster: "c"}).encode()))
	f.Add([]byte(refuse(codeVersion, "x").encode()))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Add([]byte{tlsHandshake, 3, 1, 2, 0, 1, 0, 1, 252})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		frame, err := readFrame(r)
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(frame), maxFrame)
		require.Equal(t, in[:len(frame)], []byte(frame))
		require.Equal(t, len(in)-len(frame), r.Len())
		if frame.version() == protocolVersion || frame.kind() == frameReject {
			require.EqualValues(t, len(frame.body()), binary.BigEndian.Uint16(frame[6:]))
		}
		requireCanonical(t, frame)
	})
}

// requireCanonical checks that a body which decodes has one encoding only.
func requireCanonical(t *testing.T, frame rawFrame) {
	body := frame.body()
	if h, err := decodeHello(body); err == nil {
		require.Equal(t, body, h.encode().body())
	}
	if c, err := decodeChallenge(body); err == nil {
		require.Equal(t, body, c.encode().body())
	}
	if p, err := decodeProof(body); err == nil {
		require.Equal(t, body, p.encode().body())
	}
	if w, err := decodeWelcome(body); err == nil {
		require.Equal(t, body, w.encode().body())
	}
	_, _ = decodeReject(body)
}

// script is a peer that says what it was told to and listens to nothing.
type script struct {
	io.Reader
	io.Writer
}

// Whatever a stranger says, it is not let in.
func FuzzServe(f *testing.F) {
	h := (&hello{kind: KindGRPC, role: RoleRouter, id: "r", cluster: "c"}).encode()
	f.Add([]byte(h))
	f.Add(append(bytes.Clone(h), (&proof{}).encode()...))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	keys, err := newKeyring(tokenA)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, in []byte) {
		p := party{role: RoleData, id: "d1", keys: keys}
		_, err := p.serve(script{bytes.NewReader(in), io.Discard}, func(*hello) error {
			t.Fatal("a stranger was let in")
			return nil
		})
		require.Error(t, err)
	})
}

// Whatever answers, it does not pass for a listener that knows the token.
func FuzzDial(f *testing.F) {
	f.Add(append([]byte((&challenge{}).encode()), (&welcome{role: RoleData, id: "d1"}).encode()...))
	f.Add([]byte(refuse(codeWrongNode, "it is d2").encode()))
	f.Add([]byte("220 mail.example ESMTP\r\n"))
	keys, err := newKeyring(tokenA)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, in []byte) {
		p := party{role: RoleData, id: "d1", keys: keys}
		_, err := p.dial(script{bytes.NewReader(in), io.Discard}, KindRaft, 0, "")
		require.Error(t, err)
	})
}
