package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// terminal returns both ends of a new one of 60 columns.
func terminal(t *testing.T) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = screen.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tty.Close() })
	require.NoError(t, unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: 60, Row: 20}))
	return screen, tty
}

// onTerminal runs a command with everything but stdin at a terminal and returns
// what that shows.
func (s shell) onTerminal(env string, args ...string) string {
	s.t.Helper()
	screen, tty := terminal(s.t)
	cmd := s.command(s.t.Context(), args...)
	cmd.Env = append(cmd.Env, "TERM=xterm", env)
	cmd.Stdout, cmd.Stderr = tty, tty
	require.NoError(s.t, cmd.Start())
	shown := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(screen) // ends with an error when the other end is closed
		shown <- string(text)
	}()
	require.NoError(s.t, cmd.Wait())
	require.NoError(s.t, tty.Close())
	return <-shown
}

func TestConversationsOnATerminal(t *testing.T) {
	t.Parallel()
	sh, _ := newShell(t)
	sh.ok("", "create", "chat")
	sh.ok("", "append", "chat", strings.Repeat("long ", 30))
	shown := sh.onTerminal("NO_COLOR=", "tail", "chat")
	require.Contains(t, shown, "\x1b[36muser")
	require.Contains(t, shown, "…")
	shown = sh.onTerminal("NO_COLOR=1", "tail", "chat")
	require.NotContains(t, shown, "\x1b")
	shown = sh.onTerminal("NO_COLOR=", "export", "chat", "-f", t.TempDir()+"/x")
	require.Contains(t, shown, "1 of 1 messages")
}
