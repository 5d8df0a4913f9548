package consensus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDirEnv); dir != "" {
		crashChild(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// patience bounds every wait of the tests.
const patience = 20 * time.Second

// journal is a state machine that remembers every command.
type journal struct {
	mu       sync.Mutex
	Last     uint64   `json:"last"`
	Commands []string `json:"commands"`
	// block, when not nil, is received from before each Apply.
	block chan struct{}
	// captureErr is returned by Capture.
	captureErr error
}

func (j *journal) Apply(index uint64, command []byte) any {
	if j.block != nil {
		<-j.block
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if index > j.Last {
		j.Last = index
		j.Commands = append(j.Commands, string(command))
	}
	return len(j.Commands)
}

func (j *journal) Capture() (func(io.Writer) error, error) {
	if j.captureErr != nil {
		return nil, j.captureErr
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	data, err := json.Marshal(j)
	return func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}, err
}

func (j *journal) Restore(r io.Reader) error {
	var restored journal
	if err := json.NewDecoder(r).Decode(&restored); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.Last, j.Commands = restored.Last, restored.Commands
	return nil
}

func (j *journal) commands() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string(nil), j.Commands...)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func singleConfig(dir string) Config {
	return Config{
		ID:               "c1",
		Dir:              dir,
		Machine:          &journal{},
		Logger:           quiet(),
		HeartbeatTimeout: 200 * time.Millisecond,
	}
}

func mustOpen(t testing.TB, cfg Config) *Member {
	t.Helper()
	m, err := Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// mustLead waits until the member leads.
func mustLead(t testing.TB, m *Member) {
	t.Helper()
	deadline := time.After(patience)
	for {
		l, changed := m.Leadership()
		if l.Leading {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("member does not lead: %+v, %+v", l, m.Status())
		}
	}
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func mustPropose(t testing.TB, m *Member, command string) Result {
	t.Helper()
	result, err := m.Propose(testContext(t), []byte(command))
	require.NoError(t, err)
	return result
}

// tcpStream is a Stream over loopback TCP that a test can cut.
type tcpStream struct {
	net.Listener
	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

func mustListen(t testing.TB) *tcpStream {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return &tcpStream{Listener: listener}
}

var errCut = errors.New("cut")

func (s *tcpStream) Dial(ctx context.Context, _, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return s.admit(conn)
}

func (s *tcpStream) Accept() (net.Conn, error) {
	for {
		conn, err := s.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if admitted, err := s.admit(conn); err == nil {
			return admitted, nil
		}
	}
}

func (s *tcpStream) admit(conn net.Conn) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut {
		return nil, errors.Join(errCut, conn.Close())
	}
	s.conns = append(s.conns, conn)
	return conn, nil
}

// setCut cuts all connections and refuses new ones, or ends that.
func (s *tcpStream) setCut(cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = cut
	if cut {
		for _, conn := range s.conns {
			_ = conn.Close()
		}
		s.conns = nil
	}
}

func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := t.TempDir()
	require.NoError(t, os.CopyFS(to, os.DirFS(from)))
	return to
}

func flipBit(t testing.TB, path string, at int64, bit uint) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	data[at] ^= 1 << bit
	require.NoError(t, os.WriteFile(path, data, 0o600))
}

func mustReadFile(t testing.TB, elements ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elements...))
	require.NoError(t, err)
	return bytes.Clone(data)
}
