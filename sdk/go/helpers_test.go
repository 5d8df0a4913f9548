package fastpaca

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// waits records what a client waited for instead of waiting.
type waits struct {
	mu    sync.Mutex // guards all
	taken []time.Duration
}

func (w *waits) wait(ctx context.Context, d time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.taken = append(w.taken, d)
	return ctx.Err()
}

func (w *waits) all() []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]time.Duration(nil), w.taken...)
}

// clientOf returns a client of a handler that does not really wait.
func clientOf(t *testing.T, handler http.HandlerFunc, opts ...Option) (*Client, *waits) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	opts = append([]Option{WithHTTPClient(&http.Client{Transport: transport})}, opts...)
	client, err := New(server.URL, opts...)
	require.NoError(t, err)
	recorded := &waits{}
	client.wait = recorded.wait
	return client, recorded
}

func answerJSON(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// failureIn asserts that an error is an *Error and returns it.
func failureIn(t *testing.T, err error) *Error {
	t.Helper()
	var failed *Error
	require.True(t, errors.As(err, &failed), "%v", err)
	return failed
}

const appended = `{"seq":1,"version":1,"token_count":1}`
