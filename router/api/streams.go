package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fastpaca/fastpaca/router/socket"
)

func (a *API) streamOperation() *operation {
	return &operation{
		Operation: huma.Operation{
			OperationID: "streamConversation", Method: http.MethodGet, Path: "/conversations/{id}/stream",
			Tags: []string{"streams"}, Summary: "Follow a conversation on a WebSocket",
			Description: "Upgrades to a WebSocket on which the server sends one JSON text frame per event, of the schema StreamEvent: " +
				"first the messages from `from` on, then `caught_up`, then messages as they are appended, without hole or repeat. A reader that is slow is served from the log. " +
				"`tombstone` follows the last message of a conversation that is closed for writing. `gap` is sent only when messages are gone from log and archive.\n\n" +
				"The client sends nothing but control frames; a data frame is answered with close code 1003. The server closes with 1012 when it restarts, " +
				"1001 when pings are not answered, 1013 when it cannot follow the conversation now. After any close, connect again with `from` set to the last seq seen plus one.",
			Parameters: parametersOf(streamFromParam.document),
			Responses:  map[string]*huma.Response{"101": {Description: "The connection is a WebSocket from here on."}},
			Extensions: map[string]any{"x-websocket": map[string]any{
				"server": map[string]string{"$ref": schemaPrefix + "StreamEvent"},
			}},
		},
		failures: []*kind{kindInvalidParameter, kindNoConversation, kindUpgrade, kindHandshake, kindOrigin},
		streams:  true,
		serve:    a.stream,
	}
}

func (a *API) eventsOperation() *operation {
	return &operation{
		Operation: huma.Operation{
			OperationID: "conversationEvents", Method: http.MethodGet, Path: "/conversations/{id}/events",
			Tags: []string{"streams"}, Summary: "Follow a conversation with Server-Sent Events",
			Description: "The events of the WebSocket, each with its `type` as the name of the event and itself as JSON data. " +
				"`id` is the last seq seen, so an EventSource that reconnects goes on where it was: `Last-Event-ID: N` is `from=N+1`, and wins over `from`. " +
				"A comment is sent every 15 seconds.",
			Parameters: parametersOf(streamFromParam.document, lastEventParam),
			Responses:  map[string]*huma.Response{"200": eventStream()},
		},
		failures: []*kind{kindInvalidParameter, kindNoConversation, kindOrigin, kindUnsupportedVersion},
		streams:  true,
		serve:    a.events,
	}
}

var streamFromParam = intParam{"from", "The first sequence wanted; it may lie ahead. 0 is taken as 1. Absent means from now on. `from_seq` is an alias.", 0, 1, 0, 4}

// eventStream describes a body of events. Its schema is that of one of them,
// which is how generators of clients take it.
func eventStream() *huma.Response {
	return &huma.Response{
		Description: "The events, until the client leaves or the server restarts. The schema is that of the data of one event.",
		Content: map[string]*huma.MediaType{"text/event-stream": {
			Examples: map[string]*huma.Example{
				"message":   {Value: json.RawMessage(exampleEvent)},
				"caught_up": {Value: json.RawMessage(`{"type":"caught_up","seq":3}`)},
				"tombstone": {Value: json.RawMessage(`{"type":"tombstone"}`)},
				"gap":       {Value: json.RawMessage(`{"type":"gap","expected":1,"actual":101}`)},
			},
			Extensions: map[string]any{schemaKey: schemaFunc(schemaOf[StreamEvent])},
		}},
	}
}

// The events of streams, as their document describes them; package socket writes
// them.

// StreamEvent is one event of a stream.
type StreamEvent struct{}

// Schema adds the union of all events, which their type tells apart.
func (StreamEvent) Schema(registry huma.Registry) *huma.Schema {
	const name = "StreamEvent"
	if registry.Map()[name] == nil {
		union := &huma.Schema{Description: "One event of a stream."}
		registry.Map()[name] = union
		mapping := map[string]string{}
		for _, event := range []struct {
			name   string
			schema *huma.Schema
		}{
			{"message", schemaOf[StreamMessage](registry)},
			{"caught_up", schemaOf[StreamCaughtUp](registry)},
			{"tombstone", schemaOf[StreamTombstone](registry)},
			{"gap", schemaOf[StreamGap](registry)},
		} {
			union.OneOf = append(union.OneOf, event.schema)
			mapping[event.name] = event.schema.Ref
		}
		union.Discriminator = &huma.Discriminator{PropertyName: "type", Mapping: mapping}
	}
	return &huma.Schema{Ref: schemaPrefix + name}
}

// StreamMessage tells of a message.
type StreamMessage struct {
	Type    string  `json:"type" enum:"message"`
	Seq     uint64  `json:"seq" format:"int64" minimum:"1" example:"3"`
	Version uint64  `json:"version" format:"int64" example:"3" doc:"The version of the conversation after the append of the message."`
	Message Message `json:"message"`
}

// StreamCaughtUp tells that what was stored has been sent.
type StreamCaughtUp struct {
	Type string `json:"type" enum:"caught_up"`
	Seq  uint64 `json:"seq" format:"int64" example:"3" doc:"The last sequence when the stream began. What follows is new."`
}

// StreamTombstone tells that no message will follow.
type StreamTombstone struct {
	Type string `json:"type" enum:"tombstone"`
}

// StreamGap tells that messages are gone.
type StreamGap struct {
	Type     string `json:"type" enum:"gap"`
	Expected uint64 `json:"expected" format:"int64" example:"1" doc:"The sequence that should have come next."`
	Actual   uint64 `json:"actual" format:"int64" example:"101" doc:"The sequence that comes next: the lowest still held."`
}

func lastEventParam() *huma.Param {
	return &huma.Param{
		Name: "Last-Event-ID", In: "header", Example: 3,
		Description: "The last seq seen. Browsers send it when they reconnect.",
		Schema:      &huma.Schema{Type: huma.TypeInteger, Format: "int64", Minimum: number(0)},
	}
}

// readStreamFrom returns the first sequence wanted, or 0 for from now on.
func readStreamFrom(r *http.Request) (uint64, error) {
	q, err := parseQuery(r)
	if err != nil {
		return 0, err
	}
	from, given, err := readFrom(q, streamFromParam)
	if err != nil || !given {
		return 0, err
	}
	return uint64(from), nil
}

func (a *API) stream(ctx context.Context, x *exchange, r *http.Request) error {
	if !x.shared {
		return &failure{kind: kindOrigin}
	}
	from, err := readStreamFrom(r)
	if err != nil {
		return err
	}
	if a.streams == nil {
		return &failure{kind: kindUnavailable, cause: errNoStreams}
	}
	return a.streams.WebSocket(x, r.WithContext(ctx), x.key, from)
}

func (a *API) events(ctx context.Context, x *exchange, r *http.Request) error {
	if !x.shared {
		return &failure{kind: kindOrigin}
	}
	from, err := readStreamFrom(r)
	if err != nil {
		return err
	}
	if last := r.Header["Last-Event-Id"]; len(last) > 0 {
		n, ok := parseInteger(last[0])
		if !ok || len(last) > 1 || n < 0 {
			return fail(kindInvalidParameter, "The header Last-Event-ID must be given once, as an integer not below 0.")
		}
		from = uint64(n) + 1
	}
	if a.streams == nil {
		return &failure{kind: kindUnavailable, cause: errNoStreams}
	}
	if err := a.streams.Events(x, r.WithContext(ctx), x.key, from); err != nil {
		return err
	}
	if x.status == 0 {
		x.status = http.StatusOK // it was written past the exchange
	}
	return nil
}

// errNoStreams: the surface was made without streams.
var errNoStreams = errors.New("no streams are served here")

// phoenixPath is where clients of Phoenix connect, which append the last part.
const phoenixPath = "/socket/websocket"

// routePhoenix routes Phoenix Channels. The protocol is not HTTP's to describe,
// so it is not in the document.
func (a *API) routePhoenix() {
	a.mux.HandleFunc(phoenixPath, func(w http.ResponseWriter, r *http.Request) {
		x := w.(*exchange)
		switch {
		case a.streams == nil:
			x.fail(&failure{kind: kindUnavailable, cause: errNoStreams})
		case !x.shared:
			x.fail(&failure{kind: kindOrigin})
		default:
			if err := a.streams.Phoenix(x, r); err != nil {
				x.fail(failureOf(err, false))
			}
		}
	})
}

// handshakeFailure maps what keeps a request from becoming a stream.
func handshakeFailure(e *socket.HandshakeError) *failure {
	for _, k := range []*kind{kindUpgrade, kindUnsupportedVersion, kindHandshakeForbidden} {
		if k.status == e.Status {
			return &failure{kind: k, cause: e}
		}
	}
	return fail(kindHandshake, "The handshake is not valid: %s.", e.Reason)
}
