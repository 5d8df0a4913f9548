package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/yaml"
)

// Version is the version of the public contract, not of the program.
const Version = "1.0.0"

// ServerURL is the server that the document names: the default address of a
// local server.
const ServerURL = "http://localhost:4000" + basePath

const description = `A message backend for AI agents: an append-only, ordered, replayable log per conversation.

Every failure has a body with a stable code in ` + "`error`" + ` and a sentence in ` + "`message`" + `. Answers of 503 and 504 carry Retry-After. ` +
	`Beside the paths below, the server answers ` + "`/health/live`, `/health/ready` and `/metrics`" + ` outside of /v1.`

// specification configures Huma: no $schema members, no generated routes, and
// an empty registry.
func specification() huma.Config {
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title:       "Fastpaca",
				Version:     Version,
				Description: description,
				License:     &huma.License{Name: "Apache-2.0", URL: "https://www.apache.org/licenses/LICENSE-2.0"},
			},
			Servers: []*huma.Server{{URL: ServerURL, Description: "A local server"}},
			Tags: []*huma.Tag{
				{Name: "conversations", Description: "Create, read, list and close conversations."},
				{Name: "messages", Description: "Append and read messages."},
				{Name: "streams", Description: "Follow a conversation as it grows. Clients of Phoenix Channels connect to `/socket` and join `conversation:<id>`."},
			},
			Security:   []map[string][]string{},
			Components: &huma.Components{Schemas: huma.NewMapRegistry(schemaPrefix, huma.DefaultSchemaNamer)},
		},
		Formats:       huma.DefaultFormats,
		DefaultFormat: "application/json",
	}
}

// Formats in which Document renders.
const (
	FormatYAML   = "yaml"   // OpenAPI 3.1
	FormatJSON   = "json"   // OpenAPI 3.1
	FormatJSON30 = "json30" // OpenAPI 3.0, for generators that want it
)

// Document renders the OpenAPI document of the running handlers, without
// running them.
func Document(format string) ([]byte, error) {
	return newAPI(DefaultConfig()).documents.render(format)
}

// documents renders the document once per format, when first asked for.
type documents struct {
	once   sync.Once
	source *huma.OpenAPI
	byForm map[string][]byte
	err    error
}

func newDocuments(source *huma.OpenAPI) *documents {
	registerOpenSchemas(source.Components.Schemas)
	return &documents{source: source}
}

func (d *documents) render(format string) ([]byte, error) {
	d.once.Do(func() { d.byForm, d.err = renderAll(d.source) })
	if d.err != nil {
		return nil, d.err
	}
	rendered, ok := d.byForm[format]
	if !ok {
		return nil, fmt.Errorf("openapi document: unknown format %q", format)
	}
	return rendered, nil
}

func renderAll(source *huma.OpenAPI) (map[string][]byte, error) {
	compact, err := json.Marshal(source)
	if err != nil {
		return nil, fmt.Errorf("openapi document: %w", err)
	}
	older, err := source.Downgrade()
	if err != nil {
		return nil, fmt.Errorf("openapi document 3.0: %w", err)
	}
	var current, current30, text bytes.Buffer
	if err := json.Indent(&current, compact, "", "  "); err != nil {
		return nil, fmt.Errorf("openapi document: %w", err)
	}
	if err := json.Indent(&current30, older, "", "  "); err != nil {
		return nil, fmt.Errorf("openapi document 3.0: %w", err)
	}
	if err := yaml.Convert(&text, bytes.NewReader(compact)); err != nil {
		return nil, fmt.Errorf("openapi document as YAML: %w", err)
	}
	current.WriteByte('\n')
	current30.WriteByte('\n')
	return map[string][]byte{FormatJSON: current.Bytes(), FormatJSON30: current30.Bytes(), FormatYAML: text.Bytes()}, nil
}

// routeDocuments routes the document below a path.
func (a *API) routeDocuments(below string) {
	for path, served := range map[string]struct{ format, contentType string }{
		"/openapi.json":     {FormatJSON, "application/openapi+json"},
		"/openapi.yaml":     {FormatYAML, "application/openapi+yaml"},
		"/openapi-3.0.json": {FormatJSON30, "application/openapi+json"},
	} {
		a.mux.Get(below+path, func(w http.ResponseWriter, _ *http.Request) {
			x := w.(*exchange)
			rendered, err := a.documents.render(served.format)
			if err != nil {
				x.fail(&failure{kind: kindInternal, cause: err})
				return
			}
			x.Header().Set("Content-Type", served.contentType)
			x.Header().Set("Access-Control-Allow-Origin", "*")
			_, _ = x.Write(rendered)
		})
	}
}
