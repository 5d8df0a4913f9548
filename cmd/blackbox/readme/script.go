package readme

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// Step is one thing to do: run a script, or restart the server when it has
// none.
type Step struct {
	Name    string // the word after "test:"
	Line    int    // of the marker
	Script  string
	Expect  []string
	Restart bool
}

const (
	testMark   = "test:"
	expectMark = "expect:"
	restart    = "restart"
)

// Parse returns the steps of a Markdown document. A marker that has no block,
// or an expectation that follows none, is an error: a test that runs nothing
// should not pass.
func Parse(markdown io.Reader) ([]Step, error) {
	var (
		steps   []Step
		waiting bool // the last step's block is yet to come
		inside  bool // of a fence
		wanted  bool // the fence is a step's
		number  int
	)
	lines := bufio.NewScanner(markdown)
	for lines.Scan() {
		number++
		line := lines.Text()
		trimmed := strings.TrimSpace(line)
		switch {
		case inside && trimmed == "```":
			inside, wanted = false, false
			continue
		case inside:
			if wanted {
				steps[len(steps)-1].Script += line + "\n"
			}
			continue
		case strings.HasPrefix(trimmed, "```"):
			inside = true
			if waiting {
				if trimmed != "```bash" && trimmed != "```sh" {
					return nil, fmt.Errorf("line %d: the block to test is %s, not bash", number, trimmed)
				}
				wanted, waiting = true, false
			}
			continue
		}
		comment, ok := commentOf(trimmed)
		if !ok {
			continue
		}
		switch {
		case strings.HasPrefix(comment, testMark):
			if waiting {
				return nil, fmt.Errorf("line %d: the marker before it has no block", number)
			}
			name := strings.TrimSpace(strings.TrimPrefix(comment, testMark))
			steps = append(steps, Step{Name: name, Line: number, Restart: name == restart})
			waiting = name != restart
		case strings.HasPrefix(comment, expectMark):
			if waiting || len(steps) == 0 || steps[len(steps)-1].Restart {
				return nil, fmt.Errorf("line %d: an expectation follows no block", number)
			}
			last := &steps[len(steps)-1]
			last.Expect = append(last.Expect, strings.TrimSpace(strings.TrimPrefix(comment, expectMark)))
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read Markdown: %w", err)
	}
	if waiting || inside {
		return nil, fmt.Errorf("line %d: the document ends before a block does", number)
	}
	return steps, nil
}

// commentOf returns the text of a line that is one HTML comment.
func commentOf(line string) (string, bool) {
	inner, ok := strings.CutPrefix(line, "<!--")
	if !ok {
		return "", false
	}
	inner, ok = strings.CutSuffix(inner, "-->")
	return strings.TrimSpace(inner), ok
}
