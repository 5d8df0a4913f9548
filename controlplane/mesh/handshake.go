package mesh

import (
	"crypto/hmac"
	"crypto/rand"
	"fmt"
	"io"
)

// party is this end of one handshake. Both methods do blocking I/O and rely on
// the deadline that their caller has set on the connection.
type party struct {
	role    Role
	id      string
	cluster string
	keys    keyring
	binding binding
}

// dial performs the dialer's part and returns who listens. Its errors wrap a
// sentinel, or an I/O error.
func (p *party) dial(conn io.ReadWriter, kind Kind, lane Lane, target string) (*welcome, error) {
	h := hello{kind: kind, lane: lane, role: p.role, id: p.id, cluster: p.cluster, target: target}
	_, _ = rand.Read(h.nonce[:]) // never fails
	helloFrame := h.encode()
	if _, err := conn.Write(helloFrame); err != nil {
		return nil, fmt.Errorf("send hello: %w", err)
	}

	challengeFrame, err := expect(conn, frameChallenge)
	if err != nil {
		return nil, err
	}
	if _, err := decodeChallenge(challengeFrame.body()); err != nil {
		return nil, fmt.Errorf("%w: challenge: %w", ErrProtocol, err)
	}
	pr := proof{mac: seal(p.keys.dialer, p.binding, helloFrame, challengeFrame)}
	proofFrame := pr.encode()
	if _, err := conn.Write(proofFrame); err != nil {
		return nil, fmt.Errorf("send proof: %w", err)
	}

	welcomeFrame, err := expect(conn, frameWelcome)
	if err != nil {
		return nil, err
	}
	w, err := decodeWelcome(welcomeFrame.body())
	if err != nil {
		return nil, fmt.Errorf("%w: welcome: %w", ErrProtocol, err)
	}
	signed := welcomeFrame[:len(welcomeFrame)-macBytes]
	want := seal(p.keys.listener, p.binding, helloFrame, challengeFrame, proofFrame, signed)
	if !hmac.Equal(w.mac[:], want[:]) {
		return nil, fmt.Errorf("%w: the listener did not prove that it knows the token", ErrUnauthorized)
	}
	return w, nil
}

// expect reads the listener's next frame, which may be its refusal.
func expect(r io.Reader, want frameType) (rawFrame, error) {
	f, err := readFrame(r)
	switch {
	case err == errNotMagic || err == errTLSHello:
		return nil, fmt.Errorf("%w: %w", ErrNotMesh, err)
	case err == errOversized:
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	case err != nil:
		return nil, fmt.Errorf("read answer: %w", noEOF(err))
	}
	if f.kind() == frameReject {
		r, err := decodeReject(f.body())
		if err != nil {
			return nil, fmt.Errorf("%w: reject: %w", ErrProtocol, err)
		}
		if r.code == codeVersion {
			r.detail = fmt.Sprintf("the listener speaks version %d, this process version %d", f.version(), protocolVersion)
		}
		return nil, r
	}
	if f.version() != protocolVersion {
		return nil, fmt.Errorf("%w: the listener answered in version %d, this process speaks version %d",
			ErrVersion, f.version(), protocolVersion)
	}
	if f.kind() != want {
		return nil, fmt.Errorf("%w: frame %d instead of %d", ErrProtocol, f.kind(), want)
	}
	return f, nil
}

// serve performs the listener's part. It calls admit once the dialer has proven
// itself; a refusal that admit returns is answered, as are those of serve's
// own, and returned. The hello is nil unless one was read. Nothing but the nonce leaves before the proof was checked,
// so that a stranger learns nothing and gets nothing to test guesses with.
func (p *party) serve(conn io.ReadWriter, admit func(*hello) error) (*hello, error) {
	h, helloFrame, err := receiveHello(conn)
	if err == nil {
		err = p.authenticate(conn, h, helloFrame, admit)
	}
	if r, ok := err.(*refusal); ok {
		_, _ = conn.Write(r.encode())
	}
	return h, err
}

func receiveHello(conn io.Reader) (*hello, rawFrame, error) {
	frame, err := readFrame(conn)
	switch {
	case err == errTLSHello:
		return nil, nil, refuse(codeTLSUnsupported, "")
	case err != nil:
		return nil, nil, err
	case frame.version() != protocolVersion:
		return nil, nil, refuse(codeVersion, "version %d", frame.version())
	case frame.kind() != frameHello:
		return nil, nil, refuse(codeProtocol, "frame %d instead of a hello", frame.kind())
	}
	h, err := decodeHello(frame.body())
	if err != nil {
		return nil, nil, refuse(codeProtocol, "hello: %v", err)
	}
	return h, frame, nil
}

func (p *party) authenticate(conn io.ReadWriter, h *hello, helloFrame rawFrame, admit func(*hello) error) error {
	var c challenge
	_, _ = rand.Read(c.nonce[:]) // never fails
	challengeFrame := c.encode()
	if _, err := conn.Write(challengeFrame); err != nil {
		return fmt.Errorf("send challenge: %w", err)
	}
	proofFrame, err := readFrame(conn)
	if err != nil {
		return fmt.Errorf("read proof: %w", noEOF(err))
	}
	if proofFrame.version() != protocolVersion || proofFrame.kind() != frameProof {
		return refuse(codeProtocol, "frame %d instead of a proof", proofFrame.kind())
	}
	pr, err := decodeProof(proofFrame.body())
	if err != nil {
		return refuse(codeProtocol, "proof: %v", err)
	}
	want := seal(p.keys.dialer, p.binding, helloFrame, challengeFrame)
	if !hmac.Equal(pr.mac[:], want[:]) {
		return refuse(codeUnauthorized, "the tokens differ, or only one end has a token")
	}

	if err := admit(h); err != nil {
		return err
	}
	w := welcome{role: p.role, id: p.id, cluster: p.cluster}
	frame := w.encode()
	signed := frame[:len(frame)-macBytes]
	mac := seal(p.keys.listener, p.binding, helloFrame, challengeFrame, proofFrame, signed)
	copy(frame[len(signed):], mac[:])
	if _, err := conn.Write(frame); err != nil {
		return fmt.Errorf("send welcome: %w", err)
	}
	return nil
}
