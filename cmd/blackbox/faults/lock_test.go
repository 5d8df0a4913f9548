package faults

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// requireRefusal waits for a server that must not start, and checks that it
// says why in words: no stack trace, and something of each wanted.
func requireRefusal(t *testing.T, s *process.Server, wanted ...string) {
	t.Helper()
	eventually(t, "the refusal", func() bool {
		select {
		case <-s.Exited():
			return true
		default:
			return false
		}
	})
	code, err := s.Wait(t.Context())
	require.NoError(t, err)
	require.NotZero(t, code, s.Output())
	requireWords(t, s, wanted...)
}

func requireWords(t *testing.T, s *process.Server, wanted ...string) {
	t.Helper()
	said := s.Output()
	require.NotContains(t, said, "goroutine ", "a stack trace is no error message")
	require.NotContains(t, said, "panic:")
	for _, w := range wanted {
		require.Contains(t, strings.ToLower(said), strings.ToLower(w))
	}
}

func TestSecondServerOnTheSameDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := process.MustStart(t, process.Config{DataDir: dir})
	c := connect(t, first)
	require.NoError(t, c.Create(t.Context(), "x"))
	_, err := c.Append(t.Context(), "x", client.TextBody("", "before"))
	require.NoError(t, err)

	for range 3 {
		second := process.MustLaunch(t, process.Config{DataDir: dir})
		requireRefusal(t, second, dir, "in use")
	}
	_, err = c.Append(t.Context(), "x", client.TextBody("", "after"))
	require.NoError(t, err, "the first is unharmed")
	first.MustStop(t)

	again := process.MustStart(t, process.Config{DataDir: dir})
	_, log, err := connect(t, again).Verified(t.Context(), "x")
	require.NoError(t, err)
	require.Len(t, log, 2)
}

// A directory whose owner was killed is free.
func TestLockDiesWithItsOwner(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	process.MustStart(t, process.Config{DataDir: dir}).Kill()
	process.MustStart(t, process.Config{DataDir: dir}).MustStop(t)
}

func TestAddressInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	dir := t.TempDir()
	requireRefusal(t, process.MustLaunch(t, process.Config{DataDir: dir, Listen: l.Addr().String()}), l.Addr().String(), "in use")
}

func TestDataDirIsAFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("precious"), 0o600))
	requireRefusal(t, process.MustLaunch(t, process.Config{DataDir: file}), file)
	kept, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "precious", string(kept))
}

// A directory full of somebody else's files is not taken over.
func TestDataDirOfSomethingElse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "thesis.txt"), []byte("precious"), 0o600))
	server := process.MustLaunch(t, process.Config{DataDir: dir})
	eventually(t, "a start or a refusal", func() bool {
		select {
		case <-server.Exited():
			requireWords(t, server, dir)
			return true
		default:
			return ready(server) == 200
		}
	})
	server.Kill()
	kept, err := os.ReadFile(filepath.Join(dir, "thesis.txt"))
	require.NoError(t, err)
	require.Equal(t, "precious", string(kept), "whichever: the file is as it was")
}
