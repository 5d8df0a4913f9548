package archive

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/archive/archivetest"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// runsOf spreads n messages of about 400 bytes over conversations.
func runsOf(from uint64, perConversation, n int) []Run {
	filler := strings.Repeat("lorem ipsum ", 22)
	var out []Run
	for c := 0; c*perConversation < n; c++ {
		var messages []rpc.Message
		for i := range perConversation {
			messages = append(messages, message(from+uint64(i), `"role":"user","parts":[{"type":"text","text":"`+filler+`"}],"metadata":{},"token_count":66`))
		}
		out = append(out, run(rpc.Key(fmt.Sprintf("conversation-%05d", c)), [32]byte{}, messages...))
	}
	return out
}

// BenchmarkWrite measures archiving rows, from their JSON in memory to the
// commit, and psql's \copy of the same rows into the same empty tables. Both
// report rows per second; \copy is the bound for anything that stores them.
func BenchmarkWrite(b *testing.B) {
	const batch, batches = 5000, 8
	for _, per := range []int{1, 20, 500} {
		b.Run(fmt.Sprintf("archive/run=%d", per), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				s, _ := fresh(b)
				b.StartTimer()
				var busy, used time.Duration
				for i := range batches {
					runs := runsOf(uint64(i*per)+1, per, batch)
					start, before := time.Now(), processCPU(b)
					_, err := s.Write(b.Context(), runs)
					require.NoError(b, err)
					busy, used = busy+time.Since(start), used+processCPU(b)-before
				}
				b.ReportMetric(batch*batches/busy.Seconds(), "rows/s")
				b.ReportMetric(float64(used.Nanoseconds())/(batch*batches), "cpu-ns/row")
			}
		})
		b.Run(fmt.Sprintf("copy/run=%d", per), func(b *testing.B) {
			psql, err := exec.LookPath("psql")
			if err != nil {
				b.Skip(err)
			}
			source, from := fresh(b)
			for i := range batches {
				_, err := source.Write(b.Context(), runsOf(uint64(i*per)+1, per, batch))
				require.NoError(b, err)
			}
			file := filepath.Join(b.TempDir(), "rows")
			copyTo := exec.Command(psql, from, "-c", `\copy (SELECT * FROM messages ORDER BY seq, conversation_id) TO `+file)
			out, err := copyTo.CombinedOutput()
			require.NoError(b, err, string(out))
			for b.Loop() {
				b.StopTimer()
				_, to := fresh(b)
				b.StartTimer()
				start := time.Now()
				out, err := exec.Command(psql, to, "-c", `\copy messages FROM `+file).CombinedOutput()
				require.NoError(b, err, string(out))
				b.ReportMetric(batch*batches/time.Since(start).Seconds(), "rows/s")
			}
			require.NoError(b, os.Remove(file))
			require.Equal(b, int64(batch*batches), archivetest.Query[int64](b, from, "SELECT count(*) FROM messages"))
		})
	}
}

// processCPU is the processor time of this process, which PostgreSQL's is not
// part of.
func processCPU(tb testing.TB) time.Duration {
	var u syscall.Rusage
	require.NoError(tb, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRows measures what is done to a message before it is sent.
func BenchmarkRows(b *testing.B) {
	const batch = 5000
	runs := runsOf(1, 20, batch)
	b.ReportAllocs()
	for b.Loop() {
		_, _, err := newRows(runs)
		require.NoError(b, err)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch, "ns/row")
}

func BenchmarkColumns(b *testing.B) {
	m := runsOf(1, 1, 1)[0].Messages[0]
	b.ReportAllocs()
	for b.Loop() {
		_, err := parseColumns(m.JSON)
		require.NoError(b, err)
	}
}

// BenchmarkStaging is the other way to write in bulk: COPY into a temporary
// table, then INSERT … SELECT from there. It is kept to show that what Write
// does is the better one.
func BenchmarkStaging(b *testing.B) {
	const batch, batches = 5000, 8
	columns := []string{"conversation_id", "seq", "version", "message_id", "role", "parts", "metadata", "token_count", "inserted_at", "exact", "hash", "body"}
	for b.Loop() {
		b.StopTimer()
		s, _ := fresh(b)
		conn, err := s.pool.Acquire(b.Context())
		require.NoError(b, err)
		_, err = conn.Exec(b.Context(), "CREATE TEMP TABLE staged (LIKE messages) ON COMMIT DELETE ROWS")
		require.NoError(b, err)
		b.StartTimer()
		var busy time.Duration
		for i := range batches {
			runs := runsOf(uint64(i*20)+1, 20, batch)
			start := time.Now()
			r, _, err := newRows(runs)
			require.NoError(b, err)
			tx, err := conn.Begin(b.Context())
			require.NoError(b, err)
			_, err = tx.CopyFrom(b.Context(), pgx.Identifier{"staged"}, columns, pgx.CopyFromSlice(batch, func(i int) ([]any, error) {
				return []any{r.ids[i], r.seqs[i], r.versions[i], r.messageIDs[i], r.roles[i], r.parts[i], r.metadata[i],
					r.tokens[i], r.inserted[i], r.exact[i], r.hashes[i], r.bodies[i]}, nil
			}))
			require.NoError(b, err)
			_, err = tx.Exec(b.Context(), "INSERT INTO messages SELECT * FROM staged ON CONFLICT DO NOTHING")
			require.NoError(b, err)
			require.NoError(b, tx.Commit(b.Context()))
			busy += time.Since(start)
		}
		b.ReportMetric(batch*batches/busy.Seconds(), "rows/s")
		conn.Release()
	}
}
