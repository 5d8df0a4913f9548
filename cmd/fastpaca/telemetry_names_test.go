package main

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Where operators are given what names metrics.
const (
	dashboardPath = "../../infra/observability/grafana/fastpaca.json"
	rulesPath     = "../../infra/observability/prometheus/rules.yaml"
)

var (
	metricName   = regexp.MustCompile(`\b(fastpaca_|grpc_client_|grpc_server_|go_|process_)[a-z0-9_]+`)
	recordedName = regexp.MustCompile(`\bfastpaca:[a-z0-9_:]+`)
	ofHistogram  = regexp.MustCompile(`_(bucket|sum|count)$`)
)

// namesIn returns the metrics that an expression names.
func namesIn(text string) []string { return metricName.FindAllString(text, -1) }

// dashboardExpressions are all queries of the dashboard, its variables included.
func dashboardExpressions(t *testing.T) string {
	data, err := os.ReadFile(dashboardPath)
	require.NoError(t, err)
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Query any }
		}
	}
	require.NoError(t, json.Unmarshal(data, &dashboard))
	var all strings.Builder
	for _, panel := range dashboard.Panels {
		require.NotEmpty(t, panel.Title)
		for _, target := range panel.Targets {
			all.WriteString(target.Expr + "\n")
		}
	}
	for _, variable := range dashboard.Templating.List {
		if query, ok := variable.Query.(map[string]any); ok {
			all.WriteString(query["query"].(string) + "\n")
		}
	}
	return all.String()
}

// Every metric that the dashboard and the rules name exists in a live /metrics.
// A server with an archive that cannot be reached and a router that joined it
// have all there is.
func TestDashboardsAndRulesNameWhatExists(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")
	addresses, err := freeAddresses(3)
	require.NoError(t, err)
	server, internal, router := addresses[0], addresses[1], addresses[2]
	startRole(t, io.Discard, "serve", "--data-dir", t.TempDir(), "--listen", server, "--internal-listen", internal, "--token", clusterToken)
	waitReady(t, server)
	startRole(t, io.Discard, "router", "--listen", router, "--control", internal, "--token", clusterToken)
	waitReady(t, router)
	require.Equal(t, http.StatusOK, request(t, http.MethodPut, router, "/v1/conversations/c", `{}`))
	require.Equal(t, http.StatusOK, request(t, http.MethodGet, router, "/v1/conversations/c", ""))
	require.Equal(t, http.StatusNotFound, request(t, http.MethodGet, router, "/v1/conversations/absent", "")) // a failure, to be counted
	// gRPC counts a call when it is over, which is after its answer.
	live := scrape(t, server)
	require.Eventually(t, func() bool {
		live = scrape(t, server)
		return live["grpc_server_call_duration_seconds"] != nil
	}, 30*time.Second, 20*time.Millisecond)
	maps.Copy(live, scrape(t, router))

	rules, err := os.ReadFile(rulesPath)
	require.NoError(t, err)
	defined := regexp.MustCompile(`record: (\S+)`).FindAllStringSubmatch(string(rules), -1)
	var recorded []string
	for _, match := range defined {
		recorded = append(recorded, match[1])
	}
	for where, text := range map[string]string{"dashboard": dashboardExpressions(t), "rules": string(rules)} {
		names := namesIn(text)
		require.Greater(t, len(names), 20, where)
		for _, name := range names {
			if live[name] == nil && live[ofHistogram.ReplaceAllString(name, "")] == nil {
				t.Errorf("%s names %s, which no process has: %v", where, name, slices.Sorted(maps.Keys(live)))
			}
		}
		for _, name := range recordedName.FindAllString(text, -1) {
			require.Contains(t, recorded, name, where)
		}
	}
	// What was documented before Fastpaca was rewritten.
	for _, name := range []string{
		"fastpaca_messages_append_total", "fastpaca_messages_token_count",
		"fastpaca_archive_pending_rows", "fastpaca_archive_pending_conversations", "fastpaca_archive_oldest_age_seconds",
		"fastpaca_archive_attempted_total", "fastpaca_archive_inserted_total",
		"fastpaca_archive_bytes_attempted_total", "fastpaca_archive_bytes_inserted_total", "fastpaca_archive_flush_duration_ms",
	} {
		require.Contains(t, live, name)
	}
	require.NotNil(t, live["fastpaca_archive_operation_duration_seconds"])
}
