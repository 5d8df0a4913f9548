package moduledocs

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	composeProcess = regexp.MustCompile(`(?m)^  ([cdr][0-9]+):\n    <<: \*(?:control|data|router)$`)
	scraped        = regexp.MustCompile(`"([a-z0-9]+):9400"`)
	bindMount      = regexp.MustCompile(`"?\./(observability/[a-z]+):`)
)

// The Prometheus of compose.yaml scrapes every process of it, and what is
// mounted from beside it is there.
func TestComposeIsObserved(t *testing.T) {
	t.Parallel()
	compose, err := os.ReadFile("../compose.yaml")
	require.NoError(t, err)
	config, err := os.ReadFile("../observability/prometheus/prometheus.yaml")
	require.NoError(t, err)

	processes := found(composeProcess, compose)
	require.Len(t, processes, 8, "three control members, three data nodes, two routers")
	require.ElementsMatch(t, processes, found(scraped, config))
	mounts := found(bindMount, compose)
	require.Len(t, mounts, 2, "rules and dashboard")
	for _, dir := range mounts {
		require.DirExists(t, "../"+dir)
	}
}

func found(pattern *regexp.Regexp, text []byte) []string {
	var out []string
	for _, match := range pattern.FindAllSubmatch(text, -1) {
		out = append(out, string(match[1]))
	}
	slices.Sort(out)
	return slices.Compact(out)
}
