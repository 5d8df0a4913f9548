package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"
)

var update = flag.Bool("update", false, "rewrite the tables of flags in README.md")

const readme = "../../README.md"

// Every flag has an environment variable named after it, a default and a
// sentence, and the README says the same. `go test ./cmd/fastpaca -update`
// rewrites the tables.
func TestReadmeListsEveryFlag(t *testing.T) {
	content, err := os.ReadFile(readme)
	require.NoError(t, err)
	app := newApp(io.Discard, io.Discard)
	rewritten := content
	for _, cmd := range app.Commands {
		if cmd.Name == "version" || cmd.Name == "openapi" || len(cmd.Subcommands) > 0 {
			continue // verbs with verbs of their own have their --help
		}
		section := regexp.MustCompile(`(?s)<!-- flags:` + cmd.Name + ` -->\n.*?<!-- /flags -->`)
		want := fmt.Sprintf("<!-- flags:%s -->\n%s<!-- /flags -->", cmd.Name, flagTable(t, cmd))
		require.True(t, section.Match(rewritten), "README.md has no section for the flags of %s", cmd.Name)
		rewritten = section.ReplaceAllLiteral(rewritten, []byte(want))
	}
	if *update {
		require.NoError(t, os.WriteFile(readme, rewritten, 0o644))
		return
	}
	require.True(t, bytes.Equal(content, rewritten), "README.md is not current: run go test ./cmd/fastpaca -update")
}

func flagTable(t *testing.T, cmd *cli.Command) string {
	var b strings.Builder
	b.WriteString("| flag | environment | default | meaning |\n|---|---|---|---|\n")
	for _, f := range cmd.Flags {
		if f.Names()[0] == "help" {
			continue
		}
		doc, ok := f.(cli.DocGenerationFlag)
		require.True(t, ok, "%v", f.Names())
		name := f.Names()[0]
		env := "FASTPACA_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		require.Equal(t, []string{env}, doc.GetEnvVars(), "--%s of %s", name, cmd.Name)
		usage := strings.ReplaceAll(doc.GetUsage(), "`", "")
		require.NotEmpty(t, usage, "--%s of %s", name, cmd.Name)
		value := strings.Trim(doc.GetDefaultText(), `"`)
		if value == "" {
			value = strings.Trim(doc.GetValue(), `"`)
		}
		if value != "" {
			value = "`" + value + "`"
		}
		fmt.Fprintf(&b, "| `--%s` | `%s` | %s | %s |\n", name, env, value, usage)
	}
	return b.String()
}
