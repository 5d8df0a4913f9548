package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
	"github.com/fastpaca/fastpaca/sdk/go"
)

// shell runs `fastpaca conversation` as a process against one server.
type shell struct {
	t   *testing.T
	url string
}

type outcome struct {
	code           int
	stdout, stderr string
}

func newShell(t *testing.T) (shell, *process.Server) {
	t.Helper()
	server := process.MustStart(t, process.Config{DataDir: t.TempDir(), Args: []string{"--log-level", "error"}})
	return shell{t, server.URL()}, server
}

func (s shell) command(ctx context.Context, args ...string) *exec.Cmd {
	s.t.Helper()
	binary, err := process.Binary()
	require.NoError(s.t, err)
	cmd := exec.CommandContext(ctx, binary, append([]string{"conversation"}, args...)...)
	cmd.Env = append(os.Environ(), "FASTPACA_SERVER="+s.url, "TZ=UTC")
	return cmd
}

func (s shell) run(stdin string, args ...string) outcome {
	s.t.Helper()
	cmd := s.command(s.t.Context(), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	_ = cmd.Run() // the exit code tells
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// ok runs a command that must succeed and returns what it printed.
func (s shell) ok(stdin string, args ...string) string {
	s.t.Helper()
	out := s.run(stdin, args...)
	require.Equal(s.t, exitOK, out.code, "%q: %s%s", args, out.stdout, out.stderr)
	return out.stdout
}

func TestConversationVerbs(t *testing.T) {
	t.Parallel()
	sh, _ := newShell(t)
	require.Contains(t, sh.ok("", "create", "chat", "--metadata", `{"user":"u_1"}`), `{"user":"u_1"}`)
	require.Contains(t, sh.ok("", "append", "chat", "Hello there!"), "seq 1")
	require.Contains(t, sh.ok("two\nlines\n", "append", "chat", "--role", "assistant"), "seq 2")
	require.Contains(t, sh.ok("", "append", "chat", "--message", `{"id":"m3","role":"tool","parts":[{"type":"tool-x","n":12345678901234567890}]}`, "--if-version", "2"), "id m3")
	require.Contains(t, sh.ok("", "append", "chat", "--id", "m4", "--metadata", `{"k":2.0}`, "--", "--dashed"), "seq 4")
	require.Contains(t, sh.ok("", "append", "chat", "--id", "m4", "--metadata", `{"k":2.0}`, "--text", "--dashed"), "seq 4  version 4  tokens 2  id m4  (stored before)")
	require.Contains(t, sh.ok("", "append", "chat", "revised", "--id=m4", "--idempotency-key=k"), "(revises 4)")

	table := strings.Split(sh.ok("", "tail", "chat"), "\n")
	require.Len(t, table, 7)
	require.Regexp(t, `^    SEQ  TIME                 ROLE        TEXT$`, table[0])
	require.Regexp(t, `^      1  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d  user        Hello there!$`, table[1])
	require.Regexp(t, `assistant   two lines$`, table[2])
	require.Regexp(t, `tool        \[tool-x\]$`, table[3])

	require.Contains(t, sh.ok("", "tail", "chat", "-n", "1", "--before", "4", "-o", "json"), `"n":12345678901234567890`)
	require.Equal(t, 2, strings.Count(sh.ok("", "replay", "chat", "--from", "2", "-n", "2", "-o", "json"), "\n"))
	require.Equal(t, 5, strings.Count(sh.ok("", "replay", "-o", "json", "chat"), "\n"))
	require.Contains(t, sh.ok("", "get", "chat"), "last seq  5")
	var info fastpaca.ConversationInfo
	require.NoError(t, json.Unmarshal([]byte(sh.ok("", "get", "chat", "-o", "json")), &info))
	require.EqualValues(t, 5, info.LastSeq)

	sh.ok("", "create", "a/b 🦙")
	require.Contains(t, sh.ok("", "list"), "a/b 🦙")
	require.NotContains(t, sh.ok("", "list", "chat"), "a/b")
	require.Contains(t, sh.run("", "list", "--limit", "1").stderr, "more than 1")
	require.Empty(t, sh.ok("", "tombstone", "chat"))
	require.Contains(t, sh.ok("", "get", "chat"), "tombstoned")
	followed := sh.run("", "follow", "chat", "--tail", "2")
	require.Equal(t, exitOK, followed.code)
	require.Equal(t, 3, strings.Count(followed.stdout, "\n"))
	require.Contains(t, followed.stderr, "no more messages")
}

// What is exported comes back the same, and an export that was cut goes on.
func TestConversationExport(t *testing.T) {
	t.Parallel()
	sh, _ := newShell(t)
	var lines strings.Builder
	for i := range 1200 {
		fmt.Fprintf(&lines, `{"id":"m%d","role":"user","parts":[ {"type":"text", "text":"%d"}, {"type":"x","n":1e400} ],"metadata":{"i":%d}}`+"\n", i, i, i)
	}
	require.Equal(t, 1200, strings.Count(sh.ok(lines.String(), "append", "big", "--create", "--message", "-", "-o", "json"), "\n"))
	require.Equal(t, 1200, strings.Count(sh.ok(lines.String(), "append", "big", "--message", "-"), "(stored before)"))

	whole := sh.ok("", "export", "big")
	require.Equal(t, 1200, strings.Count(whole, "\n"))
	require.True(t, strings.Contains(whole, `[{"type":"text", "text":"7"},{"type":"x","n":1e400}]`), "parts are kept byte for byte")

	file := filepath.Join(t.TempDir(), "big.jsonl")
	for _, kept := range []int{0, 1, len(whole) / 2, len(whole) - 1, len(whole)} {
		require.NoError(t, os.WriteFile(file, []byte(whole[:kept]), 0o600))
		sh.ok("", "export", "big", "-f", file, "--resume")
		got, err := os.ReadFile(file)
		require.NoError(t, err)
		require.True(t, whole == string(got), "resumed at byte %d", kept)
	}
	again := sh.run("", "export", "big", "-f", file)
	require.Equal(t, exitFailed, again.code)
	require.Contains(t, again.stderr, "--resume")
	require.NoError(t, os.WriteFile(file, []byte("notes of mine\n"), 0o600))
	require.Contains(t, sh.run("", "export", "big", "-f", file, "--resume").stderr, "not a message of an export")

	copied := sh.ok(whole, "append", "copy", "--create", "--message", "-")
	require.Equal(t, 1200, strings.Count(copied, "\n"))
	broken := sh.run(`{"id":"a","role":"user","parts":[{"type":"text"}]}`+"\n{", "append", "copy", "--message", "-")
	require.Equal(t, exitFailed, broken.code)
	require.Contains(t, broken.stderr, "1 messages were stored")
	require.Contains(t, broken.stderr, "message 2 of stdin")
}

// What can go wrong has an exit code, and the answer says what to do.
func TestConversationAdvice(t *testing.T) {
	t.Parallel()
	sh, _ := newShell(t)
	sh.ok("", "create", "chat")
	sh.ok("", "append", "chat", "one")
	sh.ok("", "create", "closed")
	sh.ok("", "tombstone", "closed")
	login := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<title>Login</title>")
	}))
	t.Cleanup(login.Close)
	full := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, `{"error":"storage_full","message":"The storage is full.","request_id":"r7"}`)
	}))
	t.Cleanup(full.Close)
	free, err := process.FreeAddress()
	require.NoError(t, err)
	for name, c := range map[string]struct {
		args []string
		code int
		want []string
	}{
		"no server":         {[]string{"get", "chat", "--server", "http://" + free}, exitUnreachable, []string{"connection refused", "fastpaca serve", "FASTPACA_SERVER"}},
		"another server":    {[]string{"get", "chat", "--server", login.URL}, exitFailed, []string{"is this the address of a Fastpaca server?"}},
		"a full one":        {[]string{"append", "chat", "x", "--server", full.URL}, exitUnreachable, []string{"storage is full", "r7", "try again"}},
		"odd URL":           {[]string{"get", "chat", "--server", "localhost:4000"}, exitUsage, []string{"http://HOST:PORT"}},
		"no conversation":   {[]string{"append", "it's", "hi"}, exitNoConversation, []string{`fastpaca conversation create 'it'\''s'`}},
		"follow nothing":    {[]string{"follow", "nope", "--from", "1"}, exitNoConversation, []string{"create nope"}},
		"conflict":          {[]string{"append", "chat", "x", "--if-version", "0"}, exitRefused, []string{"--if-version 1"}},
		"tombstoned":        {[]string{"append", "closed", "x"}, exitRefused, []string{"takes no more messages"}},
		"no id":             {[]string{"get"}, exitUsage, []string{"takes ID"}},
		"two ids":           {[]string{"get", "a", "b"}, exitUsage, []string{"takes ID"}},
		"empty id":          {[]string{"get", ""}, exitUsage, []string{"1 to 512 bytes"}},
		"no text":           {[]string{"append", "chat"}, exitUsage, []string{"stdin is empty"}},
		"two texts":         {[]string{"append", "chat", "x", "--text", "y"}, exitUsage, []string{"once"}},
		"odd message":       {[]string{"append", "chat", "--message", "{"}, exitUsage, []string{"--message"}},
		"message, no parts": {[]string{"append", "chat", "--message", "{}"}, exitUsage, []string{"at least one part"}},
		"odd metadata":      {[]string{"create", "chat", "--metadata", "{"}, exitUsage, []string{"--metadata"}},
		"no object":         {[]string{"create", "chat", "--metadata", "5"}, exitFailed, []string{"metadata must be an object"}},
		"odd output":        {[]string{"tail", "chat", "-o", "xml"}, exitUsage, []string{`"xml"`}},
		"odd limit":         {[]string{"tail", "chat", "-n", "0"}, exitUsage, []string{"--limit"}},
		"flag at the end":   {[]string{"tail", "chat", "-n"}, exitUsage, []string{"needs an argument"}},
		"odd flag":          {[]string{"tail", "chat", "--nope"}, exitUsage, []string{"--nope"}},
		"odd number":        {[]string{"tail", "chat", "-n", "x"}, exitUsage, []string{`"x"`}},
		"guarded stream":    {[]string{"append", "chat", "--message", "-", "--if-version", "1"}, exitUsage, []string{"for one"}},
		"resume nothing":    {[]string{"export", "chat", "--resume"}, exitUsage, []string{"--file"}},
		"unknown verb":      {[]string{"delete", "chat"}, exitUsage, []string{"delete"}},
	} {
		t.Run(name, func(t *testing.T) {
			out := sh.run("", c.args...)
			require.Equal(t, c.code, out.code, out.stdout+out.stderr)
			require.Empty(t, out.stdout)
			require.NotContains(t, out.stderr, "fastpaca: fastpaca:")
			for _, want := range c.want {
				require.Contains(t, out.stderr, want)
			}
		})
	}
	for _, verb := range conversationCommand().Subcommands {
		require.Contains(t, sh.ok("", verb.Name, "chat", "--help"), "Example:", verb.Name)
	}
}

// follow goes on through a crash of the server and prints each message once,
// as it comes.
func TestConversationFollow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := process.MustStart(t, process.Config{DataDir: dir})
	sh := shell{t, server.URL()}
	sh.ok("", "create", "live")
	sh.ok("", "append", "live", "1")

	cmd := sh.command(t.Context(), "follow", "live", "-o", "json")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(stdout)
	next := func(want string) {
		t.Helper()
		require.True(t, lines.Scan(), "%v", lines.Err())
		var m fastpaca.Message
		require.NoError(t, json.Unmarshal(lines.Bytes(), &m))
		require.Equal(t, want, m.Text())
		require.Equal(t, want, fmt.Sprint(m.Seq))
	}
	next("1")
	sh.ok("", "append", "live", "2")
	next("2")
	server.Kill()
	again := process.MustStart(t, process.Config{DataDir: dir, Listen: server.Address()})
	sh.ok("", "append", "live", "3")
	next("3")
	again.MustStop(t)
	process.MustStart(t, process.Config{DataDir: dir, Listen: server.Address()})
	sh.ok("", "append", "live", "4")
	next("4")
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	require.False(t, lines.Scan())
	require.NoError(t, cmd.Wait())
	require.Contains(t, stderr.String(), "Connection lost, reconnecting")
	require.Contains(t, stderr.String(), "Connected again.")
}
