package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// BinaryEnv names the environment variable that points at a built program, so
// that several suites can share one build.
const BinaryEnv = "FASTPACA_BIN"

var built struct {
	once sync.Once
	path string
	err  error
}

// Binary returns the path of the program under test: the one that BinaryEnv
// names, else one built from the source of this module, once per test process.
func Binary() (string, error) {
	built.once.Do(func() { built.path, built.err = build() })
	return built.path, built.err
}

func build() (string, error) {
	if path := os.Getenv(BinaryEnv); path != "" {
		return filepath.Abs(path)
	}
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	// Under the user's cache and not a temporary directory: nobody could remove
	// that one at the end of a test process that was killed.
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a place to build: %w", err)
	}
	path := filepath.Join(cache, "fastpaca-blackbox", "fastpaca")
	// Other test processes may build and run the same at the same time: a file
	// that runs cannot be written to, but it can be replaced.
	fresh := fmt.Sprintf("%s.%d", path, os.Getpid())
	cmd := exec.Command("go", "build", "-o", fresh, "./cmd/fastpaca")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build fastpaca: %w\n%s", err, out)
	}
	if err := os.Rename(fresh, path); err != nil {
		return "", fmt.Errorf("build fastpaca: %w", err)
	}
	return path, nil
}

// ModuleRoot returns the directory of the module's go.mod.
func ModuleRoot() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if mod == "" || mod == os.DevNull {
		return "", fmt.Errorf("find the module: not inside one")
	}
	return filepath.Dir(mod), nil
}
