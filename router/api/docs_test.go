package api

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheDocumentIsServed(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for path, served := range map[string]struct{ format, contentType string }{
		"openapi.json":     {FormatJSON, "application/openapi+json"},
		"openapi.yaml":     {FormatYAML, "application/openapi+yaml"},
		"openapi-3.0.json": {FormatJSON30, "application/openapi+json"},
	} {
		want, err := Document(served.format)
		require.NoError(t, err)
		for _, below := range []string{"/", "/v1/"} {
			got := h.do("GET", below+path, "").is(200).says(string(want))
			require.Equal(t, served.contentType, got.header.Get("Content-Type"))
		}
	}
	_, err := Document("toml")
	require.ErrorContains(t, err, "unknown format")
}

// Generators trip over these; see the names of the checks.
func TestTheDocumentSuitsGenerators(t *testing.T) {
	t.Parallel()
	rendered, err := Document(FormatJSON)
	require.NoError(t, err)
	text := string(rendered)
	require.NotContains(t, text, `"$schema"`, "no $schema members")
	require.NotContains(t, text, "x-schema", "every schema is resolved")
	require.NotContains(t, text, "ErrorModel", "no failures of Huma's own")
	require.NotContains(t, text, `"422"`)
	require.NotRegexp(t, regexp.MustCompile(`"array",\s*"null"`), text, "no nullable arrays")

	var document struct {
		OpenAPI string
		Servers []struct{ URL string }
		Paths   map[string]map[string]struct {
			OperationID string `json:"operationId"`
			Parameters  []struct{ Name, In string }
			Responses   map[string]struct {
				Content map[string]struct {
					Examples map[string]any
				}
			}
		}
		Components struct {
			Schemas map[string]map[string]any
		}
	}
	require.NoError(t, json.Unmarshal(rendered, &document))
	require.Equal(t, "3.1.0", document.OpenAPI)
	require.True(t, strings.HasSuffix(document.Servers[0].URL, "/v1"))
	require.Equal(t, "json.RawMessage", document.Components.Schemas["MessagePart"]["x-go-type"])
	require.Equal(t, true, document.Components.Schemas["MessagePart"]["additionalProperties"])
	operations := 0
	for path, item := range document.Paths {
		require.False(t, strings.HasPrefix(path, "/v1"), path)
		for method, op := range item {
			operations++
			require.NotEmpty(t, op.OperationID)
			require.Contains(t, op.Responses, "500", op.OperationID)
			require.Contains(t, op.Responses, "503", op.OperationID)
			for status, response := range op.Responses {
				if method == "delete" && status == "204" || status == "101" {
					continue
				}
				media, ok := response.Content["text/event-stream"]
				if !ok {
					media = response.Content["application/json"]
				}
				require.True(t, len(media.Examples) > 0, "%s %s has no example", op.OperationID, status)
			}
		}
	}
	require.Equal(t, 9, operations)
}

func TestExamplesFitTheirSchemas(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	for _, item := range h.api.documents.source.Paths {
		if item.Post == nil {
			continue
		}
		media := item.Post.RequestBody.Content["application/json"]
		example, err := json.Marshal(media.Examples["example"].Value)
		require.NoError(t, err)
		h.create("chat-123")
		h.do("POST", "/v1/conversations/chat-123/messages", string(example)).is(201).says(exampleAppended)
		h.do("POST", "/v1/conversations/chat-123/messages", string(example)).is(200).says(exampleDuplicate)
	}
	for schema, example := range map[string]string{"Conversation": exampleConversation, "ConversationList": exampleList, "MessageTail": exampleTail, "MessagePage": examplePage, "Appended": exampleAppended, "StreamMessage": exampleEvent} {
		h.checkSchema(h.api.documents.source.Components.Schemas.Map()[schema], &reply{t: t, body: []byte(example)})
	}
}

func TestDocsWorkOffline(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	page := h.do("GET", "/docs", "").is(200)
	require.Equal(t, "text/html; charset=utf-8", page.header.Get("Content-Type"))
	require.NotRegexp(t, regexp.MustCompile(`(src|href)="(https?:)?//`), string(page.body), "nothing from elsewhere")
	policy := page.header.Get("Content-Security-Policy")
	require.Contains(t, policy, "default-src 'none'")
	require.NotContains(t, policy, "http")
	require.NotContains(t, policy, "unsafe-eval")
	for _, link := range regexp.MustCompile(`(?:src|href)="([^":]+)"`).FindAllStringSubmatch(string(page.body), -1) {
		h.do("GET", "/"+link[1], "").is(200)
	}
	h.do("GET", "/docs/", "").is(301)

	packed := h.do("GET", "/docs/rapidoc-min.js", "", "Accept-Encoding", "gzip, br").is(200)
	require.Equal(t, "gzip", packed.header.Get("Content-Encoding"))
	plain := h.do("GET", "/docs/rapidoc-min.js", "").is(200)
	require.Empty(t, plain.header.Get("Content-Encoding"))
	unpacked, err := unpack(packed.body)
	require.NoError(t, err)
	require.Equal(t, plain.body, unpacked)
	// The file as it is in rapidoc 9.3.8; see docs/README.md.
	sum := sha256.Sum256(unpacked)
	require.Equal(t, "affbd173a65e870e18f392cca963113bcdafb6e50e88cd2f6a834a65b22db94d", hex.EncodeToString(sum[:]))
	h.do("GET", "/docs/rapidoc-min.js", "", "If-None-Match", plain.header.Get("ETag")).is(304)

	_, err = unpack([]byte("not packed"))
	require.Error(t, err)
	_, err = unpack(packed.body[:1000])
	require.Error(t, err)
}
