package raftlog

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/storage"
)

// These tests prove that the state machine may commit without a sync beside a
// synced log. A writer does what Raft and the state machine do: it stores
// entries (acknowledged once durable), sometimes takes the newest back and
// stores others, applies them in unsynced batches with the applied index, and
// truncates the log below that index, unsynced as well. After a crash at any
// moment each group must show:
//
//   - every acknowledged entry that was not truncated, as it was acknowledged;
//   - the state of exactly the entries 1 to applied, none missing, none above;
//   - a log that begins no later than applied+1 and ends no earlier than
//     applied: what the state lacks, the log has.

const (
	crashDir    = "RAFTLOG_TEST_CRASH_DIR"
	crashGroups = 4
	crashTail   = 10 // entries kept below the applied index
)

func stateKey(group uint16, index uint64) []byte {
	return binary.BigEndian.AppendUint64(storage.AppendPrefix(nil, storage.SpaceMessage, group), index)
}

func appliedKey(group uint16) []byte { return storage.AppendPrefix(nil, storage.SpaceMeta, group) }

func content(group uint16, index, term uint64) []byte {
	return fmt.Appendf(nil, "group %d entry %d term %d %0*d", group, index, term, int(index%300), 0)
}

// writer is one group's Raft and state machine.
type writer struct {
	log     *Log
	db      *pebble.DB
	group   uint16
	term    uint64
	applied uint64
	ack     func(group uint16, index, term uint64)
	rng     *rand.Rand
}

func newWriter(db *pebble.DB, group uint16, seed uint64, ack func(uint16, uint64, uint64)) (*writer, error) {
	l, err := Open(db, group, Options{})
	if err != nil {
		return nil, err
	}
	w := &writer{log: l, db: db, group: group, ack: ack, rng: rand.New(rand.NewPCG(seed, uint64(group)))}
	if w.applied, err = appliedIndex(db, group); err != nil {
		return nil, err
	}
	last, _ := l.LastIndex()
	if last > 0 {
		if w.term, _, err = l.TermAt(last); err != nil {
			return nil, err
		}
	}
	w.term++
	return w, w.apply(last) // what a start replays
}

func appliedIndex(db *pebble.DB, group uint16) (uint64, error) {
	value, closer, err := db.Get(appliedKey(group))
	if err == pebble.ErrNotFound {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(value), closer.Close()
}

// step stores, and mostly applies, one to three entries.
func (w *writer) step() error {
	last, _ := w.log.LastIndex()
	n := 1 + w.rng.Uint64N(3)
	if err := w.store(last+1, last+n); err != nil {
		return err
	}
	if w.rng.IntN(10) == 0 { // a new leader had others
		if err := w.log.DeleteRange(last+n, last+n); err != nil {
			return err
		}
		w.term++
		if err := w.store(last+n, last+n); err != nil {
			return err
		}
	}
	for index := last + 1; index <= last+n; index++ {
		term, _, err := w.log.TermAt(index)
		if err != nil {
			return err
		}
		w.ack(w.group, index, term)
	}
	if err := w.apply(last + n); err != nil {
		return err
	}
	if first, _ := w.log.FirstIndex(); w.applied > first+2*crashTail {
		return w.log.DeleteRange(first, w.applied-crashTail)
	}
	return nil
}

func (w *writer) store(from, to uint64) error {
	var logs []*raft.Log
	for i := from; i <= to; i++ {
		logs = append(logs, &raft.Log{Index: i, Term: w.term, Data: content(w.group, i, w.term)})
	}
	return w.log.StoreLogs(logs)
}

func (w *writer) apply(to uint64) error {
	for w.applied < to {
		var e raft.Log
		if err := w.log.GetLog(w.applied+1, &e); err != nil {
			return err
		}
		b := w.db.NewBatch()
		_ = b.Set(stateKey(w.group, e.Index), e.Data, nil)
		_ = b.Set(appliedKey(w.group), binary.BigEndian.AppendUint64(nil, e.Index), nil)
		if err := b.Commit(pebble.NoSync); err != nil {
			return err
		}
		if err := b.Close(); err != nil {
			return err
		}
		w.applied++
	}
	return nil
}

// acks are the acknowledged entries: the term by group and index.
type acks [crashGroups]map[uint64]uint64

func (a *acks) add(group uint16, index, term uint64) {
	if a[group] == nil {
		a[group] = map[uint64]uint64{}
	}
	a[group][index] = term
}

// requireRecovered checks the directory after a crash.
func requireRecovered(t *testing.T, e *storage.Engine, acked *acks) {
	t.Helper()
	for group := range uint16(crashGroups) {
		l := mustLog(t, e, group)
		first, _ := l.FirstIndex()
		last, _ := l.LastIndex()
		applied, err := appliedIndex(e.DB(), group)
		require.NoError(t, err)
		require.LessOrEqual(t, applied, last, "group %d: state is ahead of the log", group)
		require.LessOrEqual(t, first, applied+1, "group %d: a hole between state and log", group)
		for index, term := range acked[group] {
			require.LessOrEqual(t, index, last, "group %d: acknowledged entry is lost", group)
			if index < first {
				continue // truncated, so the state has it: checked below
			}
			var got raft.Log
			require.NoError(t, l.GetLog(index, &got))
			if got.Term != term || string(got.Data) != string(content(group, index, term)) {
				t.Fatalf("group %d: entry %d is %q of term %d, acknowledged with term %d", group, index, got.Data, got.Term, term)
			}
		}
		for index := max(first, 1); index <= last; index++ {
			require.NoError(t, l.GetLog(index, &raft.Log{}), "group %d: hole in the log", group)
		}
		requireState(t, e.DB(), group, applied, acked[group])
	}
}

func requireState(t *testing.T, db *pebble.DB, group uint16, applied uint64, acked map[uint64]uint64) {
	t.Helper()
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: stateKey(group, 0), UpperBound: stateKey(group, ^uint64(0))})
	require.NoError(t, err)
	defer it.Close()
	next := uint64(1)
	for it.First(); it.Valid(); it.Next() {
		require.Equal(t, stateKey(group, next), it.Key(), "group %d: hole in the state", group)
		if term, ok := acked[next]; ok && string(it.Value()) != string(content(group, next, term)) {
			t.Fatalf("group %d: state of %d is %q, acknowledged with term %d", group, next, it.Value(), term)
		}
		next++
	}
	require.NoError(t, it.Error())
	require.Equal(t, applied, next-1, "group %d: the state is not that of the applied index", group)
}

// TestKilled kills a process that writes, at random moments, and starts it
// again on the same directory, with what it acknowledged checked in between.
func TestKilled(t *testing.T) {
	t.Parallel()
	const kills = 12
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	var acked acks
	for range kills {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		cmd.Stderr = os.Stderr
		stdout, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		lines := bufio.NewScanner(stdout)
		killAfter := 1 + rng.IntN(400)
		for n := 0; lines.Scan(); n++ {
			var group uint16
			var index, term uint64
			if _, err := fmt.Sscanf(lines.Text(), "ack %d %d %d", &group, &index, &term); err != nil {
				t.Fatalf("child says %q", lines.Text())
			}
			acked.add(group, index, term)
			if n == killAfter {
				require.NoError(t, cmd.Process.Kill())
			} // what it still said before it died counts as well
		}
		_ = cmd.Wait()

		opts := storage.DefaultOptions(filepath.Join(dir, "node"))
		e := mustEngine(t, opts)
		requireRecovered(t, e, &acked)
		require.NoError(t, e.Close())
	}
}

// crashChild writes until it is killed, and tells what was acknowledged.
func crashChild(dir string) {
	die := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	opts := storage.DefaultOptions(filepath.Join(dir, "node"))
	opts.MemTableBytes = 1 << 20
	e, err := storage.Open(opts)
	if err != nil {
		die(err)
	}
	var wg sync.WaitGroup
	for group := range uint16(crashGroups) {
		w, err := newWriter(e.DB(), group, uint64(os.Getpid()), func(group uint16, index, term uint64) {
			// One write per line, so a kill cuts between lines.
			_, _ = os.Stdout.WriteString(fmt.Sprintf("ack %d %d %d\n", group, index, term))
		})
		if err != nil {
			die(err)
		}
		wg.Go(func() {
			for {
				if err := w.step(); err != nil {
					die(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestPowerLost cuts the power instead: what was not synced is lost in random
// parts, in any order. It is the harder case, since a killed process loses
// nothing that it has written.
func TestPowerLost(t *testing.T) {
	t.Parallel()
	const cuts, stepsPerCut = 20, 15
	fsys := vfs.NewCrashableMem()
	e := mustEngine(t, engineOptions(fsys))
	rng := rand.New(rand.NewPCG(3, 4))

	var mu sync.Mutex // guards acked
	var acked acks
	copyOfAcked := func() *acks {
		mu.Lock()
		defer mu.Unlock()
		var c acks
		for group := range acked {
			for index, term := range acked[group] {
				c.add(uint16(group), index, term)
			}
		}
		return &c
	}
	tokens := make(chan struct{}, cuts*stepsPerCut*crashGroups)
	var wg sync.WaitGroup
	for group := range uint16(crashGroups) {
		w, err := newWriter(e.DB(), group, 5, func(group uint16, index, term uint64) {
			mu.Lock()
			defer mu.Unlock()
			acked.add(group, index, term)
		})
		require.NoError(t, err)
		wg.Go(func() {
			for range tokens {
				if err := w.step(); err != nil {
					t.Errorf("step: %v", err)
				}
			}
		})
	}
	for range cuts {
		for range crashGroups * stepsPerCut {
			tokens <- struct{}{}
		}
		for left := rng.IntN(crashGroups * stepsPerCut); len(tokens) > left; {
			runtime.Gosched()
		}
		before := copyOfAcked()
		after := fsys.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		crashed := mustEngine(t, engineOptions(after))
		requireRecovered(t, crashed, before)
		require.NoError(t, crashed.Close())
	}
	close(tokens)
	wg.Wait()
	require.NoError(t, e.Close())
}
