package archive

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// current is a client of a server that comes and goes.
type current struct{ atomic.Pointer[client.Client] }

func (c *current) set(s *server) { c.Store(client.New(s.Server.URL())) }

// The server is killed again and again while it writes to the archive and
// acknowledges what it has written. Small batches make that nearly all it does,
// so that kills fall before, between and after.
func TestServerKilledWhileArchiving(t *testing.T) {
	t.Parallel()
	const kills = 8
	p := newPostgres(t)
	s := serve(t, p.database(database), "--archive-interval", "10ms", "--archive-batch", "7")
	var where current
	where.set(s)
	l := startLoad(t, "kill", 12, where.Load)
	unacknowledged := 0
	eventually(t, "something is archived", func() bool { return held(p) > 0 })
	for range kills {
		l.await(60 + rand.IntN(60))
		s.Kill()
		written := held(p)
		s.start()
		where.set(s)
		// The server was told of no more than PostgreSQL has, and at some kills of
		// less.
		told := 0
		for _, id := range l.ids {
			c, err := s.Conversation(t.Context(), id)
			require.NoError(t, err)
			told += int(c.ArchivedSeq)
		}
		require.LessOrEqual(t, told, held(p))
		if told < written {
			unacknowledged++
		}
	}
	t.Logf("%d of %d kills were between a write and its acknowledgement", unacknowledged, kills)
	l.await(50)
	l.finish(s.url)
}

// held is how many messages PostgreSQL has.
func held(p *postgres) int {
	p.t.Helper()
	out, err := p.try(database, "SELECT count(*) FROM messages")
	if err != nil {
		return 0 // there is no schema yet
	}
	n, err := strconv.Atoi(out)
	require.NoError(p.t, err)
	return n
}

// PostgreSQL is killed, restarted and paused under load, and loses all its
// connections.
func TestPostgresFailsUnderLoad(t *testing.T) {
	t.Parallel()
	p := newPostgres(t)
	s := serve(t, p.database(database), "--archive-interval", "10ms", "--archive-batch", "50")
	l := startLoad(t, "pg", 12, func() *client.Client { return s.Client })
	for range 3 {
		l.await(80)
		p.kill()
		l.await(80) // appends need no archive
		p.start()
		l.await(80)
		p.pause()
		l.await(80)
		p.resume()
		l.await(80)
		p.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+database+"'")
		p.sql("postgres", "ALTER DATABASE "+database+" CONNECTION LIMIT 0",
			"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+database+"'")
		l.await(40)
		p.sql("postgres", "ALTER DATABASE "+database+" CONNECTION LIMIT -1")
	}
	l.finish(s.url)
}

// What somebody does to the archive by hand is found and named by verify, and
// by readers of just that.
func TestVerifyNamesWhatWasChanged(t *testing.T) {
	t.Parallel()
	p := newPostgres(t)
	s := serve(t, p.database(database))
	s.fill("chat", 12)
	s.fill("other", 5)
	verify(t, s.Server.URL(), s.url, 2, 17)
	for name, c := range map[string]struct {
		statement string
		seq       string
	}{
		"a changed body": {"UPDATE messages SET body = convert_to(replace(convert_from(body, 'UTF8'), 'text', 'tent'), 'UTF8') WHERE conversation_id = 'chat' AND seq = 4", "4"},
		"a changed hash": {"UPDATE messages SET hash = decode(repeat('ab', 32), 'hex') WHERE conversation_id = 'chat' AND seq = 7", "7"},
		"a deleted row":  {"DELETE FROM messages WHERE conversation_id = 'chat' AND seq = 6", "6"},
		"the newest row": {"DELETE FROM messages WHERE conversation_id = 'chat' AND seq = 12", "12"},
		"a lowered mark": {"UPDATE conversations SET archived_seq = 3 WHERE id = 'chat'", "archived_seq"},
	} {
		t.Run(name, func(t *testing.T) {
			p.sql(database, "CREATE TABLE saved_messages AS SELECT * FROM messages WHERE conversation_id = 'chat'",
				"CREATE TABLE saved_conversations AS SELECT * FROM conversations", c.statement)
			code, out := run(t, "archive", "verify", "--server", s.Server.URL(), "--archive-url", s.url)
			require.Equal(t, 1, code, out)
			require.Regexp(t, `conversation "chat".*\b`+c.seq+`\b`, out)
			require.NotContains(t, out, `conversation "other"`)
			code, out = run(t, "archive", "verify", "--server", s.Server.URL(), "--archive-url", s.url, "other")
			require.Zero(t, code, out)
			p.sql(database, "DELETE FROM messages WHERE conversation_id = 'chat'", "INSERT INTO messages SELECT * FROM saved_messages",
				"UPDATE conversations c SET archived_seq = s.archived_seq FROM saved_conversations s WHERE s.id = c.id",
				"DROP TABLE saved_messages, saved_conversations")
			verify(t, s.Server.URL(), s.url, 2, 17)
		})
	}
}

// An archive that cannot be used is said to be so, by the log and the status,
// and everything else goes on; once it is put right, it is used.
func TestUnusableArchives(t *testing.T) {
	t.Parallel()
	p := newPostgres(t)
	for name, c := range map[string]struct {
		make  []string // in the database
		role  string
		flags []string
		says  string
		mend  []string
	}{
		"no schema":      {flags: []string{"--archive-migrate=false"}, says: "no schema yet"},
		"foreign schema": {make: []string{"CREATE TABLE messages (id int)"}, says: "did not make", mend: []string{"DROP TABLE messages"}},
		"older schema": {
			make:  []string{"CREATE TABLE fastpaca_migrations (version int, name text, applied_at timestamptz)", "CREATE TABLE fastpaca_archive (only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row), cluster_id text)"},
			flags: []string{"--archive-migrate=false"}, says: "schema",
		},
		"newer schema": {
			make: []string{"CREATE TABLE fastpaca_migrations (version int, name text, applied_at timestamptz)", "CREATE TABLE fastpaca_archive (only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row), cluster_id text)", "INSERT INTO fastpaca_migrations VALUES (99, 'later', now())"},
			says: "newer than this program",
		},
		"no rights":   {make: []string{"CREATE ROLE stranger LOGIN", "REVOKE ALL ON SCHEMA public FROM PUBLIC"}, role: "stranger", says: "permission denied|lacks rights"},
		"no database": {role: "postgres", says: "does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := strings.ReplaceAll(name, " ", "_")
			url := p.url("postgres", db)
			if name != "no database" {
				url = p.database(db)
				p.sql(db, c.make...)
			}
			if c.role != "" {
				url = p.url(c.role, db)
			}
			s := serve(t, url, c.flags...)
			require.NoError(t, s.Create(t.Context(), "chat"))
			s.append("chat", "one", "two")
			_, log, err := s.Verified(t.Context(), "chat")
			require.NoError(t, err)
			require.Len(t, log, 2)
			eventually(t, "the status says why", func() bool {
				status, err := statusOf(t.Context(), s.ops)
				return err == nil && status.Error != ""
			})
			status, err := statusOf(t.Context(), s.ops)
			require.NoError(t, err)
			require.Regexp(t, c.says, status.Error)
			require.False(t, status.Ready)
			code, out := run(t, "archive", "status", "--ops", s.ops)
			require.Equal(t, 1, code, out)
			require.Regexp(t, c.says, out)
			if c.mend != nil {
				p.sql(db, c.mend...)
				s.awaitArchived("chat")
			}
			s.MustStop(t)
		})
	}
}

// A URL that can never work is refused before anything is started.
func TestWrongURL(t *testing.T) {
	t.Parallel()
	s := process.MustLaunch(t, process.Config{DataDir: t.TempDir(), Args: []string{"--archive-url", "ftp://nowhere/x"}})
	s.MustExit(t, 2)
	require.Contains(t, s.Output(), "--archive-url")
}
