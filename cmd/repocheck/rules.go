package main

import (
	"fmt"
	"go/ast"
	"path"
	"regexp"
	"slices"
	"strings"
)

// rules are everything that is checked, in the order of printing.
var rules = slices.Concat(confinement(), layering(), []rule{
	commandsAreLeaves, deterministicState, injectedLogger, noSleepInTests,
	topLevel, packageNouns, fileLength, functionLength, noMachinePaths, noPromises,
})

// stateTree is the deterministic part.
const stateTree = "dataplane/state"

// nondeterministic are the packages, or names of them, that give each replica
// another answer.
var nondeterministic = map[string][]string{
	"time":         {"Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Sleep", "Local", "LoadLocation"},
	"math/rand":    nil, // nil stands for all
	"math/rand/v2": nil,
	"crypto/rand":  nil,
	"os":           nil,
	"net":          nil,
	"net/http":     nil,
	"runtime":      {"NumCPU", "GOMAXPROCS"},
	"hash/maphash": nil,
}

// harmless are imports of nondeterministic packages that decide no outcome, by
// file and package, each with its reason.
var harmless = map[string]string{
	"dataplane/state/idset.go hash/maphash": "seeds a filter in memory that may only say too often that an id is worth looking up",
}

var deterministicState = rule{
	name:   "determinism of " + stateTree,
	reason: "replicas apply the same commands and must end with the same bytes: no clock, no chance, no environment; the leader stamps what a command needs",
	check: func(repo repository) []violation {
		var out []violation
		for _, s := range repo.code {
			if s.test || !inTree(s.dir, stateTree) {
				continue
			}
			for _, i := range s.imports() {
				_, excused := harmless[s.path+" "+i.path]
				if names, listed := nondeterministic[i.path]; listed && names == nil && !excused {
					out = append(out, violation{s.path, i.line, "imports " + i.path})
				}
			}
			s.uses(func(pkg, name string, line int) {
				if slices.Contains(nondeterministic[pkg], name) {
					out = append(out, violation{s.path, line, "uses " + pkg + "." + name})
				}
			})
		}
		return out
	},
}

// globalOutput are the ways to print that no caller can redirect.
var globalOutput = map[string][]string{
	"log/slog": {"Default", "SetDefault", "Debug", "Info", "Warn", "Error", "Log", "DebugContext", "InfoContext", "WarnContext", "ErrorContext"},
	"log":      {"Print", "Printf", "Println", "Fatal", "Fatalf", "Fatalln", "Panic", "Panicf", "Panicln", "Default", "SetOutput"},
	"fmt":      {"Print", "Printf", "Println"},
	"os":       {"Exit", "Stdout", "Stderr"},
}

var injectedLogger = rule{
	name:   "output of packages",
	reason: "a package logs to the logger it was given and returns errors; only commands own the streams and the exit code of a process",
	check: func(repo repository) []violation {
		var out []violation
		for _, s := range repo.code {
			if s.test || s.generated || inTree(s.dir, "cmd") || s.file.Name.Name == "main" {
				continue
			}
			s.uses(func(pkg, name string, line int) {
				if slices.Contains(globalOutput[pkg], name) {
					out = append(out, violation{s.path, line, "uses " + pkg + "." + name})
				}
			})
		}
		return out
	},
}

// sleepers are the test files that may sleep, each with its reason.
var sleepers = map[string]string{}

var noSleepInTests = rule{
	name:   "time.Sleep in tests",
	reason: "a sleep is too short on a busy machine and too long on all others; wait for what the test needs, or list the file in sleepers with a reason",
	check: func(repo repository) []violation {
		var out []violation
		for _, s := range repo.code {
			if _, excused := sleepers[s.path]; !s.test || excused {
				continue
			}
			s.uses(func(pkg, name string, line int) {
				if pkg == "time" && name == "Sleep" {
					out = append(out, violation{s.path, line, "uses time.Sleep"})
				}
			})
		}
		return out
	},
}

// topLevelNames are what the root may hold, beside dot-files.
var topLevelNames = []string{
	"cmd", "controlplane", "dataplane", "infra", "openapi", "router", "sdk",
	"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "SECURITY.md", "go.mod", "go.sum",
}

var topLevel = rule{
	name:   "top level",
	reason: "the folders are the planes and their edges; something new belongs into one of them",
	check: func(repo repository) []violation {
		var out []violation
		for _, p := range repo.paths {
			first, _, _ := strings.Cut(p, "/")
			if !strings.HasPrefix(first, ".") && !slices.Contains(topLevelNames, first) {
				out = append(out, violation{p, 0, first + " is none of the agreed names"})
			}
		}
		return out
	},
}

// emptyNames say that something is in a package, and not what.
var emptyNames = []string{"common", "util", "utils", "pkg", "helper", "helpers", "misc", "shared", "base", "lib", "tools", "core", "types", "internal"}

// sdkTree holds what others import: modules of their own.
const sdkTree = "sdk"

var packageNouns = rule{
	name:   "package names",
	reason: "a package is named after what it provides; a name without a meaning collects everything",
	check: func(repo repository) []violation {
		seen := map[string]bool{}
		var out []violation
		for _, s := range repo.code {
			for _, part := range append(strings.Split(s.dir, "/"), s.file.Name.Name) {
				if part == "internal" && inTree(s.dir, sdkTree) && s.file.Name.Name != part {
					continue // how a module that others import hides what is not for them
				}
				if key := s.dir + " " + part; slices.Contains(emptyNames, part) && !seen[key] {
					seen[key] = true
					out = append(out, violation{s.path, 0, fmt.Sprintf("package %q", part)})
				}
			}
		}
		return out
	},
}

const (
	maxFileLines     = 500
	maxTestLines     = 650
	maxFunctionLines = 80
)

var fileLength = rule{
	name:   "length of files",
	reason: fmt.Sprintf("a file holds one idea, and one idea fits %d lines, or %d with its tables of test cases", maxFileLines, maxTestLines),
	check: func(repo repository) []violation {
		var out []violation
		for _, s := range repo.code {
			most := maxFileLines
			if s.test {
				most = maxTestLines
			}
			if n := s.lines(); n > most && !s.generated {
				out = append(out, violation{s.path, 0, fmt.Sprintf("%d lines", n)})
			}
		}
		return out
	},
}

var functionLength = rule{
	name:   "length of functions",
	reason: fmt.Sprintf("what does not fit %d lines does more than one thing (tables of test cases excepted)", maxFunctionLines),
	check: func(repo repository) []violation {
		var out []violation
		for _, s := range repo.code {
			if s.generated || s.test {
				continue
			}
			for _, d := range s.file.Decls {
				f, ok := d.(*ast.FuncDecl)
				if !ok {
					continue
				}
				first, last := s.line(f.Pos()), s.line(f.End())
				if n := last - first + 1; n > maxFunctionLines {
					out = append(out, violation{s.path, first, fmt.Sprintf("%s has %d lines", f.Name.Name, n)})
				}
			}
		}
		return out
	},
}

// machinePath finds absolute paths that exist on one machine only.
var machinePath = regexp.MustCompile("(^|[\\s\"'`(=:])/(work|root|home|Users|tmp/[a-z])/?[\\w.-]+")

// documented are the files in which a path is something to type.
var documented = []string{".md", ".yml", ".yaml", ".sh", ".tf", ".json", ".ts", ".toml"}

var noMachinePaths = rule{
	name:   "paths of one machine",
	reason: "what is written down must hold wherever the repository is cloned",
	check: func(repo repository) []violation {
		return linesMatching(repo, machinePath, func(p string) bool {
			return slices.Contains(documented, path.Ext(p)) || !strings.Contains(path.Base(p), ".") || inTree(p, ".ci")
		})
	},
}

// promise finds the marks of work that was put off.
var promise = regexp.MustCompile(`\b(` + "TO" + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b`)

var noPromises = rule{
	name:   "promises in comments",
	reason: "nobody works through comments: do it, or open an issue",
	check: func(repo repository) []violation {
		return linesMatching(repo, promise, func(p string) bool { return path.Ext(p) != ".sum" && path.Base(p) != "LICENSE" && !foreign(p) })
	},
}

// foreign tells files that a generator of another project wrote, remarks of its
// authors included.
func foreign(p string) bool { return inTree(p, sdkTree) && strings.Contains(p, "/generated/") }

func linesMatching(repo repository, pattern *regexp.Regexp, wanted func(path string) bool) []violation {
	var out []violation
	for p, text := range repo.texts {
		if !wanted(p) {
			continue
		}
		number := 0
		for line := range strings.Lines(string(text)) {
			number++
			if found := pattern.FindString(line); found != "" {
				out = append(out, violation{p, number, strings.TrimSpace(found)})
			}
		}
	}
	return out
}
