package browser

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// TestGenerators makes clients of the contract with the generators that people
// use, with their defaults, compiles them at their strictest, and puts the cases
// of testdata/cases.json through each. What a client cannot express is skipped.
func TestGenerators(t *testing.T) {
	tools := findTools(t)
	t.Parallel()
	server := process.MustStart(t, process.Config{DataDir: t.TempDir()})
	cases, err := filepath.Abs("testdata/cases.json")
	require.NoError(t, err)

	t.Run("typescript", func(t *testing.T) {
		project := typescriptProject(t, tools)
		for _, client := range []string{"openapi-fetch", "hey-api"} {
			t.Run(client, func(t *testing.T) {
				args := []string{"suite/generated.mjs", cases, filepath.Join(project, client+".js")}
				report(t, runProgram(t, tools.node.node, args, []string{"BASE=" + server.URL()}))
			})
		}
	})
	for _, document := range []string{"openapi.yaml", "openapi-3.0.json"} {
		t.Run("oapi-codegen of "+document, func(t *testing.T) {
			project := t.TempDir()
			require.NoError(t, os.CopyFS(project, os.DirFS("testdata/oapi-codegen")))
			require.NoError(t, os.Mkdir(filepath.Join(project, "contract"), 0o755))
			must(t, command(project, "go", "tool", "oapi-codegen", "-generate", "types,client", "-package", "contract",
				"-o", "contract/contract.gen.go", filepath.Join(tools.root, "openapi", document)))
			must(t, command(project, "go", "vet", "./..."))
			program := filepath.Join(project, "client")
			must(t, command(project, "go", "build", "-o", program, "."))
			report(t, runProgram(t, program, []string{cases}, []string{"BASE=" + server.URL(), "NAME=" + document}))
		})
	}
}

// typescriptProject compiles the clients of both generators: openapi-typescript,
// which runs here, and hey-api, whose output the SDK's package exports as it is.
func typescriptProject(t *testing.T, tools *tools) string {
	t.Helper()
	project := t.TempDir()
	for _, name := range []string{"calls.ts", "hey-api.ts", "openapi-fetch.ts"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(project, name), text, 0o644))
	}
	require.NoError(t, os.WriteFile(filepath.Join(project, "package.json"), []byte(`{"private":true,"type":"module"}`), 0o644))
	config := `{"compilerOptions":{"target":"ES2022","module":"NodeNext","lib":["ES2022","DOM","DOM.Iterable","DOM.AsyncIterable"],"types":[],` +
		`"strict":true,"noUncheckedIndexedAccess":true,"skipLibCheck":true},"include":["*.ts"]}`
	require.NoError(t, os.WriteFile(filepath.Join(project, "tsconfig.json"), []byte(config), 0o644))

	modules := filepath.Join(project, "node_modules")
	require.NoError(t, os.MkdirAll(filepath.Join(modules, "@fastpaca"), 0o755))
	installed, err := filepath.Abs("node_modules")
	require.NoError(t, err)
	for name, path := range map[string]string{
		"@fastpaca/fastpaca":         tools.sdk,
		"openapi-fetch":              filepath.Join(installed, "openapi-fetch"),
		"openapi-typescript-helpers": filepath.Join(installed, "openapi-typescript-helpers"),
	} {
		require.NoError(t, os.Symlink(path, filepath.Join(modules, name)))
	}
	generator := filepath.Join(installed, "openapi-typescript", "bin", "cli.js")
	// Not as .d.ts, which the compiler would not check.
	must(t, command(".", tools.node.node, generator, filepath.Join(tools.root, "openapi", "openapi.yaml"), "--output", filepath.Join(project, "contract.ts")))
	must(t, command(project, tools.node.node, tools.compiler(), "-p", "."))
	return project
}
