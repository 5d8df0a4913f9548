package openapi

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/controlplane/admin"
)

func TestCheckedInAdminDocumentsAreCurrent(t *testing.T) {
	for file, format := range map[string]string{"admin.yaml": admin.FormatYAML, "admin.json": admin.FormatJSON} {
		t.Run(file, func(t *testing.T) {
			want, err := admin.Document(format)
			require.NoError(t, err)
			if *update {
				require.NoError(t, os.WriteFile(file, want, 0o644))
				return
			}
			got, err := os.ReadFile(file)
			require.NoError(t, err)
			if string(got) != string(want) {
				t.Fatalf("openapi/%s is not what the handlers describe: run `make openapi` (or `go test ./openapi -update`), review the difference, and commit it", file)
			}
		})
	}
}
