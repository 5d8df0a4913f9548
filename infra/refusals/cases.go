package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// refusal is a case that a module must refuse.
type refusal struct {
	name   string
	says   []string // parts of what must be printed
	source string   // a test file with this case alone, that expects nothing
}

var (
	runBlock   = regexp.MustCompile(`(?ms)^run "([^"]+)" \{\n.*?^\}\n`)
	expectLine = regexp.MustCompile(`(?m)^ *expect_failures *=.*\n`)
	saysLine   = regexp.MustCompile(`(?m)^ *# says: (.+)$`)
)

// load reads the cases of all test files of a directory that expect a failure.
func load(dir string) ([]refusal, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.tftest.hcl"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var out []refusal
	var errs []error
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		cases, err := split(string(content))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", filepath.Base(file), err))
		}
		out = append(out, cases...)
	}
	return out, errors.Join(errs...)
}

// split takes the cases that expect a failure out of a test file. What stands
// in front of the first run, mocks and variables, belongs to all of them.
func split(content string) ([]refusal, error) {
	blocks := runBlock.FindAllStringSubmatchIndex(content, -1)
	if len(blocks) == 0 {
		return nil, nil
	}
	var out []refusal
	var errs []error
	header := content[:blocks[0][0]]
	for _, at := range blocks {
		block, name := content[at[0]:at[1]], content[at[2]:at[3]]
		if !expectLine.MatchString(block) {
			continue
		}
		c := refusal{name: name, source: header + expectLine.ReplaceAllString(block, "")}
		for _, said := range saysLine.FindAllStringSubmatch(block, -1) {
			c.says = append(c.says, words(said[1]))
		}
		if len(c.says) == 0 {
			errs = append(errs, fmt.Errorf("run %q expects a failure and has no line `# says: SENTENCE`", name))
		}
		out = append(out, c)
	}
	return out, errors.Join(errs...)
}

// words is a text without its line breaks.
func words(text string) string { return strings.Join(strings.Fields(text), " ") }

// diagnostics returns what `terraform test -json` printed as errors, by run.
func diagnostics(said []byte) (map[string]string, error) {
	out := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(said))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var line struct {
			Type       string `json:"type"`
			Run        string `json:"@testrun"`
			Diagnostic struct {
				Severity string `json:"severity"`
				Summary  string `json:"summary"`
				Detail   string `json:"detail"`
			} `json:"diagnostic"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return nil, fmt.Errorf("line of terraform test -json: %w", err)
		}
		if line.Type == "diagnostic" && line.Diagnostic.Severity == "error" {
			out[line.Run] += words(line.Diagnostic.Summary+" "+line.Diagnostic.Detail) + "\n"
		}
	}
	return out, lines.Err()
}

// compare says which cases did not print their sentence.
func compare(cases []refusal, found map[string]string) error {
	var errs []error
	for _, c := range cases {
		text, refused := found[c.name]
		if !refused {
			errs = append(errs, fmt.Errorf("run %q was not refused", c.name))
			continue
		}
		for _, want := range c.says {
			if !strings.Contains(text, want) {
				errs = append(errs, fmt.Errorf("run %q does not say %q, but\n%s", c.name, want, text))
			}
		}
	}
	return errors.Join(errs...)
}
