package archive

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/streams"
)

// C18 and C19: of ten messages two stay hot, and every way to read finds all of
// them, with the bytes that were served before they were archived.
func TestReadsCrossTheBoundary(t *testing.T) {
	t.Parallel()
	p := newPostgres(t)
	s := serve(t, p.database(database), "--tail-keep", "2", "--archive-interval", "300ms")
	require.NoError(t, s.Create(t.Context(), "chat"))
	bodies := []string{
		`{"message":{"id":"a","role":"user","parts":[{"type":"text","n":1.50e+1,"z":0,"a":"\u00e9\/"}],"metadata":{"k": [1,  2]}}}`,
		`{"message":{"role":"assistant","parts":[{"type":"x","b":1,"a":2e0}],"token_count":7}}`,
		`{"message":{"role":"user","parts":[{"type":"text","text":"\u0000 \ud800 \u2028"}]}}`,
	}
	for i := range 10 {
		body := []byte(bodies[i%len(bodies)])
		if i >= len(bodies) {
			body = client.TextBody("", textAt(i+1))
		}
		_, err := s.Append(t.Context(), "chat", body)
		require.NoError(t, err)
	}
	_, before, err := s.Verified(t.Context(), "chat")
	require.NoError(t, err)
	require.Len(t, before, 10)
	s.awaitArchived("chat")

	conversation, after, err := s.Verified(t.Context(), "chat")
	require.NoError(t, err)
	require.EqualValues(t, 10, conversation.ArchivedSeq)
	same(t, before, after)
	for from := 1; from <= 11; from++ {
		for limit := 1; limit <= 11; limit += 3 {
			_, page := messages(t, s.Client, fmt.Sprintf("%s/messages?from=%d&limit=%d", client.Path("chat"), from, limit))
			same(t, before[from-1:min(10, from-1+limit)], page)
			offset := 11 - from
			_, tail := messages(t, s.Client, fmt.Sprintf("%s/tail?offset=%d&limit=%d", client.Path("chat"), offset, limit))
			same(t, before[max(0, 10-offset-limit):10-offset], tail)
		}
	}
	for _, kind := range streams.Transports() {
		for _, from := range []uint64{1, 5, 8, 9, 10} {
			same(t, before[from-1:], follow(t, kind, s, "chat", from, 10))
		}
	}
	file := filepath.Join(t.TempDir(), "chat.jsonl")
	code, out := run(t, "conversation", "export", "--server", s.Server.URL(), "--file", file, "chat")
	require.Zero(t, code, out)
	exported, err := os.ReadFile(file)
	require.NoError(t, err)
	var want bytes.Buffer
	for _, m := range before {
		want.Write(append(m.Raw, '\n'))
	}
	require.Equal(t, want.String(), string(exported))
	verify(t, s.Server.URL(), s.url, 1, 10)
}

func same(t *testing.T, want, got []client.Message) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		require.Equal(t, string(want[i].Raw), string(got[i].Raw))
	}
}

// follow reads messages from a stream up to a sequence.
func follow(t *testing.T, kind streams.Transport, s *server, id string, from, to uint64) []client.Message {
	t.Helper()
	stream, err := streams.Open(t.Context(), kind, s.Server.URL(), id, streams.Options{From: from})
	require.NoError(t, err)
	defer stream.Close()
	var out []client.Message
	for next := from; next <= to; {
		event, err := stream.Next(t.Context())
		require.NoError(t, err)
		if event.Type != "message" {
			require.Equal(t, "caught_up", event.Type)
			continue
		}
		require.Equal(t, next, event.Seq)
		out = append(out, client.Message{Seq: event.Seq, Raw: event.Message})
		next++
	}
	return out
}

// A follower that began in the archive goes on with what is appended meanwhile,
// while that is archived and trimmed in turn.
func TestStreamsRunFromTheArchiveIntoNow(t *testing.T) {
	t.Parallel()
	const archived, more = 40, 60
	p := newPostgres(t)
	s := serve(t, p.database(database))
	s.fill("chat", archived)
	got := make(chan []client.Message, 3)
	for _, kind := range streams.Transports() {
		go func() { got <- follow(t, kind, s, "chat", 1, archived+more) }()
	}
	for n := range more {
		s.append("chat", textAt(archived+n+1))
	}
	_, want, err := s.Verified(t.Context(), "chat")
	require.NoError(t, err)
	for range streams.Transports() {
		same(t, want, <-got)
	}
}

// C20: an archive that forgot how far it is gets the same rows once more, which
// changes nothing.
func TestArchivingTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	p := newPostgres(t)
	s := serve(t, p.database(database), "--tail-keep", "100")
	s.fill("chat", 20)
	const rows = `SELECT md5(string_agg(m::text, '|' ORDER BY seq)) FROM messages m`
	const conversations = `SELECT md5(string_agg(c::text, '|' ORDER BY id)) FROM conversations c`
	before := p.sql(database, rows) + p.sql(database, conversations)
	p.sql(database, `UPDATE conversations SET archived_seq = 0, head = decode(repeat('00', 32), 'hex')`)
	s.restart() // a new lease looks at everything
	eventually(t, "the archive knows again", func() bool {
		return p.sql(database, `SELECT archived_seq FROM conversations`) == "20"
	})
	require.Equal(t, before, p.sql(database, rows)+p.sql(database, conversations))
	verify(t, s.Server.URL(), s.url, 1, 20)
}

// While the archive is away, what is only there is a 503 that says so; appends,
// hot reads and streams go on. It comes back without anybody's help.
func TestArchiveAway(t *testing.T) {
	t.Parallel()
	for name, way := range map[string]struct{ away, back func(p *postgres) }{
		"killed": {(*postgres).kill, (*postgres).start},
		"paused": {(*postgres).pause, (*postgres).resume},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPostgres(t)
			s := serve(t, p.database(database))
			s.fill("chat", 20)
			way.away(p)
			var readers errgroup.Group
			for _, target := range []string{"/messages?from=1", "/messages?from=17", "/tail?limit=4"} {
				readers.Go(func() error {
					reply, err := s.Do(t.Context(), http.MethodGet, client.Path("chat")+target, nil)
					_, hint := reply.RetryAfter()
					if err == nil && (reply.Status != http.StatusServiceUnavailable || reply.Fault().Code != "archive_unavailable" || !hint) {
						err = fmt.Errorf("%s: %s", target, reply)
					}
					return err
				})
			}
			require.NoError(t, readers.Wait())
			_, hot := messages(t, s.Client, client.Path("chat")+"/messages?from=18")
			require.Len(t, hot, 3)
			_, hot = messages(t, s.Client, client.Path("chat")+"/tail?limit=3")
			require.Len(t, hot, 3)
			for n := range 30 {
				s.append("chat", textAt(21+n))
			}
			require.Len(t, follow(t, streams.WebSocket, s, "chat", 18, 50), 33)
			way.back(p)
			s.awaitArchived("chat")
			_, log, err := s.Verified(t.Context(), "chat")
			require.NoError(t, err)
			for i, m := range log {
				require.Equal(t, textAt(i+1), m.TextOf())
			}
			verify(t, s.Server.URL(), s.url, 1, 50)
		})
	}
}
