package fastpaca

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNewReadsURLs(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"http://127.0.0.1:4000":      "http://127.0.0.1:4000/v1",
		"http://127.0.0.1:4000/":     "http://127.0.0.1:4000/v1",
		"http://127.0.0.1:4000/v1":   "http://127.0.0.1:4000/v1",
		"http://127.0.0.1:4000/v1/":  "http://127.0.0.1:4000/v1",
		" https://x.example/paca ":   "https://x.example/paca/v1",
		"https://u:p@x.example/v1//": "https://u:p@x.example/v1",
	} {
		c, err := New(given)
		require.NoError(t, err, given)
		require.Equal(t, want, c.base)
	}
	for _, odd := range []string{"", "localhost:4000", "127.0.0.1:4000", "/v1", "ftp://x", "http://", "http://x?y=1", "http://x#y", "http://u:secret@x:port", "ftp://u:secret@x"} {
		_, err := New(odd)
		failed := failureIn(t, err)
		require.Equal(t, CodeInvalid, failed.Code, odd)
		require.Contains(t, failed.Message, "http://HOST:PORT")
		require.NotContains(t, failed.Error(), "secret")
	}
	_, err := New("http://x", WithRetry(Retry{}))
	require.ErrorContains(t, err, "at least one attempt")
}

// What an append meets, and what becomes of it.
func TestAnswers(t *testing.T) {
	t.Parallel()
	const unavailable = `{"error":"unavailable","message":"No leader.","request_id":"r1"}`
	type answer struct {
		status     int
		kind, body string
		retryAfter string
	}
	json := func(status int, body string) answer { return answer{status, "application/json", body, ""} }
	for name, c := range map[string]struct {
		answers  []answer // the last one repeats
		want     Error    // its Code empty for success
		attempts int
	}{
		"success":         {[]answer{json(201, appended)}, Error{}, 1},
		"503 then fine":   {[]answer{json(503, unavailable), json(503, unavailable), json(201, appended)}, Error{}, 3},
		"429 then fine":   {[]answer{{429, "text/plain", "slow down", "1"}, json(201, appended)}, Error{}, 2},
		"504, duplicate":  {[]answer{json(504, `{"error":"outcome_unknown","message":"?"}`), json(200, `{"seq":1,"version":1,"token_count":1,"duplicate":true}`)}, Error{}, 2},
		"502 from a hop":  {[]answer{{502, "text/html", "<html>", ""}, json(201, appended)}, Error{}, 2},
		"503 for good":    {[]answer{json(503, unavailable)}, Error{Status: 503, Code: CodeUnavailable, Retryable: true, RequestID: "r1"}, 4},
		"asks for hours":  {[]answer{{503, "application/json", unavailable, "7200"}}, Error{Status: 503, Code: CodeUnavailable, Retryable: true, RequestID: "r1", RetryAfter: 2 * time.Hour}, 1},
		"500":             {[]answer{json(500, `{"error":"internal","message":"x"}`)}, Error{Status: 500, Code: "internal"}, 1},
		"404":             {[]answer{json(404, `{"error":"conversation_not_found","message":"x"}`)}, Error{Status: 404, Code: CodeNotFound}, 1},
		"409":             {[]answer{json(409, `{"error":"conflict","message":"x","current_version":7}`)}, Error{Status: 409, Code: CodeConflict, CurrentVersion: 7}, 1},
		"416":             {[]answer{json(416, `{"error":"cursor_expired","message":"x","earliest_seq":9}`)}, Error{Status: 416, Code: CodeCursorExpired, EarliestSeq: 9}, 1},
		"HTML, 200":       {[]answer{{200, "text/html; charset=utf-8", "<!doctype html><title>Login</title>", ""}}, Error{Status: 200, Code: CodeUnexpectedResponse}, 1},
		"HTML, 404":       {[]answer{{404, "text/html", "<h1>nginx</h1>", ""}}, Error{Status: 404, Code: CodeUnexpectedResponse}, 1},
		"HTML, 503":       {[]answer{{503, "text/html", "<h1>nginx</h1>", ""}}, Error{Status: 503, Code: CodeUnexpectedResponse, Retryable: true}, 4},
		"no type":         {[]answer{{200, "", "", ""}}, Error{Status: 200, Code: CodeUnexpectedResponse}, 1},
		"broken JSON":     {[]answer{json(201, `{"seq":`)}, Error{Status: 201, Code: CodeUnexpectedResponse}, 1},
		"other JSON":      {[]answer{json(200, `{"messages":[]}`)}, Error{Status: 200, Code: CodeUnexpectedResponse}, 1},
		"error, no code":  {[]answer{json(400, `{"detail":"x"}`)}, Error{Status: 400, Code: CodeUnexpectedResponse}, 1},
		"error, no JSON":  {[]answer{json(400, `nope`)}, Error{Status: 400, Code: CodeUnexpectedResponse}, 1},
		"moved elsewhere": {[]answer{{301, "text/html", "", ""}}, Error{Status: 301, Code: CodeUnexpectedResponse}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var bodies []string
			client, waited := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				mu.Lock()
				defer mu.Unlock()
				a := c.answers[min(len(bodies), len(c.answers)-1)]
				bodies = append(bodies, r.Method+" "+string(body))
				w.Header()["Content-Type"] = []string{a.kind}
				if a.status == 301 {
					w.Header().Set("Location", "https://elsewhere.example/")
				}
				if a.retryAfter != "" {
					w.Header().Set("Retry-After", a.retryAfter)
				}
				w.WriteHeader(a.status)
				_, _ = io.WriteString(w, a.body)
			}, WithRetry(Retry{Attempts: 4, MinWait: time.Millisecond, MaxWait: time.Second}))

			got, err := client.Conversation("c").Append(t.Context(), TextMessage("user", "hi"))
			mu.Lock()
			defer mu.Unlock()
			require.Len(t, bodies, c.attempts)
			for i, body := range bodies {
				require.Equal(t, bodies[0], body, "attempt %d", i)
				require.Contains(t, body, `POST {"message":{"id":"`+firstID(body))
			}
			for i, d := range waited.all() {
				if c.answers[min(i, len(c.answers)-1)].retryAfter == "1" {
					require.GreaterOrEqual(t, d, time.Second)
				}
			}
			if c.want.Code == "" {
				require.NoError(t, err)
				require.EqualValues(t, 1, got.Seq)
				require.NotEmpty(t, got.ID)
				return
			}
			failed := failureIn(t, err)
			c.want.Op, c.want.Message, c.want.Attempts, c.want.Err = failed.Op, failed.Message, failed.Attempts, failed.Err
			require.Equal(t, c.want, *failed)
			require.Equal(t, `append to "c"`, failed.Op)
			require.NotEmpty(t, failed.Message)
			if c.want.Code == CodeUnexpectedResponse && c.want.Status != 201 && c.want.Status != 301 {
				require.Contains(t, failed.Error(), "is this the address of a Fastpaca server?")
			}
		})
	}
}

func firstID(body string) string {
	_, rest, _ := strings.Cut(body, `"id":"`)
	id, _, _ := strings.Cut(rest, `"`)
	return id
}

func TestSentinels(t *testing.T) {
	t.Parallel()
	for code, sentinel := range sentinels {
		err := error(&Error{Code: code, Op: "x", Message: "m", Status: 503, RequestID: "r9", Attempts: 2})
		require.ErrorIs(t, err, sentinel)
		require.NotErrorIs(t, err, io.EOF)
		require.Equal(t, "fastpaca: x: m ("+code+", status 503, 2 attempts, request r9)", err.Error())
	}
	require.NotErrorIs(t, &Error{Code: "other"}, ErrNotFound)
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for given, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, "-1": 0, "x": 0, "1.5": 0, "99999999999999": 0,
		"Fri, 02 Jan 2026 03:04:15 GMT": 10 * time.Second,
		"Fri, 02 Jan 2026 03:04:00 GMT": 0,
	} {
		require.Equal(t, want, retryAfter(given, now), given)
	}
}

func TestBackoffGrowsWithinItsBounds(t *testing.T) {
	t.Parallel()
	r := Retry{Attempts: 100, MinWait: 100 * time.Millisecond, MaxWait: 2 * time.Second}
	for n := 1; n < 100; n++ {
		full := r.MaxWait
		if n < 6 {
			full = r.MinWait << (n - 1)
		}
		for range 20 {
			d := r.backoff(n)
			require.GreaterOrEqual(t, d, full/2)
			require.LessOrEqual(t, d, full)
		}
	}
	require.Zero(t, Retry{Attempts: 1}.backoff(1))
}

// refused returns the address of a port that nobody listens on.
func refused(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return "http://" + l.Addr().String()
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	client, err := New(refused(t), WithRetry(Retry{Attempts: 3, MaxWait: time.Second}))
	require.NoError(t, err)
	_, err = client.Conversation("c").Get(t.Context())
	failed := failureIn(t, err)
	require.Equal(t, CodeNetwork, failed.Code)
	require.True(t, failed.Retryable)
	require.Equal(t, 3, failed.Attempts)
	require.Contains(t, failed.Error(), "connection refused")
	var op *net.OpError
	require.ErrorAs(t, err, &op)
}

// A certificate that is not trusted does not become so by asking again.
func TestWrongCertificatesAndSchemes(t *testing.T) {
	t.Parallel()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	secure.StartTLS()
	t.Cleanup(secure.Close)
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	for _, at := range []string{secure.URL, strings.Replace(plain.URL, "http://", "https://", 1)} {
		transport := &http.Transport{}
		client, err := New(at, WithHTTPClient(&http.Client{Transport: transport}))
		require.NoError(t, err)
		_, err = client.Conversation("c").Get(t.Context())
		failed := failureIn(t, err)
		require.Equal(t, CodeNetwork, failed.Code, err)
		require.False(t, failed.Retryable, err)
		require.Equal(t, 1, failed.Attempts)
		transport.CloseIdleConnections()
	}
}

// An answer that breaks off is no answer: it is asked for again.
func TestBrokenAnswers(t *testing.T) {
	t.Parallel()
	asked := 0
	client, _ := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		if asked++; asked < 3 {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = fmt.Fprint(conn, "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"seq\":1")
				_ = conn.Close()
			}
			return
		}
		answerJSON(w, 201, appended)
	})
	_, err := client.Conversation("c").Append(t.Context(), TextMessage("user", "hi"))
	require.NoError(t, err)
	require.Equal(t, 3, asked)
}

func TestSlowAnswers(t *testing.T) {
	t.Parallel()
	client, _ := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		<-r.Context().Done()
	}, WithTimeout(10*time.Millisecond), WithRetry(Retry{Attempts: 2}))
	_, err := client.Conversation("c").Append(t.Context(), TextMessage("user", "hi"))
	failed := failureIn(t, err)
	require.Equal(t, CodeTimeout, failed.Code)
	require.True(t, failed.Retryable)
	require.Equal(t, 2, failed.Attempts)
}

func TestContextsThatEnd(t *testing.T) {
	t.Parallel()
	unavailable := func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, 503, `{"error":"unavailable","message":"No leader."}`)
	}
	t.Run("before", func(t *testing.T) {
		t.Parallel()
		client, _ := clientOf(t, unavailable)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := client.Conversation("c").Get(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, CodeCanceled, failureIn(t, err).Code)
		require.Equal(t, 1, failureIn(t, err).Attempts)
	})
	t.Run("during an attempt", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		client, _ := clientOf(t, func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() })
		_, err := client.Conversation("c").Get(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.False(t, failureIn(t, err).Retryable)
	})
	t.Run("while waiting", func(t *testing.T) {
		t.Parallel()
		client, _ := clientOf(t, unavailable)
		ctx, cancel := context.WithCancel(t.Context())
		client.wait = func(ctx context.Context, _ time.Duration) error { cancel(); return wait(ctx, time.Hour) }
		_, err := client.Conversation("c").Get(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, err, "No leader.", "what was wrong is told too")
	})
	t.Run("a deadline before the next attempt", func(t *testing.T) {
		t.Parallel()
		client, waited := clientOf(t, unavailable, WithRetry(Retry{Attempts: 9, MinWait: time.Hour, MaxWait: time.Hour}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := client.Conversation("c").Get(ctx)
		require.Equal(t, CodeUnavailable, failureIn(t, err).Code)
		require.Empty(t, waited.all())
	})
}

// A redirect is followed for reads, and told for writes: as a GET an append
// would succeed and store nothing.
func TestRedirects(t *testing.T) {
	t.Parallel()
	client, _ := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1") {
			http.Redirect(w, r, "/moved"+r.URL.Path, http.StatusFound)
			return
		}
		answerJSON(w, 200, `{"id":"c","metadata":{},"last_seq":4}`)
	})
	info, err := client.Conversation("c").Get(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 4, info.LastSeq)
	_, err = client.Conversation("c").Append(t.Context(), TextMessage("user", "hi"))
	require.ErrorContains(t, err, "redirects to")
	_, err = client.Conversation("c").Put(t.Context(), nil)
	require.ErrorContains(t, err, "redirects to")
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	client, _ := clientOf(t, func(w http.ResponseWriter, r *http.Request) {
		answerJSON(w, 200, `{"id":"c","metadata":{"auth":"`+r.Header.Get("Authorization")+`","agent":"`+r.UserAgent()+`"}}`)
	}, WithHeader("authorization", "Bearer t"))
	info, err := client.Conversation("c").Get(t.Context())
	require.NoError(t, err)
	require.JSONEq(t, `{"auth":"Bearer t","agent":"fastpaca-go"}`, string(info.Metadata))
}
