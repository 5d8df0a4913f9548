// Package moduledocs writes the tables of inputs and outputs in the READMEs of
// Terraform modules, between the marks that terraform-docs uses, from the
// modules' variables.tf and outputs.tf. It needs no network and no other
// program. Its test fails when a README is not current:
//
//	go test ./infra/moduledocs           # checks them
//	go test ./infra/moduledocs -update   # rewrites them
package moduledocs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// ErrStale is returned for a README whose tables are not those of its module.
var ErrStale = errors.New("not current: run go test ./infra/moduledocs -update")

// Check compares the tables of all modules and examples below root with their
// sources. Its error names every README that is not current.
func Check(root string) error { return each(root, true) }

// Write rewrites the tables of all modules and examples below root.
func Write(root string) error { return each(root, false) }

func each(root string, check bool) error {
	var readmes []string
	for _, pattern := range []string{"modules/*/README.md", "examples/*/README.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return err
		}
		readmes = append(readmes, found...)
	}
	if len(readmes) == 0 {
		return fmt.Errorf("no README.md of a module below %s", root)
	}
	var errs []error
	for _, readme := range readmes {
		errs = append(errs, update(readme, check))
	}
	return errors.Join(errs...)
}

// marked is the part of a README that is generated.
var marked = regexp.MustCompile(`(?s)<!-- BEGIN_TF_DOCS -->\n.*<!-- END_TF_DOCS -->`)

func update(readme string, check bool) error {
	content, err := os.ReadFile(readme)
	if err != nil {
		return err
	}
	if !marked.Match(content) {
		return fmt.Errorf("%s has no marks BEGIN_TF_DOCS and END_TF_DOCS", readme)
	}
	tables, err := describe(filepath.Dir(readme))
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Dir(readme), err)
	}
	current := marked.ReplaceAllLiteral(content, []byte("<!-- BEGIN_TF_DOCS -->\n"+tables+"<!-- END_TF_DOCS -->"))
	switch {
	case bytes.Equal(content, current):
		return nil
	case check:
		return fmt.Errorf("%s: %w", readme, ErrStale)
	}
	return os.WriteFile(readme, current, 0o644)
}

// describe returns the tables of a module.
func describe(module string) (string, error) {
	variables, err := items(module, "variable", "variables.tf")
	if err != nil {
		return "", err
	}
	outputs, err := items(module, "output", "outputs.tf")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("## Inputs\n\n| name | meaning | type | default |\n|---|---|---|---|\n")
	for _, v := range variables {
		value := "required"
		if !v.Required {
			value = code(v.Default)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", v.Name, cell(v.Description), code(v.Type), value)
	}
	b.WriteString("\n## Outputs\n\n| name | meaning |\n|---|---|\n")
	for _, o := range outputs {
		sensitive := ""
		if o.Sensitive {
			sensitive = " Sensitive."
		}
		fmt.Fprintf(&b, "| `%s` | %s%s |\n", o.Name, cell(o.Description), sensitive)
	}
	return b.String(), nil
}

// items reads one kind of block of a module's file, those without a default
// first.
func items(module, kind, file string) ([]item, error) {
	text, err := os.ReadFile(filepath.Join(module, file))
	if err != nil {
		return nil, err
	}
	found, err := parse(kind, string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	slices.SortStableFunc(found, func(a, b item) int {
		switch {
		case a.Required == b.Required:
			return 0
		case a.Required:
			return -1
		}
		return 1
	})
	return found, nil
}

func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }

func code(s string) string { return "`" + cell(s) + "`" }
