package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

var (
	flips    = flag.Int("flips", 24, "bits to flip, each in a copy of the data of its own")
	flipSeed = flag.Uint64("flip-seed", 0, "seed of the flips; 0 takes a random one")
)

// truth is what a server acknowledged about one conversation, as it showed it.
type truth struct {
	id           string
	conversation []byte
	log          []client.Message
}

// TestFlippedBits flips one bit somewhere in the files of a stopped server and
// starts it again. It may refuse to start, saying why; it may answer with
// errors; it may not notice, if the bit did not matter. It must never answer
// with other bytes than before, and never as if something had not been there.
func TestFlippedBits(t *testing.T) {
	t.Parallel()
	seed := *flipSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-flip-seed %d repeats this run", seed)
	for stream, c := range []struct {
		name string
		stop func(*process.Server)
	}{
		{"killed", func(s *process.Server) { s.Kill() }},
		{"stopped", func(s *process.Server) { s.MustStop(t) }},
	} {
		dir, truths := corpus(t, c.stop)
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, uint64(stream)))
			for i := range *flips / 2 {
				t.Run(fmt.Sprint(i), func(t *testing.T) { flipOnce(t, r, dir, truths) })
			}
		})
	}
}

// corpus makes a data directory with something of everything, part of it in
// tables and part only in logs, and reads back all of it.
func corpus(t *testing.T, stop func(*process.Server)) (dir string, truths []truth) {
	t.Helper()
	dir = t.TempDir()
	for round := range 2 {
		server := process.MustStart(t, process.Config{DataDir: dir})
		c := connect(t, server)
		for i := range 20 {
			id := fmt.Sprintf("fault-%d", i)
			_, err := c.Do(t.Context(), http.MethodPut, client.Path(id), fmt.Appendf(nil, `{"metadata":{"n":%d}}`, i))
			require.NoError(t, err)
			for n := range 1 + i/2 {
				name := ""
				if n%3 == 0 {
					name = fmt.Sprintf("id-%d-%d", round, n)
				}
				_, err := c.Append(t.Context(), id, client.TextBody(name, strings.Repeat(fmt.Sprintf("%d-%d.", round, n), 1+n*n*10)))
				require.NoError(t, err)
			}
		}
		if round == 1 {
			truths = readTruths(t, c)
		}
		stop(server)
	}
	return dir, truths
}

func readTruths(t *testing.T, c *client.Client) []truth {
	t.Helper()
	reply, err := c.Do(t.Context(), http.MethodDelete, client.Path("fault-19"), nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusNoContent, reply.Status)
	var truths []truth
	for i := range 20 {
		id := fmt.Sprintf("fault-%d", i)
		reply, err := c.Do(t.Context(), http.MethodGet, client.Path(id), nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, reply.Status)
		_, log, err := c.Verified(t.Context(), id)
		require.NoError(t, err)
		truths = append(truths, truth{id, reply.Body, log})
	}
	return truths
}

// flipOnce is one trial on a copy of the directory.
func flipOnce(t *testing.T, r *rand.Rand, dir string, truths []truth) {
	data := t.TempDir()
	require.NoError(t, os.CopyFS(data, os.DirFS(dir)))
	where := flipBit(t, r, data)
	server := process.MustLaunch(t, process.Config{DataDir: data})
	if !started(t, server) {
		requireDamageReport(t, server, where)
		t.Logf("%s: refused to start", where)
		return
	}
	c := connect(t, server)
	checks := []func() error{func() error { return listed(t.Context(), c, truths) }}
	for _, want := range truths {
		checks = append(checks, func() error { return want.hold(t.Context(), c) })
	}
	refusals := 0
	for _, check := range checks {
		switch err := check(); {
		case err == nil:
		case errors.Is(err, errRefused):
			refusals++
		case gone(server):
			requireDamageReport(t, server, where)
			t.Logf("%s: gave up when read", where)
			return
		default:
			t.Fatalf("%s: %v", where, err)
		}
	}
	t.Logf("%s: started, %d of %d reads refused", where, refusals, len(checks))
}

// started waits until the server is ready or has exited. One that can serve
// only a part may never be ready, so a server that answers at all gets only so
// much time before it is asked.
func started(t *testing.T, s *process.Server) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	err := s.WaitReady(ctx)
	if errors.Is(err, process.ErrExited) {
		return false
	}
	if err != nil {
		require.NotZero(t, ready(s), "neither up nor down:\n%s", s.Output())
	}
	return true
}

func gone(s *process.Server) bool {
	// An answer that broke off and the end of the process are two events.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := s.Wait(ctx)
	return err == nil
}

// damage are the words of which a clear report has at least one.
var damage = []string{"corrupt", "checksum", "damaged", "invalid", "mismatch", "malformed", "not a valid", "missing", "unknown", "format"}

func requireDamageReport(t *testing.T, s *process.Server, where string) {
	t.Helper()
	code, err := s.Wait(t.Context())
	require.NoError(t, err)
	require.NotZero(t, code, where)
	said := strings.ToLower(s.Output())
	require.NotContains(t, said, "goroutine ", "%s: a stack trace is no report", where)
	for _, word := range damage {
		if strings.Contains(said, word) {
			return
		}
	}
	t.Fatalf("%s: refused without a clear reason:\n%s", where, s.Output())
}

// flipBit flips a bit of a random file, before the zeros that files were
// extended with, and says where.
func flipBit(t *testing.T, r *rand.Rand, dir string) string {
	t.Helper()
	var files []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if err == nil && len(bytes.TrimRight(content, "\x00")) > 0 {
			files = append(files, path)
		}
		return err
	}))
	path := files[r.IntN(len(files))]
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	written := len(bytes.TrimRight(content, "\x00"))
	at, bit := r.IntN(written), r.IntN(8)
	if r.IntN(4) == 0 {
		// The end of a log is where damage and a torn write look alike.
		at = max(0, written-1-r.IntN(512))
	}
	content[at] ^= 1 << bit
	require.NoError(t, os.WriteFile(path, content, 0o600))
	name, err := filepath.Rel(dir, path)
	require.NoError(t, err)
	return fmt.Sprintf("bit %d of byte %d of %d in %s", bit, at, len(content), name)
}

// errRefused is an answer that admits a fault.
var errRefused = errors.New("refused")

// listed checks that a listing, if there is one, leaves nothing out.
func listed(ctx context.Context, c *client.Client, truths []truth) error {
	reply, err := c.Do(ctx, http.MethodGet, "/v1/conversations?prefix=fault-&limit=1000", nil)
	switch {
	case err != nil:
		return err
	case reply.Status >= 500:
		return errRefused
	}
	var body struct {
		Conversations []json.RawMessage `json:"conversations"`
	}
	if err := json.Unmarshal(reply.Body, &body); err != nil {
		return fmt.Errorf("list: %w: %s", err, reply)
	}
	shown := map[string]bool{}
	for _, raw := range body.Conversations {
		var out bytes.Buffer
		if err := json.Compact(&out, raw); err != nil {
			return err
		}
		shown[out.String()] = true
	}
	for _, want := range truths {
		if !shown[string(want.conversation)] {
			return fmt.Errorf("the listing lacks %s", want.conversation)
		}
	}
	return nil
}

// hold compares what a server says now with the truth: nil if it is the same,
// errRefused if the server admits that it cannot tell.
func (w truth) hold(ctx context.Context, c *client.Client) error {
	reply, err := c.Do(ctx, http.MethodGet, client.Path(w.id), nil)
	switch {
	case err != nil:
		return err
	case reply.Status >= 500:
		return errRefused
	case reply.Status != http.StatusOK:
		return fmt.Errorf("conversation %s is %s", w.id, reply)
	case !sameJSON(reply.Body, w.conversation):
		return fmt.Errorf("conversation %s was %s and is %s", w.id, w.conversation, reply.Body)
	}
	log, err := c.Log(ctx, w.id)
	if status, answered := statusOf(err); answered && status >= 500 {
		return errRefused
	}
	if err != nil {
		return err
	}
	if len(log) != len(w.log) {
		return fmt.Errorf("conversation %s had %d messages and has %d", w.id, len(w.log), len(log))
	}
	for i := range log {
		if !bytes.Equal(log[i].Raw, w.log[i].Raw) {
			return fmt.Errorf("message %d of %s was %s and is %s", i+1, w.id, w.log[i].Raw, log[i].Raw)
		}
	}
	return nil
}

func sameJSON(a, b []byte) bool {
	var left, right bytes.Buffer
	return json.Compact(&left, a) == nil && json.Compact(&right, b) == nil && bytes.Equal(left.Bytes(), right.Bytes())
}
