package conformance

import (
	"net/http"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// The suite cannot kill a server that it did not start.
func TestC23KillAndRestart(t *testing.T) {
	if os.Getenv(urlEnv) != "" {
		t.Skipf("%s is set: the server is not ours to kill", urlEnv)
	}
	t.Parallel()
	dir := t.TempDir()
	server := process.MustStart(t, process.Config{DataDir: dir})
	a := connect(t, server.URL())
	id := a.filled(10)
	key := client.Header{Name: "Idempotency-Key", Value: "k"}
	a.appended(id, http.StatusCreated, named("m", "eleven"))
	a.appended(id, http.StatusCreated, text("twelve"), key)
	gone := a.filled(1)
	require.Equal(t, http.StatusNoContent, a.delete(gone).Status)
	before, log := a.conversation(id), a.verified(id)

	server.Kill()
	server = process.MustStart(t, process.Config{DataDir: dir})
	a = connect(t, server.URL())
	require.Equal(t, before, a.conversation(id))
	require.Equal(t, log, a.verified(id), "byte for byte")
	require.True(t, a.conversation(gone).Tombstoned)
	require.EqualValues(t, 11, a.appended(id, http.StatusOK, named("m", "eleven")).Seq, "ids are remembered")
	require.EqualValues(t, 12, seqOf(a.post(id, text("twelve"), key)), "keys are remembered")
	require.EqualValues(t, 13, a.appended(id, http.StatusCreated, text("thirteen")).Seq)
	a.verified(id)
}
