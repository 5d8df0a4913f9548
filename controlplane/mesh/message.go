package mesh

import (
	"fmt"
)

// hello opens the handshake: who dials, and what for.
type hello struct {
	kind    Kind
	lane    Lane
	role    Role
	id      string
	cluster string // empty while unknown
	target  string // id of the node the dialer means, empty for any
	nonce   [nonceBytes]byte
}

func (h *hello) encode() rawFrame {
	return newFrame(frameHello).uint8(uint8(h.kind)).uint8(uint8(h.lane)).uint8(uint8(h.role)).
		string(h.id).string(h.cluster).string(h.target).bytes(h.nonce[:]).frame()
}

// decodeHello checks form only: a kind or role of the future is an answer of
// the listener to make, not a malformed frame.
func decodeHello(body []byte) (*hello, error) {
	d := decoder{rest: body}
	h := &hello{kind: Kind(d.uint8()), lane: Lane(d.uint8()), role: Role(d.uint8()),
		id: d.string(), cluster: d.string(), target: d.string()}
	copy(h.nonce[:], d.take(nonceBytes))
	if err := d.finish(); err != nil {
		return nil, err
	}
	for _, name := range []string{h.id, h.cluster, h.target} {
		if err := checkName(name); err != nil {
			return nil, fmt.Errorf("%w: %w", errMalformed, err)
		}
	}
	return h, nil
}

// challenge is the listener's nonce. It says nothing about the listener.
type challenge struct{ nonce [nonceBytes]byte }

func (c *challenge) encode() rawFrame { return newFrame(frameChallenge).bytes(c.nonce[:]).frame() }

func decodeChallenge(body []byte) (*challenge, error) {
	d := decoder{rest: body}
	c := &challenge{}
	copy(c.nonce[:], d.take(nonceBytes))
	return c, d.finish()
}

// proof is the dialer's MAC.
type proof struct{ mac [macBytes]byte }

func (p *proof) encode() rawFrame { return newFrame(frameProof).bytes(p.mac[:]).frame() }

func decodeProof(body []byte) (*proof, error) {
	d := decoder{rest: body}
	p := &proof{}
	copy(p.mac[:], d.take(macBytes))
	return p, d.finish()
}

// welcome ends the handshake: who listens, and its MAC, which covers all that
// stands before it in the frame.
type welcome struct {
	role    Role
	id      string
	cluster string
	mac     [macBytes]byte
}

func (w *welcome) encode() rawFrame {
	return newFrame(frameWelcome).uint8(uint8(w.role)).string(w.id).string(w.cluster).bytes(w.mac[:]).frame()
}

func decodeWelcome(body []byte) (*welcome, error) {
	d := decoder{rest: body}
	w := &welcome{role: Role(d.uint8()), id: d.string(), cluster: d.string()}
	copy(w.mac[:], d.take(macBytes))
	if err := d.finish(); err != nil {
		return nil, err
	}
	for _, name := range []string{w.id, w.cluster} {
		if err := checkName(name); err != nil {
			return nil, fmt.Errorf("%w: %w", errMalformed, err)
		}
	}
	return w, nil
}

func (r *refusal) encode() rawFrame {
	return newFrame(frameReject).uint8(uint8(r.code)).string(r.detail).frame()
}

func decodeReject(body []byte) (*refusal, error) {
	d := decoder{rest: body}
	r := &refusal{code: code(d.uint8()), detail: d.string()}
	r.detail = printable(r.detail, maxDetail)
	return r, d.finish()
}

// checkName checks an id of a node or a cluster, which may be empty. Ids are
// printable ASCII without spaces, because they end up in logs and addresses.
func checkName(name string) error {
	if len(name) > MaxIDBytes {
		return fmt.Errorf("id is longer than %d bytes", MaxIDBytes)
	}
	for i := range len(name) {
		if name[i] <= 0x20 || name[i] > 0x7e {
			return fmt.Errorf("id %q holds a character that is not printable ASCII or is a space", printable(name, 64))
		}
	}
	return nil
}
