package api

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// operations declares the endpoints under /v1.
func (a *API) operations() []*operation {
	return []*operation{
		a.putOperation(),
		a.getOperation(),
		a.deleteOperation(),
		a.listOperation(),
		a.appendOperation(),
		a.tailOperation(),
		a.replayOperation(),
		a.streamOperation(),
		a.eventsOperation(),
	}
}

func (a *API) putOperation() *operation {
	return &operation{
		Operation: huma.Operation{
			OperationID: "putConversation", Method: http.MethodPut, Path: "/conversations/{id}",
			Tags: []string{"conversations"}, Summary: "Create or update a conversation",
			Description: "Creates the conversation if it does not exist. Metadata that is given replaces what is there; metadata that is absent or null leaves it, so a request without a body creates or gets.",
			RequestBody: &huma.RequestBody{Content: jsonContent(schemaOf[PutConversation], exampleMetadata)},
			Responses:   answers(answer{http.StatusOK, "The conversation.", schemaOf[Conversation], exampleConversation}),
		},
		failures: []*kind{kindInvalidMetadata, kindInvalidJSON, kindTombstoned, kindTooLarge, kindUnsupportedMedia, kindOutcomeUnknown, kindStorageFull},
		writes:   true,
		serve:    a.putConversation,
	}
}

func (a *API) getOperation() *operation {
	return &operation{
		Operation: huma.Operation{
			OperationID: "getConversation", Method: http.MethodGet, Path: "/conversations/{id}",
			Tags: []string{"conversations"}, Summary: "Get a conversation",
			Parameters: parametersOf(consistencyParam, minSeqParam),
			Responses:  answers(answer{http.StatusOK, "The conversation.", schemaOf[Conversation], exampleConversation}),
		},
		failures: []*kind{kindInvalidParameter, kindNoConversation},
		serve:    a.getConversation,
	}
}

func (a *API) deleteOperation() *operation {
	return &operation{
		Operation: huma.Operation{
			OperationID: "tombstoneConversation", Method: http.MethodDelete, Path: "/conversations/{id}",
			Tags: []string{"conversations"}, Summary: "Tombstone a conversation",
			Description: "Closes the conversation for writing. It can still be read. Repeating it changes nothing.",
			Responses:   answers(answer{status: http.StatusNoContent, description: "The conversation is tombstoned."}),
		},
		failures: []*kind{kindNoConversation, kindOutcomeUnknown, kindStorageFull},
		writes:   true,
		serve:    a.deleteConversation,
	}
}

func (a *API) listOperation() *operation {
	return &operation{
		Operation: huma.Operation{
			OperationID: "listConversations", Method: http.MethodGet, Path: "/conversations",
			Tags: []string{"conversations"}, Summary: "List conversations",
			Description: "Lists the conversations of all groups, ascending by the bytes of their ids. A page may be empty.",
			Parameters:  parametersOf(prefixParam, listParam.document, afterParam, consistencyParam),
			Responses:   answers(answer{http.StatusOK, "A page of conversations.", schemaOf[ConversationList], exampleList}),
		},
		failures: []*kind{kindInvalidParameter},
		serve:    a.listConversations,
	}
}

func (a *API) appendOperation() *operation {
	return &operation{
		Operation: huma.Operation{
			OperationID: "appendMessages", Method: http.MethodPost, Path: "/conversations/{id}/messages",
			Tags: []string{"messages"}, Summary: "Append one message or several",
			Description: "Appends atomically: all messages or none, as one version step. The answer arrives when they are on disk at a quorum.\n\n" +
				"Role, parts and metadata are stored and returned as the bytes you sent. Members of a message other than those described are ignored. " +
				"Every object in the body must have distinct member names, compared decoded. The escape \\u0000 and lone surrogate escapes are kept in parts and metadata and refused in role and id. " +
				"A body may nest " + strconv.Itoa(maxJSONDepth) + " levels deep.\n\n" +
				"An append whose messages all have an id, or that has an Idempotency-Key, is safe to repeat: it is answered 200 with its first answer and `duplicate`.",
			Parameters:  parametersOf(idempotencyParam),
			RequestBody: &huma.RequestBody{Required: true, Content: jsonContent(schemaOf[AppendRequest], exampleAppend)},
			Responses: answers(
				answer{http.StatusCreated, "The messages were appended.", schemaOf[Appended], exampleAppended},
				answer{http.StatusOK, "All of it was appended before; this repeats the first answer.", schemaOf[Appended], exampleDuplicate},
			),
		},
		failures: []*kind{
			kindInvalidMessage, kindInvalidMetadata, kindInvalidJSON, kindInvalidParameter, kindNoConversation, kindConflict,
			kindIdempotency, kindTombstoned, kindTooLarge, kindUnsupportedMedia, kindOutcomeUnknown, kindStorageFull,
		},
		writes: true,
		serve:  a.appendMessages,
	}
}

func (a *API) tailOperation() *operation {
	return &operation{
		Operation: huma.Operation{
			OperationID: "tailMessages", Method: http.MethodGet, Path: "/conversations/{id}/tail",
			Tags: []string{"messages"}, Summary: "Read the newest messages",
			Description: "Returns the newest messages in ascending order, skipping the newest `offset` or all from `before` on. Past the beginning the page is empty.\n\nTo page back, add the number of messages you got to `offset`, or pass the lowest seq you got as `before`: a page may hold fewer messages than `limit`, because its size is bounded too, and it is the older ones that are left out.",
			Parameters:  parametersOf(limitParam.document, offsetParam.document, beforeParam.document, consistencyParam, minSeqParam),
			Responses:   answers(answer{http.StatusOK, "A page of messages.", schemaOf[MessageTail], exampleTail}),
		},
		failures: []*kind{kindInvalidParameter, kindNoConversation, kindArchive},
		serve:    a.tailMessages,
	}
}

func (a *API) replayOperation() *operation {
	alias := fromParam
	alias.name, alias.description, alias.byDefault = "from_seq", "The same as `from`, which wins when both are given.", 0
	return &operation{
		Operation: huma.Operation{
			OperationID: "replayMessages", Method: http.MethodGet, Path: "/conversations/{id}/messages",
			Tags: []string{"messages"}, Summary: "Read messages forward",
			Description: "Returns messages in ascending order from a sequence on, reaching into the archive. It never skips: below what is still held it fails with cursor_expired.",
			Parameters:  parametersOf(fromParam.document, alias.document, limitParam.document, consistencyParam, minSeqParam),
			Responses:   answers(answer{http.StatusOK, "A page of messages.", schemaOf[MessagePage], examplePage}),
		},
		failures: []*kind{kindInvalidParameter, kindNoConversation, kindCursorExpired, kindArchive},
		serve:    a.replayMessages,
	}
}

// Parameters that are no integers.

func idParam() *huma.Param {
	return &huma.Param{
		Name: "id", In: "path", Required: true, Example: "chat-123",
		Description: "The conversation id, 1 to 512 bytes of UTF-8 without NUL, percent-encoded. A slash in it is sent as %2F.",
		Schema:      &huma.Schema{Type: huma.TypeString, MinLength: count(1), MaxLength: count(512)},
	}
}

func consistencyParam() *huma.Param {
	return &huma.Param{
		Name: "consistency", In: "query", Example: "linearizable",
		Description: "How fresh the answer must be: `leader` reads at the leader of the group, `linearizable` makes it confirm with a quorum first, `stale` reads at any replica.",
		Schema:      &huma.Schema{Type: huma.TypeString, Enum: []any{"leader", "linearizable", "stale"}, Default: "leader"},
	}
}

func minSeqParam() *huma.Param {
	return &huma.Param{
		Name: "X-Fastpaca-Min-Seq", In: "header", Example: 3,
		Description: "Wait until the conversation has reached this sequence. When it does not in a few seconds the answer is 503 unavailable.",
		Schema:      &huma.Schema{Type: huma.TypeInteger, Format: "int64", Minimum: number(0)},
	}
}

func idempotencyParam() *huma.Param {
	return &huma.Param{
		Name: "Idempotency-Key", In: "header", Example: "turn-42",
		Description: "Makes the request safe to retry: the same key with the same body is answered as the first time, with another body it fails.",
		Schema:      &huma.Schema{Type: huma.TypeString, MinLength: count(1), MaxLength: count(255)},
	}
}

func prefixParam() *huma.Param {
	return &huma.Param{
		Name: "prefix", In: "query", Example: "chat-", Description: "Only conversations whose id starts with this.",
		Schema: &huma.Schema{Type: huma.TypeString, MaxLength: count(512)},
	}
}

func afterParam() *huma.Param {
	return &huma.Param{
		Name: "after", In: "query", Example: "kY2hhdC0xMjM", Description: "The next of an earlier page. Opaque.",
		Schema: &huma.Schema{Type: huma.TypeString},
	}
}

func count(n int) *int { return &n }

func parametersOf(makers ...func() *huma.Param) []*huma.Param {
	params := make([]*huma.Param, len(makers))
	for i, maker := range makers {
		params[i] = maker()
	}
	return params
}

// isRead reports whether answers carry X-Fastpaca-Last-Seq.
func (op *operation) isRead() bool {
	return op.Method == http.MethodGet && strings.Contains(op.Path, "{id}") && !op.streams
}
