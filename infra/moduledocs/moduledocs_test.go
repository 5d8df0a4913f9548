package moduledocs

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var write = flag.Bool("update", false, "rewrite the tables in the READMEs")

func TestReadmesAreCurrent(t *testing.T) {
	if *write {
		require.NoError(t, Write(".."))
	}
	require.NoError(t, Check(".."))
}

const variables = `variable "name" {
  description = "Name of a \"thing\" | or two."
  type        = string
  default     = "x"

  validation {
    condition     = length(var.name) > 0
    error_message = "name: give one."
  }
}

variable "size" {
  description = "How large."
  type = object({
    cpu    = number
    memory = optional(number, 3)
  })
  default = {}
}

variable "needed" {
  description = "Must be given."
  type        = list(string)
  sensitive   = true
}
`

func TestParse(t *testing.T) {
	t.Parallel()
	got, err := parse("variable", variables)
	require.NoError(t, err)
	require.Equal(t, []item{
		{Name: "name", Description: `Name of a "thing" | or two.`, Type: "string", Default: `"x"`},
		{Name: "size", Description: "How large.", Type: "object({ cpu = number, memory = optional(number, 3) })", Default: "{}"},
		{Name: "needed", Description: "Must be given.", Type: "list(string)", Required: true, Sensitive: true},
	}, got)

	for name, text := range map[string]string{
		"no description":      "variable \"a\" {\n  type = string\n}\n",
		"a long description":  "variable \"a\" {\n  description = <<-EOT\n    x\n  EOT\n  type = string\n}\n",
		"no type":             "variable \"a\" {\n  description = \"x\"\n}\n",
		"a block without end": "variable \"a\" {\n  description = \"x\"\n",
	} {
		_, err := parse("variable", text)
		require.Error(t, err, name)
	}
}

// Whatever a file holds, reading it ends.
func TestParseAnything(t *testing.T) {
	t.Parallel()
	lines := []string{`variable "a" {`, `output "b" {`, "}", `  description = "x"`, "  type = object({", "  })", "  default = [", "  ]", "", "  default =", "x"}
	rapid.Check(t, func(t *rapid.T) {
		var text bytes.Buffer
		for _, line := range rapid.SliceOf(rapid.SampledFrom(lines)).Draw(t, "lines") {
			text.WriteString(line + "\n")
		}
		_, _ = parse("variable", text.String())
	})
}

func TestUpdateAndCheck(t *testing.T) {
	t.Parallel()
	infra := t.TempDir()
	module := filepath.Join(infra, "modules", "m")
	require.NoError(t, os.MkdirAll(module, 0o755))
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(module, name), []byte(text), 0o644))
	}
	write("variables.tf", variables)
	write("outputs.tf", "output \"url\" {\n  description = \"Where.\"\n  value       = 1\n  sensitive   = true\n}\n")
	write("README.md", "# M\n\n<!-- BEGIN_TF_DOCS -->\nold\n<!-- END_TF_DOCS -->\n\nend\n")

	require.ErrorIs(t, Check(infra), ErrStale)
	require.NoError(t, Write(infra))
	require.NoError(t, Check(infra))
	got, err := os.ReadFile(filepath.Join(module, "README.md"))
	require.NoError(t, err)
	require.Equal(t, `# M

<!-- BEGIN_TF_DOCS -->
## Inputs

| name | meaning | type | default |
|---|---|---|---|
| `+"`needed` | Must be given. | `list(string)` | required |"+`
| `+"`name` | Name of a \"thing\" \\| or two. | `string` | `\"x\"` |"+`
| `+"`size` | How large. | `object({ cpu = number, memory = optional(number, 3) })` | `{}` |"+`

## Outputs

| name | meaning |
|---|---|
| `+"`url` | Where. Sensitive. |"+`
<!-- END_TF_DOCS -->

end
`, string(got))

	write("README.md", "# no marks\n")
	require.ErrorContains(t, Write(infra), "no marks")
	require.Error(t, Check(t.TempDir()), "nothing to document")
}
