package rpc

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Groups is the number of Raft groups that conversations are spread over. It is
// part of the stored format: changing it would move every conversation.
const Groups = 256

// MaxKeyBytes bounds a conversation id, counted after percent-decoding.
const MaxKeyBytes = 512

// Group numbers a Raft group, 0 to Groups-1.
type Group uint16

// Key is the opaque conversation key that the state machine stores and the
// group hash is taken over. For a public conversation id the key is the id's
// bytes. Ids cannot hold NUL, so keys that start with NUL stay free for a
// tenant prefix.
type Key string

// KeyOf turns a public conversation id into its key. It returns ErrInvalidID,
// wrapped with the reason, unless the id is 1 to MaxKeyBytes bytes of valid
// UTF-8 without NUL.
func KeyOf(id string) (Key, error) {
	switch {
	case id == "":
		return "", fmt.Errorf("%w: it is empty", ErrInvalidID)
	case len(id) > MaxKeyBytes:
		return "", fmt.Errorf("%w: it is longer than %d bytes", ErrInvalidID, MaxKeyBytes)
	case !utf8.ValidString(id):
		return "", fmt.Errorf("%w: it is not valid UTF-8", ErrInvalidID)
	case strings.IndexByte(id, 0) >= 0:
		return "", fmt.Errorf("%w: it holds a NUL character", ErrInvalidID)
	}
	return Key(id), nil
}

// Group returns the group that owns the key: the first byte of the SHA-256 of
// the key's bytes. The function is named fastpaca-group-v1 and never changes;
// any client can compute it with a stock library. Its test vectors are in
// key_test.go and README.md.
func (k Key) Group() Group {
	sum := sha256.Sum256([]byte(k))
	return Group(sum[0])
}
