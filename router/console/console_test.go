package console

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

func TestNewWantsAll(t *testing.T) {
	t.Parallel()
	whole := Config{Cluster: &fakeCluster{}, Metrics: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)}
	for name, without := range map[string]func(*Config){
		"cluster": func(c *Config) { c.Cluster = nil }, "metrics": func(c *Config) { c.Metrics = nil }, "logger": func(c *Config) { c.Logger = nil },
	} {
		t.Run(name, func(t *testing.T) {
			conf := whole
			without(&conf)
			_, err := New(conf)
			require.Error(t, err)
		})
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	c, _ := open(t, Config{})
	for target, kind := range map[string]string{
		"/console": "text/html; charset=utf-8", "/console/app.js": "text/javascript; charset=utf-8",
		"/console/style.css": "text/css; charset=utf-8", "/console/icon.svg": "image/svg+xml",
	} {
		got := ask(c, http.MethodGet, target, "")
		require.Equal(t, http.StatusOK, got.Code, target)
		require.Equal(t, kind, got.Header().Get("Content-Type"))
		require.Equal(t, "no-cache", got.Header().Get("Cache-Control"))
		require.Equal(t, "nosniff", got.Header().Get("X-Content-Type-Options"))
		policy := got.Header().Get("Content-Security-Policy")
		require.Contains(t, policy, "default-src 'none'")
		require.Contains(t, policy, "frame-ancestors 'none'")
		require.NotContains(t, policy, "unsafe")
		require.NotContains(t, policy, "*")
		again := ask(c, http.MethodGet, target, "", "If-None-Match", got.Header().Get("ETag"))
		require.Equal(t, http.StatusNotModified, again.Code)
		head := ask(c, http.MethodHead, target, "")
		require.Equal(t, http.StatusOK, head.Code)
		require.Empty(t, head.Body.String())
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	c, _ := open(t, Config{})
	for _, row := range []struct {
		method, target string
		status         int
		code, allow    string
	}{
		{"GET", "/console/none", 404, "not_found", ""},
		{"GET", "/console/index.html", 404, "not_found", ""},
		{"GET", "/console/api", 404, "not_found", ""},
		{"GET", "/console/page/app.js", 404, "not_found", ""},
		{"GET", "/console/..%2fapp.js", 404, "not_found", ""},
		{"POST", "/console", 405, "method_not_allowed", "GET, HEAD"},
		{"DELETE", "/console/app.js", 405, "method_not_allowed", "GET, HEAD"},
		{"POST", "/console/api/cluster", 405, "method_not_allowed", "GET, HEAD"},
		{"GET", "/console/api/orders", 405, "method_not_allowed", "POST"},
	} {
		got := ask(c, row.method, row.target, "")
		require.Equal(t, row.status, got.Code, "%s %s", row.method, row.target)
		require.Equal(t, row.code, code(t, got))
		require.Equal(t, row.allow, got.Header().Get("Allow"))
		require.NotEmpty(t, got.Header().Get("Content-Security-Policy"))
	}
	// A page at /console/ would look for its files in the wrong place. The way
	// back is relative: a proxy may have put something in front.
	got := ask(c, http.MethodGet, "/console/", "")
	require.Equal(t, http.StatusMovedPermanently, got.Code)
	require.Equal(t, "../console", got.Header().Get("Location"))
}

// TestPageIsClosed: the page runs under its own policy, names nothing that is
// elsewhere, and makes no markup from text.
func TestPageIsClosed(t *testing.T) {
	t.Parallel()
	entries, err := fs.ReadDir(files, "page")
	require.NoError(t, err)
	forbidden := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setTimeout\(\s*['"` + "`" + `]|srcdoc|DOMParser|createContextualFragment`)
	elsewhere := regexp.MustCompile(`(?:https?:)?//[a-z0-9]`)
	namespace := strings.NewReplacer("http://www.w3.org/2000/svg", "")
	for _, entry := range entries {
		content, err := files.ReadFile("page/" + entry.Name())
		require.NoError(t, err)
		text := namespace.Replace(string(content))
		require.NotRegexp(t, elsewhere, regexp.MustCompile(`(?m)^\s*//.*$|\s// .*$`).ReplaceAllString(text, ""), entry.Name())
		switch path.Ext(entry.Name()) {
		case ".js":
			require.NotRegexp(t, forbidden, text, entry.Name())
			for _, m := range regexp.MustCompile(`from '\./([a-z]+\.js)'`).FindAllStringSubmatch(text, -1) {
				_, err := fs.Stat(files, "page/"+m[1])
				require.NoError(t, err, "%s imports %s", entry.Name(), m[1])
			}
		case ".html":
			require.NotRegexp(t, `<style|\sstyle=|\son[a-z]+=|javascript:`, text)
			require.NotRegexp(t, `<script[^>]*>[^<]`, text)
			for _, m := range regexp.MustCompile(`(?:src|href)="([^"#][^"]*)"`).FindAllStringSubmatch(text, -1) {
				_, err := fs.Stat(files, "page/"+strings.TrimPrefix(m[1], "console/"))
				require.NoError(t, err, m[1])
			}
		case ".css":
			require.NotRegexp(t, `url\(|@import`, text)
		}
	}
}

func TestClusterTellsWhatIsForEverybody(t *testing.T) {
	t.Parallel()
	c, _ := open(t, Config{})
	plain := ask(c, http.MethodGet, "/console/api/cluster", "")
	require.Equal(t, http.StatusOK, plain.Code)
	require.Equal(t, "no-store", plain.Header().Get("Cache-Control"))
	require.Equal(t, "false", plain.Header().Get("X-Console-Orders"))
	require.Regexp(t, `^\d{13}$`, plain.Header().Get("X-Console-Now"))
	for _, secret := range []string{"10.9.8.7", "4200", "secret-incarnation", "address"} {
		require.NotContains(t, plain.Body.String(), secret)
	}
	var got struct {
		At      int64
		Problem string
		Cluster overview
	}
	require.NoError(t, json.Unmarshal(plain.Body.Bytes(), &got))
	require.Positive(t, got.At)
	require.Empty(t, got.Problem)
	require.Equal(t, "c1", got.Cluster.Status.Control.Leader)
	require.Equal(t, []uint16{7}, got.Cluster.Status.Groups.NoQuorum)
	require.Equal(t, 86, got.Cluster.Nodes[0].Leaders)
	require.Equal(t, "d1", got.Cluster.Groups[0].Leader)
	require.EqualValues(t, 0, *got.Cluster.Groups[0].Replicas[0].Lag)
	require.Equal(t, 3, got.Cluster.Rebalance.Remaining)
	require.Equal(t, "d1", got.Cluster.Leases[0].Holder)
	details := []string{}
	for _, e := range got.Cluster.Events {
		details = append(details, e.Detail)
	}
	require.Equal(t, []string{"", "256 groups", ""}, details)

	packed := ask(c, http.MethodGet, "/console/api/cluster", "", "Accept-Encoding", "br, gzip")
	require.Equal(t, "gzip", packed.Header().Get("Content-Encoding"))
	r, err := gzip.NewReader(packed.Body)
	require.NoError(t, err)
	unpacked, err := io.ReadAll(r)
	require.NoError(t, err)
	require.JSONEq(t, plain.Body.String(), string(unpacked))
}

func TestOrdersAreOffered(t *testing.T) {
	t.Parallel()
	c, _ := open(t, Config{Operator: &fakeOperator{}})
	require.Equal(t, "true", ask(c, http.MethodGet, "/console/api/cluster", "").Header().Get("X-Console-Orders"))
}

// TestTooManyRequests: requests that wait for a slow cluster do not pile up.
func TestTooManyRequests(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	cluster := &fakeCluster{hold: hold}
	c, _ := open(t, Config{Cluster: cluster})
	answered := make(chan *httptest.ResponseRecorder, maxRequests)
	for range maxRequests {
		go func() { answered <- ask(c, http.MethodGet, "/console/api/cluster", "") }()
	}
	require.Eventually(t, func() bool { return len(c.requests) == maxRequests }, patience, tick)
	got := ask(c, http.MethodGet, "/console", "")
	require.Equal(t, http.StatusServiceUnavailable, got.Code)
	require.Equal(t, "1", got.Header().Get("Retry-After"))
	require.Equal(t, "overloaded", code(t, got))
	close(hold)
	for range maxRequests {
		require.Equal(t, http.StatusOK, (<-answered).Code)
	}
	require.Equal(t, 1, cluster.looked(), "one look for all of them")
	require.Equal(t, http.StatusOK, ask(c, http.MethodGet, "/console", "").Code)
}
