package mesh

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
)

// MinTokenBytes is the shortest token that is accepted. The handshake lets an
// eavesdropper test guesses offline, so a token must be drawn at random, not
// thought up: `openssl rand -hex 32`.
const MinTokenBytes = 16

// MaxTokenBytes bounds a token.
const MaxTokenBytes = 4096

// Token is the secret that all processes of a cluster share. It prints as
// [redacted], whatever the verb.
type Token string

// Format implements fmt.Formatter.
func (t Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// String returns a placeholder, or nothing for the empty token.
func (t Token) String() string {
	if t == "" {
		return ""
	}
	return "[redacted]"
}

// MarshalText keeps the token out of JSON and of slog's handlers.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

func (t Token) validate() error {
	switch {
	case t == "":
		return nil
	case len(t) < MinTokenBytes:
		return fmt.Errorf("token is shorter than %d bytes", MinTokenBytes)
	case len(t) > MaxTokenBytes:
		return fmt.Errorf("token is longer than %d bytes", MaxTokenBytes)
	case strings.TrimSpace(string(t)) != string(t):
		return errors.New("token begins or ends with white space")
	}
	return nil
}

// keyring holds the MAC keys of the two directions. They differ, so that what
// one end proved can never be sent back as the proof of the other.
type keyring struct{ dialer, listener []byte }

// newKeyring derives the keys. Without a token the keys are known to everybody
// and prove nothing; they only differ from those of every token, so that an end
// with a token and one without refuse each other.
func newKeyring(t Token) (keyring, error) {
	salt := "fastpaca mesh token"
	secret := string(t)
	if t == "" {
		salt, secret = "fastpaca mesh without token", "there is no secret here"
	}
	derive := func(info string) ([]byte, error) {
		return hkdf.Key(sha256.New, []byte(secret), []byte(salt), info, sha256.Size)
	}
	dialer, err := derive("fastpaca mesh v1 dialer")
	if err != nil {
		return keyring{}, fmt.Errorf("derive key: %w", err)
	}
	listener, err := derive("fastpaca mesh v1 listener")
	if err != nil {
		return keyring{}, fmt.Errorf("derive key: %w", err)
	}
	return keyring{dialer: dialer, listener: listener}, nil
}

// binding ties the MACs to the TLS session below, so that a proof made inside
// one session is worthless in another. It is all zero without TLS.
type binding struct {
	tls    bool
	export [sha256.Size]byte
}

// seal returns the MAC over the binding and the parts. Every part is a frame or
// the beginning of one, and so carries its own length and type.
func seal(key []byte, b binding, parts ...[]byte) (mac [macBytes]byte) {
	h := hmac.New(sha256.New, key)
	if b.tls {
		h.Write([]byte{1})
	} else {
		h.Write([]byte{0})
	}
	h.Write(b.export[:])
	for _, part := range parts {
		h.Write(part)
	}
	h.Sum(mac[:0])
	return mac
}
