package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Every append is sent until it is acknowledged, also what was due when the load
// ended, and counts from when it was due.
func TestMovesLoadHealsFailures(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	times := map[string]int{}
	enough, once := make(chan struct{}), sync.Once{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := make([]byte, 200)
		n, _ := r.Body.Read(body)
		id, _, _ := strings.Cut(strings.TrimPrefix(string(body[:n]), `{"message":{"id":"`), `"`)
		mu.Lock()
		defer mu.Unlock()
		if times[id]++; times[id] == 1 && strings.HasSuffix(id, "0") { // every tenth fails at first
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if len(times) > 50 {
			once.Do(func() { close(enough) })
		}
		w.WriteHeader(http.StatusCreated)
	}))
	t.Cleanup(server.Close)
	l := startMovesLoad(t.Context(), server.Listener.Addr().String(), []string{"a", "b"}, newTexts(10))
	<-enough
	l.end()
	r := l.result([]mark{{"", time.Time{}}, {"before", time.Now()}, {"moves", time.Now().Add(time.Hour)}})
	require.Equal(t, len(times), r.Appends)
	require.Equal(t, (len(times)+9)/10, r.Failures)
	require.Zero(t, r.Uncured)
	require.Positive(t, r.CuredSeconds)
	require.Equal(t, []string{"before", "moves", "all moves"}, []string{r.Steps[0].Name, r.Steps[1].Name, r.Steps[2].Name})
	require.Equal(t, r.Appends, r.Steps[0].Appends)
	require.Zero(t, r.Steps[2].Appends)
	require.GreaterOrEqual(t, r.Steps[0].MaxMilliseconds, r.Steps[0].P99Milliseconds)
}

// What is due when nobody is left to wait counts as never healed.
func TestMovesLoadGivesUp(t *testing.T) {
	t.Parallel()
	l := &movesLoad{}
	l.given.Add(2)
	require.Equal(t, 2, l.result([]mark{{}, {}}).Uncured)
	b := &bench{}
	b.judgeMoves(&movesResult{Steps: []movesStep{{P99Milliseconds: 10}, {P99Milliseconds: 60}}, Uncured: 2}, []mark{{}, {}, {}})
	missed := 0
	for _, target := range b.report.Targets {
		if !target.Met {
			missed++
		}
	}
	require.Equal(t, 2, missed, "p99 and appends without an ack")
}
