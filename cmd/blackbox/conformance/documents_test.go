package conformance

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHealth(t *testing.T) {
	a := setup(t)
	for _, path := range []string{"/health/live", "/health/ready"} {
		reply := a.get(path)
		require.Equal(t, http.StatusOK, reply.Status, reply)
		requireJSON(t, reply)
		var body struct {
			Status string `json:"status"`
		}
		require.NoError(t, json.Unmarshal(reply.Body, &body))
		require.Equal(t, "ok", body.Status)
	}
}

// A line of the Prometheus text format that is not a comment.
var sample = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*(\{.*\})? (NaN|[+-]Inf|[-+0-9.eE]+)( \d+)?$`)

func TestMetrics(t *testing.T) {
	a := setup(t)
	a.filled(1)
	reply := a.get("/metrics")
	require.Equal(t, http.StatusOK, reply.Status, reply)
	require.True(t, strings.HasPrefix(reply.Header.Get("Content-Type"), "text/plain"), reply.Header.Get("Content-Type"))
	samples := 0
	for line := range strings.Lines(string(reply.Body)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		require.Regexp(t, sample, line)
		samples++
	}
	require.NotZero(t, samples)
}

type openAPI struct {
	OpenAPI string `json:"openapi"`
	Servers []struct {
		URL string `json:"url"`
	} `json:"servers"`
	Paths map[string]map[string]struct {
		OperationID string                     `json:"operationId"`
		Responses   map[string]json.RawMessage `json:"responses"`
	} `json:"paths"`
}

func TestOpenAPIDocument(t *testing.T) {
	a := setup(t)
	reply := a.get("/v1/openapi.json")
	require.Equal(t, http.StatusOK, reply.Status)
	var doc openAPI
	require.NoError(t, json.Unmarshal(reply.Body, &doc))
	require.Regexp(t, `^3\.1\.\d+$`, doc.OpenAPI)
	require.NotEmpty(t, doc.Servers)
	require.True(t, strings.HasSuffix(doc.Servers[0].URL, "/v1"), doc.Servers[0].URL)

	for path, methods := range map[string][]string{
		"/conversations":               {"get"},
		"/conversations/{id}":          {"get", "put", "delete"},
		"/conversations/{id}/messages": {"get", "post"},
		"/conversations/{id}/tail":     {"get"},
	} {
		require.Contains(t, doc.Paths, path)
		for _, method := range methods {
			operation, ok := doc.Paths[path][method]
			require.True(t, ok, "%s %s", method, path)
			require.NotEmpty(t, operation.OperationID, "%s %s", method, path)
			require.NotContains(t, operation.Responses, "422", "%s %s: this API answers 400", method, path)
		}
	}
	require.Contains(t, doc.Paths["/conversations/{id}/messages"]["post"].Responses, "409")

	other := a.get("/openapi.json")
	require.Equal(t, http.StatusOK, other.Status)
	require.JSONEq(t, string(reply.Body), string(other.Body))
	yaml := a.get("/v1/openapi.yaml")
	require.Equal(t, http.StatusOK, yaml.Status)
	require.Regexp(t, `(?m)^openapi: ["']?3\.1\.`, string(yaml.Body))
}

// elsewhere finds what a browser would fetch from another host.
var elsewhere = regexp.MustCompile(`(?i)(src|href)\s*=\s*["'](https?:)?//[^"']*["']|@import|url\(\s*["']?https?:`)

func TestDocsWorkOffline(t *testing.T) {
	a := setup(t)
	reply := a.get("/docs")
	require.Equal(t, http.StatusOK, reply.Status, reply)
	require.True(t, strings.HasPrefix(reply.Header.Get("Content-Type"), "text/html"), reply.Header.Get("Content-Type"))
	require.Empty(t, elsewhere.FindAllString(string(reply.Body), -1))

	for _, found := range regexp.MustCompile(`(?:src|href)="(/[^"#]*)"`).FindAllStringSubmatch(string(reply.Body), -1) {
		require.Equal(t, http.StatusOK, a.get(found[1]).Status, found[1])
	}
}
