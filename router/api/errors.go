package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/router/socket"
)

// kind is one way to fail: a status and a code that never change meaning, and
// the sentence used unless the failure brings a more telling one.
type kind struct {
	status     int
	code       string
	sentence   string
	retryAfter int // seconds; 0 sends no Retry-After
}

// Every way to fail that a client can see.
var (
	kindInvalidJSON        = &kind{http.StatusBadRequest, "invalid_json", "The request body is not valid JSON.", 0}
	kindInvalidMessage     = &kind{http.StatusBadRequest, "invalid_message", "The message is not valid.", 0}
	kindInvalidMetadata    = &kind{http.StatusBadRequest, "invalid_metadata", "The metadata must be a JSON object.", 0}
	kindInvalidID          = &kind{http.StatusBadRequest, "invalid_id", "The conversation id must be 1 to 512 bytes of valid UTF-8 without NUL.", 0}
	kindInvalidParameter   = &kind{http.StatusBadRequest, "invalid_parameter", "A parameter is not valid.", 0}
	kindIncompleteBody     = &kind{http.StatusBadRequest, "incomplete_body", "The request body ended before it was complete.", 0}
	kindHandshake          = &kind{http.StatusBadRequest, "invalid_handshake", "The WebSocket handshake is not valid.", 0}
	kindOrigin             = &kind{http.StatusForbidden, "origin_not_allowed", "Web pages of this origin may not use the API.", 0}
	kindHandshakeForbidden = &kind{http.StatusForbidden, "unsupported_protocol", "The version of the Phoenix protocol must be 1.0.0 or 2.0.0.", 0}
	kindUpgrade            = &kind{http.StatusUpgradeRequired, "upgrade_required", "This path takes WebSocket connections only.", 0}
	kindNotFound           = &kind{http.StatusNotFound, "not_found", "There is nothing at this path.", 0}
	kindNoConversation     = &kind{http.StatusNotFound, "conversation_not_found", "The conversation does not exist.", 0}
	kindMethodNotAllowed   = &kind{http.StatusMethodNotAllowed, "method_not_allowed", "The method is not allowed at this path.", 0}
	kindRequestTimeout     = &kind{http.StatusRequestTimeout, "request_timeout", "The request body did not arrive in time.", 0}
	kindConflict           = &kind{http.StatusConflict, "conflict", "The version does not match.", 0}
	kindIdempotency        = &kind{http.StatusConflict, "idempotency_conflict", "The Idempotency-Key was used with another body.", 0}
	kindTombstoned         = &kind{http.StatusGone, "conversation_tombstoned", "The conversation is tombstoned and takes no more messages.", 0}
	kindTooLarge           = &kind{http.StatusRequestEntityTooLarge, "payload_too_large", "The request body is too large.", 0}
	kindUnsupportedMedia   = &kind{http.StatusUnsupportedMediaType, "unsupported_media_type", "The request body must be sent as application/json in UTF-8, without Content-Encoding.", 0}
	kindCursorExpired      = &kind{http.StatusRequestedRangeNotSatisfiable, "cursor_expired", "The messages asked for are no longer held.", 0}
	kindInternal           = &kind{http.StatusInternalServerError, "internal", "The server failed to handle the request.", 0}
	kindCorrupt            = &kind{http.StatusInternalServerError, "storage_corrupt", "Stored data failed its checksum and was not served.", 0}
	kindUnavailable        = &kind{http.StatusServiceUnavailable, "unavailable", "The conversation has no leader right now. Nothing was written; it is safe to retry.", 1}
	kindArchive            = &kind{http.StatusServiceUnavailable, "archive_unavailable", "The archive, which holds the messages asked for, cannot be read right now. It is safe to retry.", 1}
	kindMinSeq             = &kind{http.StatusServiceUnavailable, "unavailable", "The sequence in X-Fastpaca-Min-Seq is not visible yet.", 1}
	kindTimedOut           = &kind{http.StatusServiceUnavailable, "unavailable", "The answer did not arrive in time. It is safe to retry.", 1}
	kindOverloaded         = &kind{http.StatusServiceUnavailable, "overloaded", "The server is overloaded. Nothing was written; it is safe to retry.", 1}
	kindStorageFull        = &kind{http.StatusServiceUnavailable, "storage_full", "The storage is full or read-only. Nothing was written.", 5}
	kindOutcomeUnknown     = &kind{http.StatusGatewayTimeout, "outcome_unknown", "The write may or may not have happened. Retry it with the same message ids or Idempotency-Key.", 1}
	kindBadProtocol        = &kind{http.StatusBadRequest, "bad_request", "The request is not valid HTTP.", 0}
	kindHeaderTooLarge     = &kind{http.StatusRequestHeaderFieldsTooLarge, "header_too_large", "The request header is too large.", 0}
	kindExpectation        = &kind{http.StatusExpectationFailed, "expectation_failed", "The only expectation supported is 100-continue.", 0}
	kindUnsupportedCoding  = &kind{http.StatusNotImplemented, "not_implemented", "The transfer encoding is not supported.", 0}
	kindUnsupportedVersion = &kind{http.StatusHTTPVersionNotSupported, "http_version_not_supported", "The HTTP version is not supported.", 0}
)

// sentinels maps the decisions of the data plane to kinds. The first match
// counts.
var sentinels = []struct {
	err  error
	kind *kind
}{
	{rpc.ErrInvalidID, kindInvalidID},
	{rpc.ErrNotFound, kindNoConversation},
	{rpc.ErrTombstoned, kindTombstoned},
	{rpc.ErrIdempotencyConflict, kindIdempotency},
	{rpc.ErrOutcomeUnknown, kindOutcomeUnknown},
	{rpc.ErrMinSeqTimeout, kindMinSeq},
	{rpc.ErrOverloaded, kindOverloaded},
	{rpc.ErrStorageFull, kindStorageFull},
	{rpc.ErrCorrupt, kindCorrupt},
	{rpc.ErrArchiveUnavailable, kindArchive},
	{rpc.ErrUnavailable, kindUnavailable},
	{rpc.ErrClosed, kindUnavailable},
}

// failure is an answer that is not a success.
type failure struct {
	*kind
	message string // a whole sentence; empty for the kind's
	field   string // an extra member of the body holding number, or empty
	number  uint64
	cause   error // for the log only; nothing of it reaches the client
}

func (f *failure) Error() string {
	if f.cause != nil {
		return f.code + ": " + f.cause.Error()
	}
	return f.code + ": " + f.sentenceText()
}

func (f *failure) Unwrap() error { return f.cause }

func (f *failure) sentenceText() string {
	if f.message != "" {
		return f.message
	}
	return f.sentence
}

// fail returns a failure of the kind with a sentence of its own.
func fail(k *kind, format string, args ...any) *failure {
	return &failure{kind: k, message: fmt.Sprintf(format, args...)}
}

// failureOf turns any error of a handler into a failure. write tells whether
// the operation may have changed something when its time ran out.
func failureOf(err error, write bool) *failure {
	var done *failure
	if errors.As(err, &done) {
		return done
	}
	var handshake *socket.HandshakeError
	if errors.As(err, &handshake) {
		return handshakeFailure(handshake)
	}
	var conflict *rpc.VersionConflictError
	if errors.As(err, &conflict) {
		return &failure{
			kind:    kindConflict,
			message: "Version mismatch (current: " + strconv.FormatUint(conflict.Current, 10) + ")",
			field:   "current_version", number: conflict.Current,
		}
	}
	var expired *rpc.CursorExpiredError
	if errors.As(err, &expired) {
		return &failure{
			kind:    kindCursorExpired,
			message: "Messages below sequence " + strconv.FormatUint(expired.Earliest, 10) + " are no longer held.",
			field:   "earliest_seq", number: expired.Earliest,
		}
	}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return &failure{kind: s.kind, cause: err}
		}
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		if write {
			return &failure{kind: kindOutcomeUnknown, cause: err}
		}
		return &failure{kind: kindTimedOut, cause: err}
	}
	return &failure{kind: kindInternal, cause: err}
}

// appendJSON appends the body of the failure.
func (f *failure) appendJSON(dst []byte, requestID string) []byte {
	dst = append(dst, `{"error":"`...)
	dst = append(dst, f.code...)
	dst = append(dst, `","message":`...)
	dst = appendString(dst, f.sentenceText())
	if f.field != "" {
		dst = append(dst, `,"`...)
		dst = append(dst, f.field...)
		dst = append(dst, `":`...)
		dst = strconv.AppendUint(dst, f.number, 10)
	}
	if f.status >= 500 && requestID != "" {
		dst = append(dst, `,"request_id":`...)
		dst = appendString(dst, requestID)
	}
	return append(dst, '}')
}

// appendString appends a JSON string. Bytes that are not valid UTF-8 become
// U+FFFD.
func appendString(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s)
	return dst
}
