package group

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

// pause is a delay that a test turns on.
type pause struct{ nanos atomic.Int64 }

func (p *pause) set(d time.Duration) { p.nanos.Store(int64(d)) }

func (p *pause) wait() {
	if p == nil {
		return
	}
	if d := p.nanos.Load(); d > 0 {
		<-time.After(time.Duration(d))
	}
}

// pausingConn is a slow link.
type pausingConn struct {
	net.Conn
	pause *pause
}

func (c pausingConn) Write(b []byte) (int, error) {
	c.pause.wait()
	return c.Conn.Write(b)
}

// recorder remembers what a replica measured.
type recorder struct {
	mu      sync.Mutex // guards stages
	stages  []Stages
	writes  atomic.Int64
	synced  atomic.Int64
	led     atomic.Int64
	stood   atomic.Int64
	failure atomic.Pointer[error]
}

func (r *recorder) Appended(_ trace.Span, s Stages, err error) {
	if err != nil {
		r.failure.Store(&err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stages = append(r.stages, s)
}

func (r *recorder) Entry(writes int, _ int64) { r.writes.Add(int64(writes)) }
func (r *recorder) LogSynced(time.Duration)   { r.synced.Add(1) }
func (r *recorder) Stood()                    { r.stood.Add(1) }
func (r *recorder) Led(leading bool) {
	if leading {
		r.led.Add(1)
	}
}

// take returns what was measured since the last call.
func (r *recorder) take() []Stages {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.stages
	r.stages = nil
	return taken
}

// patient has leaders keep leading on a machine that is slow beside the delays of
// these tests. The first must then campaign: nobody stands by itself for long.
func patient() Timing {
	return Timing{Heartbeat: 4 * time.Second, Election: 4 * time.Second, Commit: 50 * time.Millisecond}
}

// slowest names the stage that took most of the time of all appends.
func slowest(all []Stages) (name string, took time.Duration) {
	var sum Stages
	for _, s := range all {
		sum.Queue += s.Queue
		sum.LogSync += s.LogSync
		sum.Replicate += s.Replicate
		sum.Apply += s.Apply
	}
	for _, stage := range []struct {
		name string
		took time.Duration
	}{{"queue", sum.Queue}, {"log sync", sum.LogSync}, {"replicate", sum.Replicate}, {"apply", sum.Apply}} {
		if stage.took > took {
			name, took = stage.name, stage.took
		}
	}
	return name, took
}

// The goal: a delay put into one place of an append shows in the stage that is
// named after it. One cluster is made slow in one place after the other, always
// at its leader, and the stages of five appends are added up.
func TestTheSlowStageIsNamed(t *testing.T) {
	t.Parallel()
	const delay, appends = 50 * time.Millisecond, 5
	type faults struct{ disk, apply pause }
	of := map[*replica]*faults{}
	c := newClusterOf(t, 3, 3, func(r *replica) {
		f := &faults{}
		of[r] = f
		r.measure, r.pause, r.timing = &recorder{}, &pause{}, patient()
		r.fs = errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
			switch op.Kind {
			case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
				f.disk.wait()
			}
			return nil
		}))
		r.state = state.Options{OnCommit: func([]state.Committed) { f.apply.wait() }}
	})
	c.replicas[0].group.Campaign()
	leader := c.leader()
	measured := leader.measure.(*recorder)
	c.put(leader, "k")
	for _, fault := range []struct {
		stage string
		where *pause
	}{{"log sync", &of[leader].disk}, {"replicate", leader.pause}, {"apply", &of[leader].apply}} {
		measured.take()
		fault.where.set(delay)
		for range appends {
			reply, err := c.append(leader, "k", fault.stage)
			require.NoError(t, err)
			require.GreaterOrEqual(t, reply.Took, delay, "the answer says how long the node needed")
		}
		fault.where.set(0)
		stages := measured.take()
		require.Len(t, stages, appends)
		name, took := slowest(stages)
		require.Equal(t, fault.stage, name, "%v", stages)
		require.GreaterOrEqual(t, took, appends*delay)
	}
	require.EqualValues(t, 3*appends+1, measured.writes.Load())
	require.Positive(t, measured.synced.Load())
	require.EqualValues(t, 1, measured.led.Load())
	require.Positive(t, measured.stood.Load())
}

// Appends that fail are attributed to the stage that they did not get beyond.
func TestAFailedAppendNamesItsStage(t *testing.T) {
	t.Parallel()
	c := newClusterOf(t, 3, 3, func(r *replica) { r.measure, r.timing = &recorder{}, patient() })
	c.replicas[0].group.Campaign()
	leader := c.leader()
	c.put(leader, "k")
	for _, r := range c.others(leader) {
		r.cut.set(true)
	}
	measured := leader.measure.(*recorder)
	measured.take()
	synced := measured.synced.Load()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		_, err := leader.group.Append(ctx, &rpc.AppendRequest{Key: "k", Messages: []rpc.NewMessage{message("", "lost")}})
		failed <- err
	}()
	require.Eventually(t, func() bool { return measured.synced.Load() > synced }, 30*time.Second, time.Millisecond)
	cancel()
	require.Error(t, <-failed)
	stages := measured.take()
	require.Len(t, stages, 1)
	require.NotNil(t, measured.failure.Load())
	require.Positive(t, stages[0].Replicate, "%v", stages[0])
	require.Negative(t, stages[0].Apply, "it was not reached")
}

func TestStagesDivideTheTime(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		course course
		want   Stages
	}{
		"all":                 {course{20, 50, 90}, Stages{10, 30, 40, 10}},
		"waiting":             {course{}, Stages{90, -1, -1, -1}},
		"syncing":             {course{syncing: 20}, Stages{10, 80, -1, -1}},
		"replicating":         {course{syncing: 20, synced: 50}, Stages{10, 30, 50, -1}},
		"of an earlier entry": {course{5, 7, 9}, Stages{0, 0, 0, 90}},
		"of a later entry":    {course{200, 300, 400}, Stages{90, 0, 0, 0}},
	} {
		got := tc.course.stages(10, 100)
		require.Equal(t, tc.want, got, name)
		require.EqualValues(t, 90, got.Total(), name)
	}
}
