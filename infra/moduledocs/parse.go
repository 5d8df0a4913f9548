package moduledocs

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// item is a variable or an output of a module.
type item struct {
	Name        string
	Description string
	Type        string // of a variable
	Default     string // of a variable, as written
	Required    bool   // a variable without a default
	Sensitive   bool
}

var (
	blockStart = regexp.MustCompile(`^(variable|output) "([a-z0-9_]+)" \{$`)
	attribute  = regexp.MustCompile(`^  ([a-z_]+) += (.*)$`)
)

// parse reads the variables or outputs of a file that `terraform fmt` has
// formatted: a block ends with the first brace in the first column, and its
// attributes stand two columns in. That is all of the language it knows.
func parse(kind, text string) ([]item, error) {
	var items []item
	var errs []error
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		start := blockStart.FindStringSubmatch(lines[i])
		if start == nil || start[1] != kind {
			continue
		}
		end := i + 1
		for end < len(lines) && lines[end] != "}" {
			end++
		}
		if end == len(lines) {
			return nil, fmt.Errorf("%s %q does not end; is the file formatted by terraform fmt?", kind, start[2])
		}
		it, err := parseBlock(start[2], lines[i+1:end], kind == "variable")
		items, errs = append(items, it), append(errs, err)
		i = end
	}
	return items, errors.Join(errs...)
}

func parseBlock(name string, lines []string, variable bool) (item, error) {
	it := item{Name: name, Required: variable}
	for i := 0; i < len(lines); i++ {
		found := attribute.FindStringSubmatch(lines[i])
		if found == nil {
			continue
		}
		value := []string{found[2]}
		// A value that opens a bracket at the end of its line goes on to the
		// line that closes it, in the column of the attribute.
		if last := found[2][max(0, len(found[2])-1):]; strings.Contains("{[(", last) && last != "" {
			for i++; i < len(lines); i++ {
				value = append(value, strings.TrimSpace(lines[i]))
				if strings.HasPrefix(lines[i], "  }") || strings.HasPrefix(lines[i], "  ]") || strings.HasPrefix(lines[i], "  )") {
					break
				}
			}
		}
		switch found[1] {
		case "description":
			it.Description = unquote(value[0])
		case "type":
			it.Type = join(value)
		case "default":
			it.Default, it.Required = join(value), false
		case "sensitive":
			it.Sensitive = value[0] == "true"
		}
	}
	if it.Description == "" {
		return it, fmt.Errorf("%q has no description on one line", name)
	}
	if variable && it.Type == "" {
		return it, fmt.Errorf("variable %q has no type", name)
	}
	return it, nil
}

// unquote returns the text of a quoted string; "" if it is none.
func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return ""
	}
	return strings.NewReplacer(`\"`, `"`, `\\`, `\`, "$${", "${").Replace(s[1 : len(s)-1])
}

var spaces = regexp.MustCompile(`\s+`)

// join puts the lines of a value on one.
func join(lines []string) string {
	for i := 1; i < len(lines)-1; i++ {
		lines[i] = strings.TrimSuffix(lines[i], ",") + ","
	}
	if n := len(lines); n > 1 {
		lines[n-2] = strings.TrimSuffix(lines[n-2], ",")
	}
	return strings.TrimSpace(spaces.ReplaceAllString(strings.Join(lines, " "), " "))
}
