// Command repocheck holds this repository to the rules that a compiler and a
// linter do not know: which package may import what, what the state machine
// must not touch, what a test must not do. Every rule carries its reason, and
// prints it when it is broken. Run it from the root of the repository:
//
//	go run ./cmd/repocheck
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

func main() {
	broken, err := run(os.Stdout)
	if err != nil {
		fmt.Fprintf(os.Stderr, "repocheck: %v\n", err)
		os.Exit(2)
	}
	if broken > 0 {
		os.Exit(1)
	}
}

// run checks the repository of the working directory and returns how many
// places break a rule.
func run(stdout io.Writer) (int, error) {
	paths, err := listFiles()
	if err != nil {
		return 0, err
	}
	repo, err := load(os.DirFS("."), paths)
	if err != nil {
		return 0, err
	}
	return report(stdout, rules, repo), nil
}

// listFiles returns the files that are or may become tracked.
func listFiles() ([]string, error) {
	out, err := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		return nil, fmt.Errorf("list the files of the repository: %w", err)
	}
	var paths []string
	for path := range bytes.SplitSeq(bytes.TrimRight(out, "\x00"), []byte{0}) {
		// A tracked file may have been deleted and not committed yet.
		if info, err := os.Lstat(string(path)); err == nil && info.Mode().IsRegular() {
			paths = append(paths, string(path))
		}
	}
	return paths, nil
}

// rule is something that must hold everywhere.
type rule struct {
	name   string
	reason string
	check  func(repository) []violation
}

// violation is a place where a rule does not hold.
type violation struct {
	path string
	line int // 0 for the whole file
	what string
}

// report checks all rules, prints what breaks them, and returns how many do.
func report(w io.Writer, rules []rule, repo repository) int {
	total := 0
	for _, r := range rules {
		found := r.check(repo)
		if len(found) == 0 {
			continue
		}
		slices.SortFunc(found, func(a, b violation) int {
			if c := strings.Compare(a.path, b.path); c != 0 {
				return c
			}
			return a.line - b.line
		})
		fmt.Fprintf(w, "%s: %s\n", r.name, r.reason)
		for _, v := range found {
			if v.line > 0 {
				fmt.Fprintf(w, "\t%s:%d: %s\n", v.path, v.line, v.what)
			} else {
				fmt.Fprintf(w, "\t%s: %s\n", v.path, v.what)
			}
		}
		total += len(found)
	}
	return total
}

// inTree tells whether a slash-separated path is dir or below it.
func inTree(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// inTrees tells whether a path is in one of the trees.
func inTrees(path string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return inTree(path, dir) })
}
