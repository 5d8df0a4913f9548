package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

const (
	historyConversations = 50
	historyBatch         = 10 // messages of one append
	historyShort         = 10_000
	historyLong          = 100_000
)

// parts is the JSON of the parts of a message like no other, with what does not
// survive a decoder: the order of keys, the spelling of numbers and characters,
// white space. Its text is hard to compress.
func parts(conversation, seq int) string {
	noise := rand.New(rand.NewPCG(uint64(conversation), uint64(seq)))
	var text strings.Builder
	for range 20 {
		fmt.Fprintf(&text, " %x", noise.Uint64())
	}
	return fmt.Sprintf(`[{"z":%d.50e+1, "type":"text","a":[12345678901234567890,"\u00e9é\/"],"n":%d,"text":"%s"}]`, conversation, seq, text.String())
}

// Everything is appended, stopped, archived and trimmed to almost nothing; then
// all of it reads back byte for byte, and its room on the disk has come back
// without a restart.
func TestWholeHistory(t *testing.T) {
	t.Parallel()
	total := historyLong
	if testing.Short() {
		total = historyShort
	}
	each := total / historyConversations
	p := newPostgres(t)
	dir := t.TempDir()
	plain := process.MustStart(t, process.Config{DataDir: dir})
	inParallel(t, plain.URL(), func(c *client.Client, conversation int, id string) error {
		if err := c.Create(t.Context(), id); err != nil {
			return err
		}
		for seq := 1; seq <= each; seq += historyBatch {
			var body strings.Builder
			body.WriteString(`{"messages":[`)
			for i := range historyBatch {
				fmt.Fprintf(&body, `{"role":"user","parts":%s},`, parts(conversation, seq+i))
			}
			if _, err := c.Append(t.Context(), id, []byte(strings.TrimSuffix(body.String(), ",")+"]}")); err != nil {
				return err
			}
		}
		return nil
	})
	plain.MustStop(t)
	before := size(t, dir)

	url := p.database(database)
	s := &server{t: t, url: url, cfg: process.Config{
		DataDir: dir, Args: []string{"--archive-url", url, "--archive-interval", "50ms", "--tail-keep", "10"},
	}}
	s.start()
	ids := make([]string, historyConversations)
	for i := range ids {
		ids[i] = historyID(i)
	}
	began := time.Now()
	s.awaitArchived(ids...)
	t.Logf("%d messages archived within %v", total, time.Since(began))
	inParallel(t, s.Server.URL(), func(c *client.Client, conversation int, id string) error {
		_, log, err := c.Verified(t.Context(), id)
		if err == nil && len(log) != each {
			err = fmt.Errorf("%s has %d messages", id, len(log))
		}
		for i := 0; err == nil && i < len(log); i++ {
			if want := parts(conversation, i+1); string(log[i].Parts) != want {
				err = fmt.Errorf("%s: message %d is %s, want %s", id, i+1, log[i].Parts, want)
			}
		}
		return err
	})
	if !testing.Short() { // below that, logs of fixed size outweigh the messages
		require.Eventually(t, func() bool { return size(t, dir).all() < before.tables/3 }, 2*time.Minute, 100*time.Millisecond)
	}
	t.Logf("the directory was %v and is %v, %v after", before, size(t, dir), time.Since(began))
	verify(t, s.Server.URL(), url, historyConversations, total)
}

func historyID(i int) string { return fmt.Sprintf("history-%d", i) }

// inParallel calls f for every conversation of the history.
func inParallel(t *testing.T, base string, f func(c *client.Client, conversation int, id string) error) {
	t.Helper()
	c := client.New(base)
	defer c.Close()
	var work errgroup.Group
	work.SetLimit(8)
	for i := range historyConversations {
		work.Go(func() error { return f(c, i, historyID(i)) })
	}
	require.NoError(t, work.Wait())
}

// usage is the size of a data directory, in MiB.
type usage struct{ tables, logs, rest float64 }

func (u usage) all() float64 { return u.tables + u.logs + u.rest }

func (u usage) String() string {
	return fmt.Sprintf("%.1f MiB (%.1f of tables, %.1f of write-ahead logs)", u.all(), u.tables, u.logs)
}

func size(t *testing.T, dir string) (u usage) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return ignoreGone(err)
		}
		info, err := entry.Info()
		if err != nil {
			return ignoreGone(err)
		}
		n := float64(info.Size()) / (1 << 20)
		switch filepath.Ext(path) {
		case ".sst":
			u.tables += n
		case ".log":
			u.logs += n
		default:
			u.rest += n
		}
		return nil
	})
	require.NoError(t, err)
	return u
}

// ignoreGone forgives files that a server deletes while they are listed.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
