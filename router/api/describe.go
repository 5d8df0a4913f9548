package api

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// Media types and answers of operations are declared before the schema registry
// exists. They carry a function that names their schema; operation.document
// calls it.

type schemaFunc func(huma.Registry) *huma.Schema

const schemaKey = "x-schema" // of the function in Extensions, until documented

// jsonContent is a JSON body with an example, which must be valid JSON.
func jsonContent(schema schemaFunc, example string) map[string]*huma.MediaType {
	return map[string]*huma.MediaType{"application/json": {
		Examples:   map[string]*huma.Example{"example": {Value: json.RawMessage(example)}},
		Extensions: map[string]any{schemaKey: schema},
	}}
}

// answer describes a success; schema is nil for one without a body.
type answer struct {
	status      int
	description string
	schema      schemaFunc
	example     string
}

func answers(all ...answer) map[string]*huma.Response {
	responses := make(map[string]*huma.Response, len(all))
	for _, a := range all {
		response := &huma.Response{Description: a.description}
		if a.schema != nil {
			response.Content = jsonContent(a.schema, a.example)
		}
		responses[strconv.Itoa(a.status)] = response
	}
	return responses
}

// kinds that every endpoint under /v1 can answer with.
var commonKinds = []*kind{kindInternal, kindCorrupt, kindUnavailable, kindOverloaded}

// document completes the operation's part of the document: schemas, the path
// parameter, failures, and the headers of answers.
func (op *operation) document(registry huma.Registry) {
	if op.RequestBody != nil {
		resolve(op.RequestBody.Content, registry)
		op.failures = append(op.failures, kindIncompleteBody, kindRequestTimeout)
	}
	for _, response := range op.Responses {
		resolve(response.Content, registry)
		if op.isRead() {
			response.Headers = headers("X-Request-Id", "X-Fastpaca-Last-Seq")
		} else {
			response.Headers = headers("X-Request-Id")
		}
	}
	if strings.Contains(op.Path, "{id}") {
		op.Parameters = append([]*huma.Param{idParam()}, op.Parameters...)
		op.failures = append(op.failures, kindInvalidID)
	}
	op.failures = append(op.failures, commonKinds...)
	op.documentFailures(registry)
}

func resolve(content map[string]*huma.MediaType, registry huma.Registry) {
	for _, media := range content {
		media.Schema = media.Extensions[schemaKey].(schemaFunc)(registry)
		media.Extensions = nil
	}
}

// documentFailures adds one response per status, with an example per code.
func (op *operation) documentFailures(registry huma.Registry) {
	byStatus := make(map[int][]*kind)
	for _, k := range op.failures {
		byStatus[k.status] = append(byStatus[k.status], k)
	}
	for status, kinds := range byStatus {
		slices.SortFunc(kinds, func(a, b *kind) int { return cmp.Compare(a.code, b.code) })
		examples := make(map[string]*huma.Example, len(kinds))
		var codes []string
		for _, k := range kinds {
			if examples[k.code] != nil {
				continue
			}
			codes = append(codes, "`"+k.code+"`")
			examples[k.code] = &huma.Example{Value: json.RawMessage(exampleFailure(k).appendJSON(nil, ""))}
		}
		response := &huma.Response{
			Description: http.StatusText(status) + ": " + strings.Join(codes, ", ") + ".",
			Headers:     headers("X-Request-Id"),
			Content: map[string]*huma.MediaType{"application/json": {
				Schema:   schemaOf[Error](registry),
				Examples: examples,
			}},
		}
		if kinds[0].retryAfter > 0 {
			response.Headers = headers("X-Request-Id", "Retry-After")
		}
		op.Responses[strconv.Itoa(status)] = response
	}
}

func exampleFailure(k *kind) *failure {
	f := &failure{kind: k}
	switch k {
	case kindConflict:
		f.message, f.field, f.number = "Version mismatch (current: 7)", "current_version", 7
	case kindCursorExpired:
		f.message, f.field, f.number = "Messages below sequence 101 are no longer held.", "earliest_seq", 101
	}
	return f
}

func headers(names ...string) map[string]*huma.Header {
	all := map[string]*huma.Header{
		"X-Request-Id": {
			Description: "The id of the request: the client's own if it sent one of at most 128 letters, digits and -_.:/+=@~, else a new one.",
			Schema:      &huma.Schema{Type: huma.TypeString},
		},
		"X-Fastpaca-Last-Seq": {
			Description: "The newest sequence of the conversation that the read saw.",
			Schema:      &huma.Schema{Type: huma.TypeInteger, Format: "int64", Minimum: number(0)},
		},
		"Retry-After": {
			Description: "Seconds to wait before a retry.",
			Schema:      &huma.Schema{Type: huma.TypeInteger, Minimum: number(0)},
		},
	}
	picked := make(map[string]*huma.Header, len(names))
	for _, name := range names {
		picked[name] = all[name]
	}
	return picked
}

// Examples in the document.
const (
	exampleMetadata     = `{"metadata":{"user_id":"u_123","channel":"web"}}`
	exampleConversation = `{"id":"chat-123","version":1,"tombstoned":false,"metadata":{"user_id":"u_123","channel":"web"},"last_seq":1,"archived_seq":0,"head":"5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef","created_at":"2026-01-02T03:04:05.678901Z","updated_at":"2026-01-02T03:04:06.789012Z"}`
	exampleList         = `{"conversations":[` + exampleConversation + `],"next":"kY2hhdC0xMjM"}`
	exampleAppend       = `{"message":{"id":"msg_01","role":"user","parts":[{"type":"text","text":"Hello!"}]},"if_version":0}`
	exampleAppended     = `{"seq":1,"version":1,"token_count":1}`
	exampleDuplicate    = `{"seq":1,"version":1,"token_count":1,"duplicate":true}`
	exampleMessage      = `{"seq":1,"id":"msg_01","role":"user","parts":[{"type":"text","text":"Hello!"}],"metadata":{},"token_count":1,"inserted_at":"2026-01-02T03:04:06.789012Z"}`
	exampleEvent        = `{"type":"message","seq":1,"version":1,"message":` + exampleMessage + `}`
	exampleTail         = `{"messages":[` + exampleMessage + `]}`
	examplePage         = `{"messages":[` + exampleMessage + `],"next_from":2,"last_seq":1}`
)
