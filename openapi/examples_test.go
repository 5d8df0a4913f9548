package openapi

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every operation shows what to send and what comes: a value for each of its
// parameters, a body, and every answer that has one. Both renderings do.
func TestEveryOperationHasExamples(t *testing.T) {
	t.Parallel()
	type content map[string]struct {
		Examples map[string]struct{ Value any }
	}
	for _, file := range []string{"openapi.json", "openapi-3.0.json"} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		var document struct {
			Paths map[string]map[string]struct {
				OperationID string `json:"operationId"`
				Parameters  []struct {
					Name    string
					Example any
				}
				RequestBody struct{ Content content } `json:"requestBody"`
				Responses   map[string]struct{ Content content }
			}
		}
		require.NoError(t, json.Unmarshal(text, &document))
		require.NotEmpty(t, document.Paths)
		hasExamples := func(what string, c content) {
			for media, described := range c {
				require.NotEmpty(t, described.Examples, "%s: %s %s", file, what, media)
				for name, example := range described.Examples {
					require.NotNil(t, example.Value, "%s: %s %s %s", file, what, media, name)
				}
			}
		}
		for _, methods := range document.Paths {
			for _, op := range methods {
				for _, p := range op.Parameters {
					require.NotNil(t, p.Example, "%s: %s, parameter %s", file, op.OperationID, p.Name)
				}
				hasExamples(op.OperationID+" body", op.RequestBody.Content)
				for status, answer := range op.Responses {
					hasExamples(op.OperationID+" "+status, answer.Content)
				}
			}
		}
	}
}
