package archive

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/archive/archivetest"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Several nodes start at once: one makes the schema, all find it made.
func TestMigrateAtOnce(t *testing.T) {
	t.Parallel()
	url := archivetest.Shared(t).NewDatabase(t)
	var work sync.WaitGroup
	applied := make([][]string, 6)
	failures := make([]error, len(applied))
	for i := range applied {
		s := open(t, url, false)
		work.Go(func() { applied[i], failures[i] = s.Migrate(t.Context()) })
	}
	work.Wait()
	total := 0
	for i := range applied {
		require.NoError(t, failures[i])
		total += len(applied[i])
	}
	require.Equal(t, SchemaVersion(), total)
	require.Equal(t, int64(SchemaVersion()), archivetest.Query[int64](t, url, "SELECT count(*) FROM fastpaca_migrations"))
}

// A database that is not what it should be is named, and not touched.
func TestSchemaErrors(t *testing.T) {
	t.Parallel()
	server := archivetest.Shared(t)
	for name, c := range map[string]struct {
		make    []string
		migrate bool
		want    error
	}{
		"empty, not allowed to migrate":   {nil, false, ErrNoSchema},
		"tables of another program":       {[]string{"CREATE TABLE messages (id bigint)"}, true, ErrForeignSchema},
		"tables of another, not migrated": {[]string{"CREATE TABLE conversations (id uuid)"}, false, ErrForeignSchema},
		"newer":                           {append(made(t, server), "INSERT INTO fastpaca_migrations VALUES (99, 'future')"), true, ErrNewerSchema},
		"older":                           {append(made(t, server), "DELETE FROM fastpaca_migrations", "INSERT INTO fastpaca_migrations VALUES (-1, 'past')"), false, ErrOlderSchema},
		"of another cluster":              {append(made(t, server), "INSERT INTO fastpaca_archive (cluster_id) VALUES ('other')"), true, ErrForeignCluster},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := server.NewDatabase(t)
			server.Exec(t, url, c.make...)
			s, err := Open(Config{URL: url, Migrate: c.migrate, Logger: logger(t)})
			require.NoError(t, err)
			t.Cleanup(s.Close)
			err = s.Prepare(t.Context(), "c1")
			require.ErrorIs(t, err, c.want)
			require.ErrorIs(t, err, rpc.ErrArchiveUnavailable)
			_, err = s.Write(t.Context(), []Run{run("a", [32]byte{}, text(1))})
			if c.want != ErrForeignCluster { // which only Prepare asks for
				require.ErrorIs(t, err, c.want)
			}
		})
	}
}

// made is how the schema is made, as statements.
func made(t *testing.T, _ *archivetest.Server) []string {
	t.Helper()
	out := []string{bookkeeping}
	for _, m := range migrations {
		out = append(out, m.sql)
	}
	return append(out, "INSERT INTO fastpaca_migrations (version, name) SELECT g, 'x' FROM generate_series(1, "+string(rune('0'+len(migrations)))+") g")
}

func TestClusterOwnsArchive(t *testing.T) {
	t.Parallel()
	s, url := fresh(t)
	require.NoError(t, s.Prepare(t.Context(), "c1"))
	other, err := Open(Config{URL: url, Logger: logger(t)})
	require.NoError(t, err)
	defer other.Close()
	require.ErrorIs(t, other.Prepare(t.Context(), "c2"), ErrForeignCluster)
	found, err := other.Schema(t.Context())
	require.NoError(t, err)
	require.Equal(t, "c1", found.Cluster)
	require.NoError(t, found.Usable())
	require.NoError(t, other.Ping(t.Context()))
}

func TestRights(t *testing.T) {
	t.Parallel()
	server := archivetest.Shared(t)
	_, url := fresh(t)
	database := archivetest.Query[string](t, url, "SELECT current_database()")
	for _, role := range []string{"stranger", "reader", "writer"} {
		server.Exec(t, url, `DO $$ BEGIN CREATE ROLE `+role+` LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$`)
	}
	server.Exec(t, url, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader",
		"GRANT SELECT ON fastpaca_migrations TO writer", "GRANT SELECT, INSERT ON messages TO writer",
		"GRANT SELECT, INSERT, UPDATE ON conversations, fastpaca_archive TO writer")
	openAs := func(role string) *Store {
		s, err := Open(Config{URL: server.URLFor(role, database), Migrate: true, Logger: logger(t)})
		require.NoError(t, err)
		t.Cleanup(s.Close)
		return s
	}
	one := []Run{run("a", [32]byte{}, text(1))}

	require.ErrorIs(t, openAs("stranger").Prepare(t.Context(), "c1"), rpc.ErrArchiveUnavailable)
	reader := openAs("reader")
	_, err := reader.Write(t.Context(), one)
	require.ErrorIs(t, err, ErrRights)
	writer := openAs("writer")
	require.NoError(t, writer.Prepare(t.Context(), "c1"))
	_, err = writer.Write(t.Context(), one)
	require.NoError(t, err)
	got, err := reader.Messages(t.Context(), Range{Key: "a", Low: 1, High: 1, MaxBytes: 1 << 20})
	require.NoError(t, err)
	require.Equal(t, one[0].Messages, got)

	// A role that may not make tables says so instead of serving half.
	empty := server.NewDatabase(t)
	server.Exec(t, empty, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
	name := archivetest.Query[string](t, empty, "SELECT current_database()")
	s, err := Open(Config{URL: server.URLFor("writer", name), Migrate: true, Logger: logger(t)})
	require.NoError(t, err)
	defer s.Close()
	require.ErrorIs(t, s.Prepare(t.Context(), "c1"), ErrRights)
}

func TestWrongURLs(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"http://example.org", "postgres://%zz", "host=", "port=x"} {
		s, err := Open(Config{URL: url, Logger: logger(t)})
		if err == nil {
			s.Close()
		}
		if url != "host=" {
			require.ErrorIs(t, err, ErrURL, url)
		}
	}
	s, err := Open(Config{URL: "postgres://u:secret@localhost:1/nothing", Logger: logger(t)})
	require.NoError(t, err)
	defer s.Close()
	err = s.Prepare(t.Context(), "c1")
	require.ErrorIs(t, err, rpc.ErrArchiveUnavailable)
	require.NotContains(t, err.Error(), "secret")
	require.NotContains(t, s.Target(), "secret")
	_, err = s.Messages(t.Context(), Range{Key: "a", Low: 1, High: 2, MaxBytes: 1})
	require.ErrorIs(t, err, rpc.ErrArchiveUnavailable)
}

// Servers that may lose commits are refused; sessions that would are set right.
func TestDurability(t *testing.T) {
	t.Parallel()
	unsafe := archivetest.Start(t, "fsync=off")
	s, err := Open(Config{URL: unsafe.NewDatabase(t), Migrate: true, Logger: logger(t)})
	require.NoError(t, err)
	defer s.Close()
	require.ErrorIs(t, s.Prepare(t.Context(), "c1"), ErrDurability)

	sound, url := fresh(t)
	archivetest.Shared(t).Exec(t, url, "ALTER DATABASE "+archivetest.Query[string](t, url, "SELECT current_database()")+" SET synchronous_commit = off")
	archivetest.Shared(t).Exec(t, url, `CREATE TABLE seen (v text)`,
		`CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO seen SELECT current_setting('synchronous_commit'); RETURN NULL; END $$`,
		`CREATE TRIGGER look AFTER INSERT ON conversations FOR EACH STATEMENT EXECUTE FUNCTION look()`)
	sound.pool.Reset()
	_, err = sound.Write(t.Context(), []Run{run("a", [32]byte{}, text(1))})
	require.NoError(t, err)
	require.Equal(t, "on", archivetest.Query[string](t, url, "SELECT v FROM seen"))
}
