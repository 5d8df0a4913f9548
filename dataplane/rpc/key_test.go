package rpc

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The vectors of fastpaca-group-v1. A change here would move every stored
// conversation: it must never be needed.
func TestGroupVectors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		id    string
		group Group
	}{
		{"chat-123", 0x04},
		{"a", 0xca},
		{"user/42", 0xff},
		{"日本語", 0x77},
		{strings.Repeat("x", MaxKeyBytes), 0x64},
	} {
		key, err := KeyOf(c.id)
		require.NoError(t, err)
		require.Equal(t, c.group, key.Group(), "%q", c.id)
	}
}

// All groups get their share: the hash would otherwise make hot groups.
func TestGroupSpread(t *testing.T) {
	t.Parallel()
	const perGroup = 200
	var counts [Groups]int
	for i := range Groups * perGroup {
		counts[Key("conversation-"+strings.Repeat("z", i%7)+string(rune('a'+i%26))+strconv.Itoa(i)).Group()]++
	}
	for g, n := range counts {
		require.Greater(t, n, perGroup/2, "group %d", g)
		require.Less(t, n, perGroup*2, "group %d", g)
	}
}

func TestKeyOf(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"a", "a/b", "emoji 🦙", " ", "%2F", "a\nb", strings.Repeat("y", MaxKeyBytes)} {
		key, err := KeyOf(id)
		require.NoError(t, err, "%q", id)
		require.Equal(t, id, string(key))
	}
	for _, id := range []string{"", "a\x00b", "\xff", "\xed\xa0\x80", strings.Repeat("y", MaxKeyBytes+1)} {
		_, err := KeyOf(id)
		require.ErrorIs(t, err, ErrInvalidID, "%q", id)
	}
}

func TestNotLeaderIsUnavailable(t *testing.T) {
	t.Parallel()
	err := error(&NotLeaderError{Group: 3, Leader: "d2"})
	require.ErrorIs(t, err, ErrUnavailable)
	require.NotErrorIs(t, err, ErrOutcomeUnknown)
	require.Contains(t, err.Error(), "d2")
}

func FuzzKeyOf(f *testing.F) {
	for _, s := range []string{"chat-123", "", "\x00", "\xff\xfe", "a/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, id string) {
		key, err := KeyOf(id)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalidID)
			return
		}
		require.Equal(t, id, string(key))
		require.Less(t, int(key.Group()), Groups)
	})
}
