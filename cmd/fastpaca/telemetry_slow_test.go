package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/archive"
	"github.com/fastpaca/fastpaca/dataplane/group"
	"github.com/fastpaca/fastpaca/dataplane/node"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// slowLink passes connections on to an address, and delays what they carry while
// it is told to.
type slowLink struct {
	listener net.Listener
	to       string
	delay    atomic.Int64 // nanoseconds of each piece, towards the address

	mu    sync.Mutex // guards conns
	conns []net.Conn
	done  sync.WaitGroup
}

func newSlowLink(t *testing.T, to string) *slowLink {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := &slowLink{listener: listener, to: to}
	l.done.Go(l.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		l.mu.Lock()
		for _, conn := range l.conns {
			_ = conn.Close()
		}
		l.mu.Unlock()
		l.done.Wait()
	})
	return l
}

func (l *slowLink) accept() {
	for {
		from, err := l.listener.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", l.to)
		if err != nil {
			_ = from.Close() // whoever dialled tries again
			continue
		}
		l.mu.Lock()
		l.conns = append(l.conns, from, to)
		l.mu.Unlock()
		l.done.Go(func() { l.pass(to, from, &l.delay) })
		l.done.Go(func() { l.pass(from, to, new(atomic.Int64)) })
	}
}

// pass copies until either side closes, and closes both.
func (l *slowLink) pass(to, from net.Conn, delay *atomic.Int64) {
	defer func() { _ = errors.Join(to.Close(), from.Close()) }()
	var buf [32 << 10]byte
	for {
		n, err := from.Read(buf[:])
		if d := time.Duration(delay.Load()); d > 0 {
			<-time.After(d)
		}
		if _, writeErr := to.Write(buf[:n]); err != nil || writeErr != nil {
			return
		}
	}
}

// The goal: a slow link between a router and a data node shows in the stage that
// is the way between them, at the /metrics of a running cluster. Slow disks, slow
// followers and slow state machines are put into a group by its own test.
func TestASlowLinkIsNamed(t *testing.T) {
	const delay, appends = 50 * time.Millisecond, 5
	addresses, err := freeAddresses(4)
	require.NoError(t, err)
	control, data, public, ops := addresses[0], addresses[1], addresses[2], addresses[3]
	link := newSlowLink(t, data)
	dir := t.TempDir()
	startRole(t, io.Discard, "control", "--id", "c1", "--data-dir", dir, "--listen", control, "--replication-factor", "1")
	startRole(t, io.Discard, "data", "--id", "d1", "--data-dir", dir, "--listen", data, "--advertise", link.listener.Addr().String(),
		"--control", control, "--ops-listen", ops)
	startRole(t, io.Discard, "router", "--listen", public, "--control", control)
	waitReady(t, public)
	require.Eventually(t, func() bool {
		return request(t, http.MethodPut, public, "/v1/conversations/c", `{}`) == http.StatusOK
	}, 30*time.Second, 20*time.Millisecond)
	link.delay.Store(int64(delay))
	for range appends {
		require.Equal(t, http.StatusCreated, request(t, http.MethodPost, public, "/v1/conversations/c/messages", oneMessage))
	}
	sums := sumsOf(t, scrape(t, public), appends)
	for stage, sum := range sumsOf(t, scrape(t, ops), appends) {
		sums[stage] = sum
	}
	require.Len(t, sums, int(stages))
	delete(sums, "total")
	slowest := "forward"
	for stage, sum := range sums {
		if sum > sums[slowest] {
			slowest = stage
		}
	}
	require.Equal(t, "forward", slowest, "%v", sums)
	require.GreaterOrEqual(t, sums["forward"], (appends * delay).Seconds())
}

// What a replica says of its stages is counted under their names.
func TestStagesOfAReplicaAreNamed(t *testing.T) {
	t.Parallel()
	m, _ := newMeasured(false, true)
	nodeMeasure{m}.Appended(nil, group.Stages{Queue: 1, LogSync: 20, Replicate: 300, Apply: 4000}, nil)
	nodeMeasure{m}.Appended(nil, group.Stages{Queue: 1, LogSync: 20, Replicate: -1, Apply: -1}, rpc.ErrOutcomeUnknown)
	for stage, want := range map[stage]int64{stageQueue: 1, stageLogSync: 20, stageReplicate: 300, stageApply: 4000, stageTotal: 0} {
		require.Equal(t, want, m.appends[stage][outcomeOK].sum.Load(), stageNames[stage])
	}
	require.EqualValues(t, 20, m.appends[stageLogSync][outcomeUnknown].sum.Load())
	require.Zero(t, m.appends[stageReplicate][outcomeUnknown].sum.Load(), "it was not reached")
}

// deliveries counts writes of news to the clients of a transport.
func deliveries(families map[string]*dto.MetricFamily, transport string) uint64 {
	for _, m := range families["fastpaca_stream_delivery_duration_seconds"].GetMetric() {
		if labelsOf(m)["transport"] == transport {
			return m.GetHistogram().GetSampleCount()
		}
	}
	return 0
}

// Messages are counted as delivered when they were news to a client, and not
// when it catches up.
func TestStreamDeliveryIsMeasured(t *testing.T) {
	address := startServer(t, io.Discard)
	require.Equal(t, http.StatusOK, request(t, http.MethodPut, address, "/v1/conversations/c", `{}`))
	require.Equal(t, http.StatusCreated, request(t, http.MethodPost, address, "/v1/conversations/c/messages", oneMessage))
	resp, err := http.Get(fmt.Sprintf("http://%s/v1/conversations/c/events?from=1", address))
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	events := bufio.NewScanner(resp.Body)
	await := func(event string) {
		t.Helper()
		for events.Scan() {
			if events.Text() == "event: "+event {
				return
			}
		}
		t.Fatalf("no %s: %v", event, events.Err())
	}
	await("message")
	await("caught_up")
	require.Zero(t, deliveries(scrape(t, address), "sse"))
	require.Equal(t, http.StatusCreated, request(t, http.MethodPost, address, "/v1/conversations/c/messages", oneMessage))
	await("message")
	require.Eventually(t, func() bool { return deliveries(scrape(t, address), "sse") == 1 }, 30*time.Second, 10*time.Millisecond)
}

// brokenArchive fails to read.
type brokenArchive struct{ node.ArchiveStore }

func (brokenArchive) Write(context.Context, []archive.Run) ([][32]byte, error) { return nil, nil }
func (brokenArchive) Messages(context.Context, archive.Range) ([]rpc.Message, error) {
	return nil, rpc.ErrArchiveUnavailable
}

func TestCallsOfTheArchiveAreMeasured(t *testing.T) {
	var p parts
	telemetry, err := openTelemetry(roleData, "", slog.New(slog.DiscardHandler), &p)
	require.NoError(t, err)
	telemetry.measureArchive(nil, &p) // a node without an archive
	conf := &node.ArchiveConfig{Store: brokenArchive{}}
	telemetry.measureArchive(conf, &p)
	runs := []archive.Run{{Messages: []rpc.Message{{Seq: 1, JSON: []byte("{}")}, {Seq: 2, JSON: []byte("[1]")}}}}
	_, err = conf.Store.Write(t.Context(), runs)
	require.NoError(t, err)
	conf.Store.(*measuredArchive).seed.flushed(runs, time.Millisecond, rpc.ErrArchiveUnavailable)
	_, err = conf.Store.Messages(t.Context(), archive.Range{})
	require.ErrorIs(t, err, rpc.ErrArchiveUnavailable)
	families, err := telemetry.sdk.Gather()
	require.NoError(t, err)
	counts := map[string]uint64{}
	for _, family := range families {
		if family.GetName() == "fastpaca_archive_operation_duration_seconds" {
			for _, m := range family.GetMetric() {
				labels := labelsOf(m)
				counts[labels["operation"]+" "+labels["outcome"]] = m.GetHistogram().GetSampleCount()
			}
		}
	}
	families, err = telemetry.registry.Gather()
	require.NoError(t, err)
	for _, family := range families {
		if m := family.GetMetric()[0]; strings.HasPrefix(family.GetName(), "fastpaca_archive_") {
			counts[family.GetName()] = uint64(m.GetCounter().GetValue()) + m.GetHistogram().GetSampleCount()
		}
	}
	require.Equal(t, map[string]uint64{
		"fastpaca_archive_attempted_total": 4, "fastpaca_archive_inserted_total": 2, "fastpaca_archive_flush_duration_ms": 2,
		"fastpaca_archive_bytes_attempted_total": 10, "fastpaca_archive_bytes_inserted_total": 5,
		"write ok": 1, "read ok": 0, "read failed": 1,
	}, counts)
	require.NoError(t, p.stop(t.Context()))
}
