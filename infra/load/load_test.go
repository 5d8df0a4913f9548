package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// router answers as the API does, and keeps ids.
type router struct {
	mu       sync.Mutex // above what follows
	messages map[string]map[string]bool
	refuse   func(tries int) int // a status instead of an answer; 0 for none
	tries    map[string]int
	enough   int
	full     func() // called once enough messages are there
}

func (r *router) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	conversation, _, post := strings.Cut(strings.TrimPrefix(request.URL.Path, "/v1/conversations/"), "/messages")
	if !post {
		_ = json.NewEncoder(w).Encode(map[string]int{"last_seq": len(r.messages[conversation])})
		return
	}
	var body struct{ Message struct{ ID string } }
	if json.NewDecoder(request.Body).Decode(&body) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.tries[body.Message.ID]++
	if status := r.refuse(r.tries[body.Message.ID]); status != 0 {
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(status)
	} else {
		if r.messages[conversation] == nil {
			r.messages[conversation] = map[string]bool{}
		}
		r.messages[conversation][body.Message.ID] = true
	}
	if len(r.tries) >= r.enough {
		r.full()
	}
}

// under runs the program against a router until it has been asked for 20
// messages.
func under(t *testing.T, refuse func(tries int) int, args ...string) (result, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := &router{messages: map[string]map[string]bool{}, tries: map[string]int{}, refuse: refuse, enough: 20, full: cancel}
	server := httptest.NewServer(r)
	defer server.Close()
	var stdout bytes.Buffer
	err := run(ctx, append([]string{"-urls", server.URL + "," + server.URL, "-rate", "1000", "-conversations", "3"}, args...), &stdout)
	var got result
	if stdout.Len() > 0 && stdout.Bytes()[0] == '{' {
		require.NoError(t, json.Unmarshal(stdout.Bytes(), &got))
	}
	return got, err
}

func TestNothingWentWrong(t *testing.T) {
	got, err := under(t, func(int) int { return 0 })
	require.NoError(t, err)
	require.GreaterOrEqual(t, got.Appends, 20)
	require.Equal(t, got.Appends, got.Messages)
	require.Zero(t, got.Retried)
}

func TestOneRetryCures(t *testing.T) {
	got, err := under(t, func(tries int) int {
		if tries == 1 {
			return http.StatusServiceUnavailable
		}
		return 0
	})
	require.NoError(t, err)
	require.Equal(t, got.Appends, got.Retried)
	require.Zero(t, got.Lost)
	require.Len(t, got.Answers, 1, "the same answer is kept once")
}

func TestTwoFailuresAreLost(t *testing.T) {
	got, err := under(t, func(int) int { return http.StatusBadGateway })
	require.ErrorContains(t, err, "failed twice")
	require.Equal(t, got.Appends, got.Lost)
}

func TestFirst(t *testing.T) {
	_, err := under(t, func(int) int { return 0 }, "-first")
	require.NoError(t, err)
	require.ErrorContains(t, run(t.Context(), nil, &bytes.Buffer{}), "usage")
	require.Error(t, run(t.Context(), []string{"-urls", "http://127.0.0.1:1", "-rate", "0"}, &bytes.Buffer{}))
}

func TestVerdict(t *testing.T) {
	require.NoError(t, (&result{Appends: 2, Messages: 2}).verdict())
	require.ErrorContains(t, (&result{}).verdict(), "nothing")
	require.ErrorContains(t, (&result{Appends: 2, Messages: 1}).verdict(), "1 messages are there")
	require.ErrorContains(t, (&result{Appends: 2, Messages: 2, Lost: 1}).verdict(), "failed twice")
}
