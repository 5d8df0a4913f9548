package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/archive/archivetest"
)

// call runs one command line and returns its exit code and what it printed.
func call(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	var both bytes.Buffer
	code = run(t.Context(), append([]string{"fastpaca"}, args...), &both, &both)
	return code, both.String()
}

// The commands around an archive, against a server that archives to a real
// Postgres: everything is archived and equal; what is then changed in Postgres
// is found and named.
func TestArchiveCommands(t *testing.T) {
	server := archivetest.Start(t)
	url := server.NewDatabase(t)
	code, out := call(t, "archive", "migrate", "--archive-url", url)
	require.Equal(t, exitOK, code, out)
	require.Contains(t, out, "applied 0001")
	code, out = call(t, "archive", "migrate", "--archive-url", url)
	require.Equal(t, exitOK, code, out)
	require.NotContains(t, out, "applied")

	taken, err := freeAddresses(2)
	require.NoError(t, err)
	ctx, stop := contextWithCancel(t)
	ended := make(chan int, 1)
	var log bytes.Buffer
	go func() {
		ended <- run(ctx, []string{"fastpaca", "serve", "--data-dir", t.TempDir(), "--listen", taken[0], "--ops-listen", taken[1],
			"--archive-url", url, "--archive-migrate=false", "--archive-interval", "50ms", "--tail-keep", "3", "--log-level", "error"}, io.Discard, &log)
	}()
	waitReady(t, taken[0])
	base := "http://" + taken[0]
	const id = "a%2Fb%20%C3%A9"
	send(t, http.MethodPut, base+"/v1/conversations/"+id, `{}`)
	send(t, http.MethodPut, base+"/v1/conversations/other", `{}`)
	for i := range 12 {
		send(t, http.MethodPost, base+"/v1/conversations/"+id+"/messages", fmt.Sprintf(`{"message":{"role":"user","parts":[{"type":"text","n":%d.50,"text":"\u0000"}]}}`, i))
	}
	require.Eventually(t, func() bool {
		return strings.Contains(send(t, http.MethodGet, base+"/v1/conversations/"+id, ""), `"archived_seq":12`)
	}, 30*time.Second, 5*time.Millisecond)

	code, out = call(t, "archive", "verify", "--server", base, "--archive-url", url)
	require.Equal(t, exitOK, code, out)
	require.Contains(t, out, "2 conversations, 12 archived messages compared, 0 conversations differ")
	code, out = call(t, "archive", "status", "--ops", taken[1], "--archive-url", url)
	require.Equal(t, exitOK, code, out)
	require.Contains(t, out, "256 groups")
	require.Contains(t, out, "pending    0 messages")
	require.Contains(t, out, "conversations  2")
	require.Contains(t, out, "256 groups have nothing pending")
	require.Contains(t, out, "256 of 256 groups are archived")
	code, out = call(t, "archive", "status", "--ops", taken[1], "--all")
	require.Equal(t, exitOK, code, out)
	require.Regexp(t, `(?m)^  255 +1 +true +0 +0`, out)
	code, out = call(t, "archive", "status", "--ops", taken[0]+","+taken[1])
	require.Equal(t, exitFailed, code, out)
	require.Contains(t, out, "--ops takes the --ops-listen addresses")
	require.Contains(t, out, "256 groups", "the others are shown all the same")
	require.Contains(t, send(t, http.MethodGet, base+"/metrics", ""), "fastpaca_archive_messages_total 12\n")

	server.Exec(t, url, "UPDATE messages SET hash = sha256(hash) WHERE seq = 11", "DELETE FROM messages WHERE seq = 12")
	code, out = call(t, "archive", "verify", "--server", base, "--archive-url", url, "a/b é")
	require.Equal(t, exitFailed, code, out)
	require.Contains(t, out, "other hash in Postgres: [11]")
	require.Contains(t, out, "missing in Postgres: [12]")
	server.Exec(t, url, "UPDATE messages SET body = 'x' WHERE seq = 4")
	code, out = call(t, "archive", "verify", "--server", base, "--archive-url", url, "a/b é")
	require.Equal(t, exitFailed, code, out)
	require.Contains(t, out, "the server does not answer")
	code, out = call(t, "archive", "verify", "--server", base, "--archive-url", url, "nobody")
	require.Equal(t, exitFailed, code, out)
	require.Contains(t, out, "conversation_not_found")

	stop()
	require.Equal(t, exitOK, <-ended, log.String())
}

func send(t *testing.T, method, url, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Less(t, resp.StatusCode, 300, string(answer))
	return string(answer)
}

func TestArchiveWrongCalls(t *testing.T) {
	require.NoError(t, os.Unsetenv("DATABASE_URL"))
	for _, c := range []struct{ args, want string }{
		{"archive nothing", "unknown command"},
		{"archive migrate", "--archive-url is required"},
		{"archive migrate x", "takes no arguments"},
		{"archive migrate --archive-url http://x", "archive URL"},
		{"archive status", "--ops or --archive-url"},
		{"archive status --ops here", "HOST:PORT"},
		{"archive verify", "--archive-url is required"},
		{"archive verify --what", "what"},
		{"serve --archive-url ftp://x --archive-batch 0 --archive-interval 1ns", "--archive-url"},
		{"serve --archive-batch 0", "--archive-batch 0"},
		{"serve --archive-interval 1ns", "--archive-interval"},
	} {
		code, out := call(t, strings.Fields(c.args)...)
		require.Equal(t, exitUsage, code, "%s: %s", c.args, out)
		require.Contains(t, out, c.want, c.args)
	}
	code, out := call(t, "archive", "status", "--archive-url", "postgres://u:secret@localhost:1/none")
	require.Equal(t, exitFailed, code)
	require.NotContains(t, out, "secret")
	t.Setenv("DATABASE_URL", "ftp://x")
	code, out = call(t, "serve")
	require.Equal(t, exitUsage, code)
	require.Contains(t, out, "--archive-url")
}
