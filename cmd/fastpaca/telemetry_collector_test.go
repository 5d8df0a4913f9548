package main

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// silentCollector accepts connections and never reads from them. It returns its
// address.
func silentCollector(t *testing.T) string {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var held []net.Conn
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		for {
			conn, err := silent.Accept()
			if err != nil {
				return
			}
			held = append(held, conn)
		}
	}()
	t.Cleanup(func() {
		_ = silent.Close()
		<-accepted
		for _, conn := range held {
			_ = conn.Close()
		}
	})
	return silent.Addr().String()
}

// impatient has exports given up soon, so that a test sees many of them.
func impatient(t *testing.T, protocol string) {
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
	for _, bound := range []string{"OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_METRIC_EXPORT_TIMEOUT", "OTEL_BSP_EXPORT_TIMEOUT"} {
		t.Setenv(bound, "200")
	}
	t.Setenv("OTEL_TRACES_SAMPLER", "always_on")
}

const (
	lostLine = "telemetry cannot be exported"
	backLine = "telemetry is exported again"
)

// A collector that is absent, or that accepts and never answers, costs appends
// nothing, and the log one line per signal.
func TestACollectorThatIsAway(t *testing.T) {
	absent, err := freeAddresses(1)
	require.NoError(t, err)
	for name, address := range map[string]string{"absent": absent[0], "silent": silentCollector(t)} {
		for _, protocol := range []string{"grpc", "http/protobuf"} {
			t.Run(name+" "+strings.ReplaceAll(protocol, "/", "-"), func(t *testing.T) {
				exporting(t, "http://"+address)
				impatient(t, protocol)
				var log lockedBuffer
				server := startServer(t, &log)
				require.Equal(t, http.StatusOK, request(t, http.MethodPut, server, "/v1/conversations/c", `{}`))
				lines := func() int { return strings.Count(log.String(), lostLine) }
				for range 5 {
					require.Equal(t, http.StatusCreated, request(t, http.MethodPost, server, "/v1/conversations/c/messages", oneMessage))
				}
				require.Eventually(t, func() bool { return lines() == 2 }, time.Minute, 10*time.Millisecond)
				for range 5 {
					require.Equal(t, http.StatusCreated, request(t, http.MethodPost, server, "/v1/conversations/c/messages", oneMessage))
				}
				require.Equal(t, 2, lines(), log.String())
				require.NotContains(t, log.String(), "level=ERROR")
			})
		}
	}
}

// A collector that dies while it is used, and comes back, is one line per signal
// each time.
func TestACollectorThatDies(t *testing.T) {
	var dead atomic.Bool
	var taken [2]atomic.Int64 // by signal
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if dead.Load() { // as a process that ends: connections are cut
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = conn.Close()
			}
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		signal := 0
		if strings.HasSuffix(r.URL.Path, "traces") {
			signal = 1
		}
		taken[signal].Add(1)
	}))
	t.Cleanup(collector.Close)
	exporting(t, collector.URL)
	impatient(t, "http/protobuf")
	for _, bound := range []string{"OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_METRIC_EXPORT_TIMEOUT", "OTEL_BSP_EXPORT_TIMEOUT"} {
		t.Setenv(bound, "20000") // a slow machine is no dead collector
	}
	var log lockedBuffer
	server := startServer(t, &log)
	require.Equal(t, http.StatusOK, request(t, http.MethodPut, server, "/v1/conversations/c", `{}`))
	appendUntil := func(done func() bool) {
		t.Helper()
		require.Eventually(t, func() bool {
			require.Equal(t, http.StatusCreated, request(t, http.MethodPost, server, "/v1/conversations/c/messages", oneMessage))
			return done()
		}, time.Minute, 20*time.Millisecond)
	}
	count := func(line string) int { return strings.Count(log.String(), line) }
	for life := range 2 {
		before := [2]int64{taken[0].Load(), taken[1].Load()}
		appendUntil(func() bool { return taken[0].Load() > before[0] && taken[1].Load() > before[1] })
		require.Equal(t, 2*life, count(lostLine), log.String())
		dead.Store(true)
		appendUntil(func() bool { return count(lostLine) == 2*(life+1) })
		dead.Store(false)
		appendUntil(func() bool { return count(backLine) == 2*(life+1) })
	}
	require.NotContains(t, log.String(), "level=ERROR")
}

// Spans that nobody takes are dropped beyond the bound of the queue: making them
// neither waits nor keeps memory.
func TestSpansOfASilentCollectorAreBounded(t *testing.T) {
	exporting(t, "http://"+silentCollector(t))
	impatient(t, "http/protobuf")
	var p parts
	telemetry, err := openTelemetry(roleRouter, "", slog.New(slog.DiscardHandler), &p)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.stop(t.Context())) })
	spans := func(n int) {
		for i := range n {
			_, span := telemetry.tracer.Start(t.Context(), "append")
			span.AddEvent(fmt.Sprint(strings.Repeat("x", 1<<10), i))
			span.End()
		}
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	spans(5_000)
	before := heap()
	spans(40_000) // more than 40 MB, were they kept
	require.Less(t, heap(), before+16<<20)
}
