package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// trimResult is what becomes of a filled server that is given an archive.
type trimResult struct {
	Messages int `json:"messages"`
	// DrainPerSecond is how fast stored messages are archived and trimmed, and
	// CopyPerSecond how fast psql copies the same rows to the same tables.
	DrainPerSecond float64 `json:"rows_per_second"`
	CopyPerSecond  float64 `json:"copy_rows_per_second"`
	// BeforeMiB and AfterMiB are the data directory without the archive, and with
	// it once compaction has come to rest. Of the former, BeforeWALMiB are files
	// of the write-ahead log, which the next start removes anyway.
	BeforeMiB    float64 `json:"data_mib_before"`
	BeforeWALMiB float64 `json:"data_mib_before_wal"`
	AfterMiB     float64 `json:"data_mib_after"`
	// ShrinkSeconds is how long after the last message was archived the directory
	// was below a third; 0 if it never was.
	ShrinkSeconds float64 `json:"shrink_s"`
	// ReplayPerSecond is how fast one client read everything back, decoding and
	// comparing it; Differing is how many messages were not as appended.
	ReplayPerSecond float64 `json:"replay_messages_per_second"`
	Differing       int     `json:"differing"`
}

const (
	// archivedEach is how many messages each of the drained conversations has.
	archivedEach = 1000
	// trimStrict is from how many messages on the directory is also compared with
	// what it was without its write-ahead log. Of fewer, what each group keeps of
	// its Raft log however small its state is would be most of what remains.
	trimStrict = 1_000_000
	// shrinkTime is how long the data directory may take to be compacted after
	// the last message was trimmed. Once it is as small as is wanted, it counts
	// as compacted when it has not changed for restTime.
	shrinkTime = 2 * time.Minute
	restTime   = 20 * time.Second
)

// trim fills a server, starts it again with an archive, and measures how fast
// everything is archived beside \copy, how much smaller the directory becomes,
// and whether all of it can be read as it was written.
func (b *bench) trim(ctx context.Context) error {
	dir, err := os.MkdirTemp(b.dir, "drained-")
	if err != nil {
		return err
	}
	dir = filepath.Join(dir, "data")
	result := &trimResult{}
	conversations := max(1, b.Archived/archivedEach)
	if result.Messages, err = b.fillForArchive(ctx, dir, conversations); err != nil {
		return err
	}
	result.BeforeMiB = mebibytes(diskUsage(dir))
	result.BeforeWALMiB = mebibytes(writeAheadLogs(dir))
	p, err := b.freshPostgres(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	if err := p.makeDatabase(ctx, historyDatabase); err != nil {
		return err
	}
	f, err := b.archived(ctx, dir, p)
	if err != nil {
		return err
	}
	err = b.drainInto(ctx, f, dir, conversations, result)
	f.stop()
	if err != nil {
		return err
	}
	if result.CopyPerSecond, err = b.copyRows(ctx, p, result.Messages); err != nil {
		return err
	}
	b.progress("trim: \\copy of the same rows at %.0f/s", result.CopyPerSecond)
	b.report.Trim = result
	b.report.atLeast("rows archived/s over \\copy's", result.DrainPerSecond/result.CopyPerSecond, 0.4, "×")
	b.report.atMost("data directory after archiving", result.AfterMiB/result.BeforeMiB*100, 100.0/3, "%")
	if result.Messages >= trimStrict {
		b.report.atMost("the same without the write-ahead log of before", result.AfterMiB/(result.BeforeMiB-result.BeforeWALMiB)*100, 100.0/3, "%")
	}
	b.report.atMost("messages that read back otherwise than written", float64(result.Differing), 0, "")
	return nil
}

// drainInto waits until everything is archived and trimmed, reads it back and
// stops the server.
func (b *bench) drainInto(ctx context.Context, f *fastpaca, dir string, conversations int, result *trimResult) (err error) {
	if result.DrainPerSecond, err = f.drainRate(ctx, result.Messages); err != nil {
		return err
	}
	below, size := shrunk(ctx, dir, result.BeforeMiB/3)
	result.AfterMiB, result.ShrinkSeconds = size, below.Seconds()
	b.progress("trim: %d messages at %.0f/s, the directory went from %.0f to %.0f MiB, below a third after %.1f s", result.Messages, result.DrainPerSecond, result.BeforeMiB, result.AfterMiB, result.ShrinkSeconds)
	started := time.Now()
	if result.Differing, err = compareAll(ctx, f, conversations, result.Messages/conversations, newTexts(b.TextBytes)); err != nil {
		return err
	}
	result.ReplayPerSecond = float64(result.Messages) / time.Since(started).Seconds()
	b.progress("trim: read back at %.0f messages/s, %d differ", result.ReplayPerSecond, result.Differing)
	return f.drain(ctx)
}

// fillForArchive appends archivedEach messages to each conversation, or a few
// more, and stops the server.
func (b *bench) fillForArchive(ctx context.Context, dir string, conversations int) (stored int, err error) {
	f, err := b.startFastpaca(ctx, dir)
	if err != nil {
		return 0, err
	}
	defer f.stop()
	if err := createConversations(ctx, f, conversations); err != nil {
		return 0, err
	}
	bodies := newTexts(b.TextBytes)
	for seq := 1; seq <= archivedEach; seq += loadBatch {
		err := parallel(ctx, f, func(w *wire, worker int) error {
			var body []byte
			for i := worker; i < conversations; i += loaders {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				body = appendArchivedBatch(body[:0], i, seq, bodies)
				if _, err := w.must(201, "POST", path(conversation(i))+"/messages", body); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
		stored += conversations * loadBatch
	}
	return stored, f.drain(ctx)
}

func appendArchivedBatch(dst []byte, conversation, seq int, bodies texts) []byte {
	dst = append(dst, `{"messages":[`...)
	for i := range loadBatch {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"role":"user","parts":`...)
		dst = append(appendArchivedParts(dst, conversation, seq+i, bodies), '}')
	}
	return append(dst, "]}"...)
}

// appendArchivedParts appends the parts of a message like no other, with what
// does not survive a decoder: the order of keys, the spelling of numbers and of
// characters, white space.
func appendArchivedParts(dst []byte, conversation, seq int, bodies texts) []byte {
	dst = append(dst, `[{"z":`...)
	dst = strconv.AppendInt(dst, int64(conversation), 10)
	dst = append(dst, `.50e+1, "type":"text","a":[12345678901234567890,"\u00e9é\/"],"seq":`...)
	dst = strconv.AppendInt(dst, int64(seq), 10)
	dst = append(dst, `,"text":"`...)
	dst = append(dst, bodies.at(conversation*7+seq)...)
	return append(dst, `"}]`...)
}

// compareAll replays all conversations and counts the messages that are not as
// they were appended.
func compareAll(ctx context.Context, f *fastpaca, conversations, each int, bodies texts) (differing int, err error) {
	var counts [loaders]int
	err = parallel(ctx, f, func(w *wire, worker int) error {
		for i := worker; i < conversations; i += loaders {
			n, err := compare(ctx, w, i, each, bodies)
			if err != nil {
				return err
			}
			counts[worker] += n
		}
		return nil
	})
	for _, n := range counts {
		differing += n
	}
	return differing, err
}

// replayPage is what GET …/messages answers, as far as it is compared.
type replayPage struct {
	Messages []struct {
		Seq   int             `json:"seq"`
		Role  string          `json:"role"`
		Parts json.RawMessage `json:"parts"`
	} `json:"messages"`
}

func compare(ctx context.Context, w *wire, number, each int, bodies texts) (differing int, err error) {
	var want []byte
	for seq := 1; seq <= each; {
		if ctx.Err() != nil {
			return differing, ctx.Err()
		}
		answer, err := w.must(200, "GET", fmt.Sprintf("%s/messages?from=%d&limit=1000", path(conversation(number)), seq), nil)
		if err != nil {
			return differing, err
		}
		var page replayPage
		if err := json.Unmarshal(answer, &page); err != nil {
			return differing, err
		}
		if len(page.Messages) == 0 {
			return differing, fmt.Errorf("%s ends at %d of %d", conversation(number), seq-1, each)
		}
		for _, m := range page.Messages {
			want = appendArchivedParts(want[:0], number, seq, bodies)
			if m.Seq != seq || m.Role != "user" || !bytes.Equal(m.Parts, want) {
				differing++
			}
			seq++
		}
	}
	return differing, nil
}

// drainRate returns the messages archived per second from the first to the
// last.
func (f *fastpaca) drainRate(ctx context.Context, stored int) (float64, error) {
	first, err := f.awaitArchive(ctx, func(m archiveMetrics) bool { return m.messages > 0 })
	if err != nil {
		return 0, err
	}
	started := time.Now()
	last, err := f.awaitArchive(ctx, func(m archiveMetrics) bool { return m.messages >= float64(stored) && m.conversations == 0 })
	return (last.messages - first.messages) / time.Since(started).Seconds(), err
}

// shrunk waits, within bounds, until the directory is below the limit and shrinks
// no more, and returns its size in MiB and after how long it was below the limit,
// 0 if it never was.
func shrunk(ctx context.Context, dir string, limit float64) (below time.Duration, size float64) {
	ctx, cancel := context.WithTimeout(ctx, shrinkTime)
	defer cancel()
	const change = 1.0 // MiB; less is none
	started := time.Now()
	least, since := mebibytes(diskUsage(dir)), started
	for {
		now := time.Now()
		if size = mebibytes(diskUsage(dir)); size < least-change {
			least, since = size, now
		}
		if below == 0 && size < limit {
			below = now.Sub(started)
		}
		if below > 0 && now.Sub(since) >= restTime || ctx.Err() != nil {
			return below, size
		}
		pause(ctx, 200*time.Millisecond)
	}
}

// writeAheadLogs sums the sizes of the logs of Pebble.
func writeAheadLogs(dir string) (sum int64) {
	_ = filepath.Walk(dir, func(name string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() && filepath.Ext(name) == ".log" {
			sum += info.Size()
		}
		return nil
	})
	return sum
}

// copyRows has psql copy the archived rows into the same tables of another
// database, and returns the rows per second.
func (b *bench) copyRows(ctx context.Context, p *postgres, rows int) (float64, error) {
	const name = "copied"
	if err := p.makeDatabase(ctx, name); err != nil {
		return 0, err
	}
	if out, err := exec.CommandContext(ctx, b.Binary, "archive", "migrate", "--archive-url", p.database(name)).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	psql, err := process.FindPostgres("psql")
	if err != nil {
		return 0, err
	}
	file := filepath.Join(b.dir, "rows")
	run := func(database, command string) error {
		out, err := exec.CommandContext(ctx, psql, p.database(database), "-c", command).CombinedOutput()
		if err != nil {
			return fmt.Errorf("psql: %w: %s", err, bytes.TrimSpace(out))
		}
		return nil
	}
	// In the order in which messages were appended, as archiving sees them.
	if err := run(historyDatabase, fmt.Sprintf(`\copy (select * from messages order by (seq - 1) / %d, conversation_id, seq) to %s`, loadBatch, file)); err != nil {
		return 0, err
	}
	started := time.Now()
	if err := run(name, `\copy messages from `+file); err != nil {
		return 0, err
	}
	return float64(rows) / time.Since(started).Seconds(), os.Remove(file)
}
