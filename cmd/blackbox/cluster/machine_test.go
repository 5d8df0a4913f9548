package cluster

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// stallTolerated is how long the machine may hold everybody up before a
	// test no longer holds failures against the servers: they give requests
	// two seconds, and elections start after one.
	stallTolerated = 300 * time.Millisecond
	// stallInterval is how often the machine is looked at.
	stallInterval = 50 * time.Millisecond
)

// machine watches what no server can do anything about: how long this process,
// which does next to nothing, waits for a processor and for the disk.
// Goroutines: run.
type machine struct {
	mu      sync.Mutex // guards longest
	longest time.Duration
}

// watchMachine watches until the test ends.
func watchMachine(t *testing.T) *machine {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "stalls"))
	require.NoError(t, err)
	m := &machine{}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { m.run(ctx, file) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		_ = file.Close()
	})
	return m
}

func (m *machine) run(ctx context.Context, file *os.File) {
	for {
		began := time.Now()
		if _, err := file.WriteAt([]byte{1}, 0); err != nil || file.Sync() != nil {
			return // the test fails by itself on such a disk
		}
		if pause(ctx, stallInterval) != nil {
			return
		}
		took := time.Since(began) - stallInterval
		m.mu.Lock()
		m.longest = max(m.longest, took)
		m.mu.Unlock()
	}
}

// blame fails the test for what went wrong since reset, unless the machine stood
// still meanwhile.
func (m *machine) blame(t *testing.T, format string, args ...any) {
	t.Helper()
	m.mu.Lock()
	longest := m.longest
	m.mu.Unlock()
	if longest <= stallTolerated {
		t.Errorf(format, args...)
		return
	}
	t.Logf("not judged, because the machine stood still for %v: "+format, append([]any{longest}, args...)...)
}

// reset forgets the stalls so far.
func (m *machine) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.longest = 0
}
