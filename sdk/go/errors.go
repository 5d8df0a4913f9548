package fastpaca

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/fastpaca/fastpaca/sdk/go/internal/contract"
)

// Error is how every failure of this package arrives; find it with errors.As.
// It is one of three things: an answer of the server (Status and Code are the
// server's), a call that got no usable answer (Status 0, or a Code of this
// package's own), or a call that was not sent.
type Error struct {
	// Op is what was tried, as "append to chat-123".
	Op string
	// Status is the HTTP status, 0 when no answer arrived.
	Status int
	// Code is a stable word to program against: one of the server's, which
	// the API's description lists, or one of the Code constants.
	Code string
	// Message is a sentence for people; it may change.
	Message string
	// RequestID names the request in the server's log, if an answer arrived.
	RequestID string
	// Retryable tells that the same call may succeed later. Repeating an append
	// by hand needs the ids of its messages: see Appended and NewMessage.ID.
	Retryable bool
	// RetryAfter is what the server asked to wait before; 0 if it did not.
	RetryAfter time.Duration
	// CurrentVersion is the version of the conversation, with CodeConflict.
	CurrentVersion int64
	// EarliestSeq is the lowest sequence still held, with CodeCursorExpired.
	EarliestSeq int64
	// Attempts is how many times the request was sent.
	Attempts int
	// Err is the cause, if it is another error: of the network, of the context.
	Err error
}

// Codes of the server that callers decide by. There are more.
const (
	CodeNotFound            = "conversation_not_found"
	CodeTombstoned          = "conversation_tombstoned"
	CodeConflict            = "conflict"
	CodeIdempotencyConflict = "idempotency_conflict"
	CodeCursorExpired       = "cursor_expired"
	CodeUnavailable         = "unavailable"
	CodeOutcomeUnknown      = "outcome_unknown"
	CodePayloadTooLarge     = "payload_too_large"
)

// Codes of this package.
const (
	// CodeNetwork: the server could not be reached, or the connection broke.
	CodeNetwork = "network"
	// CodeTimeout: an attempt took longer than WithTimeout allows.
	CodeTimeout = "timeout"
	// CodeCanceled: the context ended. Whether a write happened is not known.
	CodeCanceled = "canceled"
	// CodeUnexpectedResponse: the answer is not one of a Fastpaca server.
	CodeUnexpectedResponse = "unexpected_response"
	// CodeInvalid: the call cannot be sent as it is.
	CodeInvalid = "invalid_argument"
)

// What errors.Is finds in an Error with the code of the same meaning.
var (
	ErrNotFound       = errors.New("fastpaca: conversation not found")
	ErrTombstoned     = errors.New("fastpaca: conversation is tombstoned")
	ErrConflict       = errors.New("fastpaca: version conflict")
	ErrCursorExpired  = errors.New("fastpaca: messages are no longer held")
	ErrOutcomeUnknown = errors.New("fastpaca: it is not known whether the write happened")
)

var sentinels = map[string]error{
	CodeNotFound:       ErrNotFound,
	CodeTombstoned:     ErrTombstoned,
	CodeConflict:       ErrConflict,
	CodeCursorExpired:  ErrCursorExpired,
	CodeOutcomeUnknown: ErrOutcomeUnknown,
}

// Error says what was tried, what went wrong, and how often it was tried.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("fastpaca: ")
	if e.Op != "" {
		b.WriteString(e.Op + ": ")
	}
	b.WriteString(e.Message)
	b.WriteString(" (" + e.Code)
	if e.Status != 0 {
		fmt.Fprintf(&b, ", status %d", e.Status)
	}
	if e.Attempts > 1 {
		fmt.Fprintf(&b, ", %d attempts", e.Attempts)
	}
	if e.Status >= 500 && e.RequestID != "" {
		b.WriteString(", request " + e.RequestID)
	}
	b.WriteString(")")
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is matches the sentinels of this package.
func (e *Error) Is(target error) bool {
	known := sentinels[e.Code]
	return known != nil && known == target
}

// GapError tells that messages of a conversation are gone from the server: the
// stream goes on at Actual, and what was from Expected up to it cannot be had.
type GapError struct {
	Expected int64 // the sequence that should have come next
	Actual   int64 // the sequence that the stream goes on with
}

// Error names the missing sequences.
func (e *GapError) Error() string {
	return fmt.Sprintf("fastpaca: messages %d to %d are no longer held by the server", e.Expected, e.Actual-1)
}

func invalid(format string, args ...any) *Error {
	return &Error{Code: CodeInvalid, Message: fmt.Sprintf(format, args...)}
}

// maxErrorBytes bounds how much of a body that is no answer of ours is quoted.
const maxErrorBytes = 120

// failureOf reads an answer that is not a success.
func failureOf(resp *http.Response, body []byte) *Error {
	e := &Error{
		Status:     resp.StatusCode,
		RequestID:  resp.Header.Get("X-Request-Id"),
		Retryable:  retryable(resp.StatusCode),
		RetryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now()),
	}
	var answer contract.Error
	if isJSON(resp.Header) && json.Unmarshal(body, &answer) == nil && answer.Error != "" {
		e.Code, e.Message = answer.Error, answer.Message
		if answer.RequestId != nil {
			e.RequestID = *answer.RequestId
		}
		if answer.CurrentVersion != nil {
			e.CurrentVersion = *answer.CurrentVersion
		}
		if answer.EarliestSeq != nil {
			e.EarliestSeq = *answer.EarliestSeq
		}
		return e
	}
	e.Code = CodeUnexpectedResponse
	e.Message = strangeAnswer(resp, body)
	return e
}

// strangeAnswer describes an answer that no Fastpaca server gives.
func strangeAnswer(resp *http.Response, body []byte) string {
	at := resp.Request.URL.Redacted()
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		return fmt.Sprintf("%s redirects to %q: use the address it leads to", at, resp.Header.Get("Location"))
	}
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		kind = "an unknown content type"
	}
	excerpt := strings.ToValidUTF8(string(body[:min(len(body), maxErrorBytes)]), "?")
	excerpt = strings.Join(strings.Fields(excerpt), " ")
	return fmt.Sprintf("%s answered %d with %s %q: is this the address of a Fastpaca server?", at, resp.StatusCode, kind, excerpt)
}

// retryable tells whether a status is one of passing trouble. All requests of
// this package are safe to repeat.
func retryable(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// retryAfter reads both forms of the header; 0 for anything else.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseInt(value, 10, 32); err == nil && seconds >= 0 {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

func isJSON(h http.Header) bool {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && kind == "application/json"
}

// networkFailure describes a request that got no whole answer. ctx is the
// caller's: an attempt that ran out of its own time is a timeout.
func networkFailure(ctx context.Context, err error) *Error {
	if ctx.Err() != nil {
		return canceled(ctx, err)
	}
	e := &Error{Code: CodeNetwork, Message: "the connection to the server failed: " + cause(err), Retryable: true, Err: err}
	if errors.Is(err, context.DeadlineExceeded) {
		e.Code, e.Message = CodeTimeout, "the server did not answer in time"
	}
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	if errors.As(err, &certificate) || errors.As(err, &record) || errors.Is(err, http.ErrSchemeMismatch) {
		e.Retryable = false
	}
	return e
}

// canceled describes a call that its caller gave up. The last error before, if
// there is one, says more than the context does.
func canceled(ctx context.Context, last error) *Error {
	e := &Error{Code: CodeCanceled, Message: "the call was canceled", Err: ctx.Err()}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		e.Message = "the deadline of the call passed"
	}
	if last != nil && !errors.Is(last, ctx.Err()) {
		e.Message += "; before that: " + cause(last)
		e.Err = fmt.Errorf("%w: %w", ctx.Err(), last)
	}
	return e
}

// cause is an error's text without what an Error around it says anyway.
func cause(err error) string {
	var own *Error
	if errors.As(err, &own) {
		return own.Message
	}
	var request *url.Error // it repeats method and address
	if errors.As(err, &request) {
		return request.Err.Error()
	}
	return err.Error()
}
