package consensus

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/raftslog"
)

func TestSingleMember(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := mustOpen(t, singleConfig(dir))
	mustLead(t, m)
	for i := range 5 {
		result := mustPropose(t, m, fmt.Sprint("command ", i))
		require.Equal(t, i+1, result.Value)
		require.NotZero(t, result.Index)
	}
	require.NoError(t, m.Barrier(testContext(t)))
	term := m.Status().Term
	require.NoError(t, m.Close())
	require.NoError(t, m.Close(), "closing twice is fine")

	cfg := singleConfig(dir)
	m = mustOpen(t, cfg)
	mustLead(t, m)
	require.Equal(t, []string{"command 0", "command 1", "command 2", "command 3", "command 4"}, cfg.Machine.(*journal).commands())
	require.Greater(t, m.Status().Term, term)
	require.NoError(t, m.Status().StorageError)
	l, _ := m.Leadership()
	require.Equal(t, "c1", l.LeaderID)
}

func TestSnapshotShortensTheLogAndSurvivesRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := singleConfig(dir)
	cfg.SnapshotThreshold = 4
	m := mustOpen(t, cfg)
	mustLead(t, m)
	var want []string
	for i := range 20 {
		command := fmt.Sprint("command ", i)
		want = append(want, command)
		mustPropose(t, m, command)
		if i%7 == 0 {
			require.NoError(t, m.Snapshot())
		}
	}
	require.NoError(t, m.Snapshot())
	require.NoError(t, m.Snapshot(), "nothing new is no error")
	require.Greater(t, m.store.first.Load(), uint64(10))
	names, err := m.snapshots.names()
	require.NoError(t, err)
	require.Len(t, names, snapshotsKept)
	mustPropose(t, m, "after")
	require.NoError(t, m.Close())

	cfg.Machine = &journal{}
	m = mustOpen(t, cfg)
	mustLead(t, m)
	require.Equal(t, append(want, "after"), cfg.Machine.(*journal).commands())
}

func TestStateThatMustNotBeCapturedKeepsTheLog(t *testing.T) {
	t.Parallel()
	cfg := singleConfig(t.TempDir())
	refusal := errors.New("not now")
	cfg.Machine = &journal{captureErr: refusal}
	m := mustOpen(t, cfg)
	mustLead(t, m)
	mustPropose(t, m, "x")
	require.Error(t, m.Snapshot())
	require.Equal(t, uint64(1), m.store.first.Load())
}

func TestConfigValidateJoinsAllProblems(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*Config)
		want   []string
	}{
		"empty":       {func(c *Config) { *c = Config{} }, []string{"id is empty", "data directory is empty", "state machine is missing", "logger is missing"}},
		"not a peer":  {func(c *Config) { c.Peers = map[string]string{"c2": "x"} }, []string{"do not name this member"}},
		"two members": {func(c *Config) { c.Peers = map[string]string{"c1": "x", "c2": "y"} }, []string{"want 1, 3 or 5", "stream is needed"}},
		"odd ids":     {func(c *Config) { c.ID = "a b"; c.Peers = map[string]string{"a b": ""} }, []string{`id "a b"`, `peer id "a b"`}},
		"addresses":   {func(c *Config) { c.Peers = map[string]string{"c1": "x", "c2": "x", "c3": ""} }, []string{"peers c1 and c2 have", "c3 has no address"}},
		"negative":    {func(c *Config) { c.HeartbeatTimeout = -1 }, []string{"negative"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := singleConfig("somewhere")
			test.change(&cfg)
			err := cfg.Validate()
			for _, want := range test.want {
				require.ErrorContains(t, err, want)
			}
			_, err = Open(cfg)
			require.Error(t, err)
		})
	}
}

func TestOpenRefusesAnotherDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := mustOpen(t, singleConfig(dir))
	_, err := Open(singleConfig(dir))
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, m.Close())

	cfg := singleConfig(dir)
	cfg.ID = "c2"
	_, err = Open(cfg)
	require.ErrorIs(t, err, ErrWrongDirectory)

	cfg = singleConfig(dir)
	cfg.Peers = map[string]string{"c1": "a", "c2": "b", "c3": "c"}
	cfg.Stream = mustListen(t)
	_, err = Open(cfg)
	require.ErrorIs(t, err, ErrWrongDirectory)

	require.NoError(t, os.Remove(filepath.Join(dir, identityFile)))
	_, err = Open(singleConfig(dir))
	require.ErrorIs(t, err, ErrWrongDirectory)
	require.NoError(t, writeIdentity(dir, "c1"))

	require.NoError(t, os.Remove(filepath.Join(dir, storeFile)))
	_, err = Open(singleConfig(dir))
	require.ErrorIs(t, err, ErrCorrupt)
}

func TestOpenRefusesANewerFormat(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	body := []byte(`{"format":2,"id":"c1"}`)
	content := append(append(body, '\n'), identityChecksum(body)...)
	require.NoError(t, os.WriteFile(filepath.Join(dir, identityFile), content, 0o600))
	_, err := Open(singleConfig(dir))
	require.ErrorIs(t, err, ErrWrongDirectory)
	require.ErrorContains(t, err, "format 2")
}

// An interrupted first start leaves one of these; the next start must finish it.
func TestOpenFinishesAnInterruptedFirstStart(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(t *testing.T, dir string){
		"empty store file": func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, storeFile), nil, 0o600))
		},
		"torn store file": func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, storeFile), make([]byte, os.Getpagesize()), 0o600))
		},
		"empty store": func(t *testing.T, dir string) {
			s, err := openStore(dir, false, quiet())
			require.NoError(t, err)
			require.NoError(t, s.close())
		},
		"term without members": func(t *testing.T, dir string) {
			s, err := openStore(dir, false, quiet())
			require.NoError(t, err)
			require.NoError(t, s.SetUint64(currentTermKey, 1))
			require.NoError(t, s.close())
		},
		"all but the identity": func(t *testing.T, dir string) {
			m := &Member{cfg: singleConfig(dir).withDefaults(), logger: quiet()}
			require.NoError(t, m.openStorage())
			require.NoError(t, m.store.close())
			require.NoError(t, os.Remove(filepath.Join(dir, identityFile)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			prepare(t, dir)
			m := mustOpen(t, singleConfig(dir))
			mustLead(t, m)
			mustPropose(t, m, "works")
		})
	}
}

func TestProposeRefusals(t *testing.T) {
	t.Parallel()
	m := mustOpen(t, singleConfig(t.TempDir()))
	mustLead(t, m)
	_, err := m.Propose(testContext(t), make([]byte, MaxCommandBytes+1))
	require.ErrorIs(t, err, ErrTooLarge)

	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = m.Propose(ended, []byte("x"))
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, ErrOutcomeUnknown)

	require.NoError(t, m.Close())
	_, err = m.Propose(testContext(t), []byte("x"))
	require.ErrorIs(t, err, ErrClosed)
	require.ErrorIs(t, m.Snapshot(), ErrClosed)
	l, _ := m.Leadership()
	require.False(t, l.Leading)
}

// Goal: every proposal is answered, whatever happens to it. The state machine
// is stopped, so proposals pile up; their number is bounded; one whose context
// ends and those that Close gives up on report that their outcome is unknown.
func TestPendingProposalsAreBoundedAndAnswered(t *testing.T) {
	t.Parallel()
	cfg := singleConfig(t.TempDir())
	machine := &journal{block: make(chan struct{})}
	cfg.Machine = machine
	m := mustOpen(t, cfg)
	mustLead(t, m)

	answers := make(chan error, 2*maxPending)
	for range 2 * maxPending {
		go func() {
			_, err := m.Propose(context.Background(), []byte("x"))
			answers <- err
		}()
	}
	for range maxPending {
		require.ErrorIs(t, <-answers, ErrOverloaded, "as many as do not fit are refused at once")
	}
	released := make(chan struct{})
	go func() {
		defer close(released)
		for range maxPending {
			machine.block <- struct{}{}
		}
	}()
	for range maxPending {
		require.NoError(t, <-answers)
	}
	<-released

	ctx, cancel := context.WithCancel(context.Background())
	unanswered := make(chan error, 1)
	go func() {
		_, err := m.Propose(ctx, []byte("never seen"))
		unanswered <- err
	}()
	require.Eventually(t, func() bool { return m.Status().LastIndex > uint64(maxPending)+3 }, patience, time.Millisecond)
	cancel()
	err := <-unanswered
	require.ErrorIs(t, err, ErrOutcomeUnknown)
	require.ErrorIs(t, err, context.Canceled)
	close(machine.block)
	require.NoError(t, m.Close())
}

func TestCloseAnswersWhatItCannotFinish(t *testing.T) {
	t.Parallel()
	cfg := singleConfig(t.TempDir())
	machine := &journal{block: make(chan struct{})}
	cfg.Machine = machine
	m := mustOpen(t, cfg)
	mustLead(t, m)
	const proposals = 10
	answers := make(chan error, proposals)
	for range proposals {
		go func() {
			_, err := m.Propose(context.Background(), []byte("x"))
			answers <- err
		}()
	}
	require.Eventually(t, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.pending == proposals
	}, patience, time.Millisecond)
	closed := make(chan error, 1)
	go func() { closed <- m.Close() }()
	for range proposals {
		err := <-answers
		require.ErrorIs(t, err, ErrOutcomeUnknown)
		require.ErrorIs(t, err, ErrClosed)
	}
	close(machine.block)
	require.NoError(t, <-closed)
}

const crashDirEnv = "CONSENSUS_CRASH_DIR"

// crashChild proposes numbers until it is killed and prints each that was
// acknowledged.
func crashChild(dir string) {
	cfg := singleConfig(dir)
	cfg.SnapshotThreshold = 50
	m, err := Open(cfg)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for {
		l, changed := m.Leadership()
		if l.Leading {
			break
		}
		<-changed
	}
	for i := len(cfg.Machine.(*journal).commands()); ; i++ {
		if _, err := m.Propose(context.Background(), []byte(strconv.Itoa(i))); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("acked", i)
		if i%60 == 0 {
			_ = m.Snapshot()
		}
	}
}

// Goal: what was acknowledged survives kill -9 at any moment, again and again
// on the same directory, snapshots included.
func TestAcknowledgedProposalsSurviveKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	acked := -1
	for round := range 6 {
		child := exec.Command(os.Args[0], "-test.run=^$")
		child.Env = append(os.Environ(), crashDirEnv+"="+dir)
		out, err := child.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, child.Start())
		lines := bufio.NewScanner(out)
		for want := 20 + 13*round; want > 0 && lines.Scan(); want-- {
			number, ok := strings.CutPrefix(lines.Text(), "acked ")
			require.True(t, ok, lines.Text())
			acked, err = strconv.Atoi(number)
			require.NoError(t, err)
		}
		require.NoError(t, child.Process.Kill())
		for lines.Scan() {
			if number, ok := strings.CutPrefix(lines.Text(), "acked "); ok {
				acked, _ = strconv.Atoi(number)
			}
		}
		_ = child.Wait()

		cfg := singleConfig(dir)
		m := mustOpen(t, cfg)
		mustLead(t, m)
		commands := cfg.Machine.(*journal).commands()
		require.Greater(t, len(commands), acked)
		for i, command := range commands {
			require.Equal(t, strconv.Itoa(i), command)
		}
		require.NoError(t, m.Close())
	}
	require.Greater(t, acked, 100)
}

func TestTransportHasPreVoteAndNoHeartbeatFastPath(t *testing.T) {
	t.Parallel()
	cfg := singleConfig(t.TempDir())
	cfg.Stream = mustListen(t)
	trans, closer := newTransport(&cfg, raftslog.New(quiet()))
	defer func() { require.NoError(t, closer.Close()) }()
	var _ raft.WithPreVote = trans
	_, closes := any(trans).(raft.WithClose)
	require.False(t, closes, "raft must not close what outlives it")
	trans.SetHeartbeatHandler(func(raft.RPC) { t.Error("the fast path was used") })
	require.Equal(t, raft.ServerAddress("c1"), trans.LocalAddr())
	require.Equal(t, []byte("c9"), trans.EncodePeer("c9", "elsewhere"))
}
