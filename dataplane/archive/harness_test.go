package archive

import (
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fastpaca/fastpaca/dataplane/archive/archivetest"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

func TestMain(m *testing.M) {
	code := m.Run()
	archivetest.StopShared()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func logger(tb testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// open returns a store over a database, prepared for the cluster "c1" when
// migrating is allowed.
func open(tb testing.TB, url string, migrate bool) *Store {
	tb.Helper()
	s, err := Open(Config{URL: url, Migrate: migrate, Logger: logger(tb)})
	require.NoError(tb, err)
	tb.Cleanup(s.Close)
	if migrate {
		require.NoError(tb, s.Prepare(tb.Context(), "c1"))
	}
	return s
}

func fresh(tb testing.TB) (*Store, string) {
	tb.Helper()
	url := archivetest.Shared(tb).NewDatabase(tb)
	return open(tb, url, true), url
}

var day = time.Date(2026, 3, 4, 5, 6, 7, 89000, time.UTC)

// message renders a message as the state machine does.
func message(seq uint64, members string) rpc.Message {
	return rpc.Message{Seq: seq, Version: seq, JSON: fmt.Appendf(nil, `{"seq":%d,%s,"inserted_at":%q}`,
		seq, members, day.Add(time.Duration(seq)*time.Second).Format("2006-01-02T15:04:05.000000Z"))}
}

func text(seq uint64) rpc.Message {
	return message(seq, fmt.Sprintf(`"role":"user","parts":[{"type":"text","text":"message %d"}],"metadata":{"n":%d},"token_count":3`, seq, seq))
}

// run makes a run of the given messages of a conversation, continuing previous.
func run(key rpc.Key, previous [32]byte, messages ...rpc.Message) Run {
	r := Run{Messages: messages, Previous: previous, Conversation: rpc.Conversation{
		Key: key, Metadata: []byte(`{"k": 1}`), CreatedAt: day, UpdatedAt: day,
	}}
	if n := len(messages); n > 0 {
		last := messages[n-1]
		r.Conversation.LastSeq, r.Conversation.Version = last.Seq, last.Version
		r.Conversation.ArchivedSeq = messages[0].Seq - 1
		r.Conversation.UpdatedAt = day.Add(time.Duration(last.Seq) * time.Second)
	}
	return r
}

func texts(low, high uint64) []rpc.Message {
	var out []rpc.Message
	for seq := low; seq <= high; seq++ {
		out = append(out, text(seq))
	}
	return out
}
