package openapi

import (
	"flag"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/router/api"
)

var update = flag.Bool("update", false, "write the documents instead of comparing them")

var formats = map[string]string{
	"openapi.yaml":     api.FormatYAML,
	"openapi.json":     api.FormatJSON,
	"openapi-3.0.json": api.FormatJSON30,
}

func TestCheckedInDocumentsAreCurrent(t *testing.T) {
	for file, format := range formats {
		t.Run(file, func(t *testing.T) {
			want, err := api.Document(format)
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

// The same handlers always render the same bytes.
func TestRenderingIsDeterministic(t *testing.T) {
	for _, format := range formats {
		first, err := api.Document(format)
		require.NoError(t, err)
		for range 2 {
			again, err := api.Document(format)
			require.NoError(t, err)
			require.Equal(t, string(first), string(again))
		}
	}
}
