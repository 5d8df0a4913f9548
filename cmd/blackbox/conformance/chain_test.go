package conformance

import (
	"encoding/hex"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
)

// The head lets a client prove that what it read is all there was, unchanged.
func TestHeadIsTheHashChain(t *testing.T) {
	a := setup(t)
	id := a.created()
	require.Equal(t, hex.EncodeToString(make([]byte, 32)), a.conversation(id).Head)

	heads := []string{a.conversation(id).Head}
	a.appended(id, http.StatusCreated, text("one"))
	heads = append(heads, a.conversation(id).Head)
	a.appended(id, http.StatusCreated, batch("two", "three"))
	heads = append(heads, a.conversation(id).Head)
	a.appended(id, http.StatusCreated, named("m", "four"))
	a.appended(id, http.StatusOK, named("m", "four"))
	heads = append(heads, a.conversation(id).Head)

	log := a.verified(id)
	for i, length := range []int{0, 1, 3, 4} {
		require.Equal(t, client.Head(log[:length]), heads[i], "after %d messages", length)
	}
}

// Equal messages in two conversations have links of their own times, so this
// only holds the form: 64 hex digits, new with every append.
func TestHeadChangesWithEveryAppend(t *testing.T) {
	a := setup(t)
	id := a.created()
	seen := map[string]bool{}
	for range 5 {
		head := a.conversation(id).Head
		require.Regexp(t, `^[0-9a-f]{64}$`, head)
		require.False(t, seen[head])
		seen[head] = true
		a.appended(id, http.StatusCreated, text("same"))
	}
}
