package contract

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// document is the contract in the repository; who has only the module of the
// SDK does not have it, and nothing to compare with.
const document = "../../../../openapi/openapi.yaml"

// The generated client is what the pinned generator makes of the contract.
func TestGeneratedCodeIsCurrent(t *testing.T) {
	if _, err := os.Stat(document); errors.Is(err, fs.ErrNotExist) {
		t.Skip("not in the repository: there is no contract to compare with")
	}
	fresh := filepath.Join(t.TempDir(), "contract.gen.go")
	out, err := exec.Command("go", "tool", "-modfile=../../tool.mod", "oapi-codegen", "-config", "oapi-codegen.yaml", "-o", fresh, document).CombinedOutput()
	require.NoError(t, err, "%s", out)
	want, err := os.ReadFile(fresh)
	require.NoError(t, err)
	got, err := os.ReadFile("contract.gen.go")
	require.NoError(t, err)
	if string(got) != string(want) {
		t.Fatal("contract.gen.go is not what openapi/openapi.yaml describes: run `go generate ./...` in sdk/go, review the difference, and commit it")
	}
}
