package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/yaml"
)

// Version is the version of the contract, not of the program.
const Version = "1.0.0"

const description = `Look at a Fastpaca cluster and change it.

Every member of the control plane serves this on its internal listener, behind the handshake of the cluster's network; members that do not ` +
	`lead redirect to the one that does. Where it is served as plain HTTP it wants the cluster's token as bearer token.

Every failure has a body with a stable code in ` + "`error`" + ` and a sentence in ` + "`message`" + `. A refusal changes nothing.`

var errorType = reflect.TypeFor[Error]()

// specification configures Huma: no generated routes, no $schema members.
func specification() huma.Config {
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Fastpaca admin", Version: Version, Description: description,
				License: &huma.License{Name: "Apache-2.0", URL: "https://www.apache.org/licenses/LICENSE-2.0"},
			},
			Tags: []*huma.Tag{
				{Name: "look", Description: "What there is and what goes on."},
				{Name: "operate", Description: "Change it."},
			},
			Components: &huma.Components{
				Schemas:         huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer", Description: "The cluster's token."}},
			},
		},
		Formats:       huma.DefaultFormats,
		DefaultFormat: "application/json",
		Transformers:  []huma.Transformer{plainErrors},
	}
}

// plainErrors makes an Error of what Huma refuses by itself.
func plainErrors(_ huma.Context, _ string, v any) (any, error) {
	model, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	e := &Error{Code: "invalid_request", Message: model.Detail, status: model.Status}
	if model.Status >= http.StatusInternalServerError {
		e.Code = "internal"
	}
	for _, detail := range model.Errors {
		e.Message += "; " + detail.Error()
	}
	return e, nil
}

// describeInvalid names the Error that plainErrors makes where Huma has added its
// own model of failures to the document.
func describeInvalid(spec *huma.OpenAPI) {
	schemas := spec.Components.Schemas
	for _, item := range spec.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Delete} {
			if op == nil {
				continue
			}
			for _, response := range op.Responses {
				if response.Content["application/problem+json"] != nil {
					response.Content = map[string]*huma.MediaType{"application/json": {Schema: schemas.Schema(errorType, true, "")}}
				}
			}
		}
	}
	delete(schemas.Map(), "ErrorModel")
	delete(schemas.Map(), "ErrorDetail")
}

// Formats in which Document renders.
const (
	FormatYAML = "yaml"
	FormatJSON = "json"
)

// Document renders the OpenAPI 3.1 document of the handlers, without running
// them.
func Document(format string) ([]byte, error) {
	compact, err := json.Marshal(NewHandler(nil, Options{Logger: slog.New(slog.DiscardHandler)}).spec)
	if err != nil {
		return nil, fmt.Errorf("admin document: %w", err)
	}
	var out bytes.Buffer
	switch format {
	case FormatYAML:
		err = yaml.Convert(&out, bytes.NewReader(compact))
	case FormatJSON:
		if err = json.Indent(&out, compact, "", "  "); err == nil {
			out.WriteByte('\n')
		}
	default:
		err = fmt.Errorf("unknown format %q", format)
	}
	if err != nil {
		return nil, fmt.Errorf("admin document: %w", err)
	}
	return out.Bytes(), nil
}
