package api

import (
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// maxPooledBytes bounds the buffers that go back to the pool with an exchange.
const maxPooledBytes = 64 << 10

// exchange is one request and its answer: the response writer that handlers
// see, and the buffers they work in. It is pooled; only the goroutine serving
// the request uses it.
type exchange struct {
	http.ResponseWriter
	requestID string
	op        *operation // nil until a route matched
	key       rpc.Key    // of the conversation in the path
	status    int        // 0 until the header was written
	failed    *failure   // what was answered, when it was a failure
	shared    bool       // a web page may see the answer, or none asked
	reserved  int64      // bytes taken from the budget of API.buffered
	started   time.Time  // when the request's header was parsed
	trace     trace.SpanContext
	span      trace.Span // nil unless the request is sampled

	in    []byte // request body
	out   []byte // response body
	batch batch  // append request
}

func (x *exchange) begin(w http.ResponseWriter, requestID string) {
	x.ResponseWriter = w
	x.requestID = requestID
	w.Header()["X-Request-Id"] = []string{requestID}
}

// reset makes the exchange ready for the pool.
func (x *exchange) reset() {
	x.ResponseWriter = nil
	x.requestID = ""
	x.op = nil
	x.key = ""
	x.status = 0
	x.failed = nil
	x.shared = false
	x.reserved = 0
	x.trace, x.span = trace.SpanContext{}, nil
	x.in = reuse(x.in)
	x.out = reuse(x.out)
	x.batch.reset()
}

func reuse(b []byte) []byte {
	if cap(b) > maxPooledBytes {
		return nil
	}
	return b[:0]
}

// WriteHeader remembers the final status.
func (x *exchange) WriteHeader(status int) {
	if x.status == 0 && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		x.status = status
	}
	x.ResponseWriter.WriteHeader(status)
}

// Write writes body bytes, with an implied 200 if no header was written.
func (x *exchange) Write(b []byte) (int, error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	return x.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// Header values that all answers share; nobody changes a value once it is set.
var (
	contentTypeJSON = []string{"application/json"}
	noStore         = []string{"no-store"}
)

// send writes a whole JSON answer. An error on writing means that the client
// has gone, which nobody is left to hear about.
func (x *exchange) send(status int, body []byte) {
	x.sendHeader(status, len(body))
	_, _ = x.Write(body)
}

// sendHeader begins a JSON answer of so many bytes.
func (x *exchange) sendHeader(status, length int) {
	h := x.Header()
	h["Content-Type"] = contentTypeJSON
	h["Cache-Control"] = noStore
	h["Content-Length"] = []string{strconv.Itoa(length)}
	x.WriteHeader(status)
}

// fail writes a failure, unless an answer was begun already.
func (x *exchange) fail(f *failure) {
	x.failed = f
	if x.status != 0 {
		return
	}
	h := x.Header()
	if f.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(f.retryAfter))
	}
	x.out = f.appendJSON(x.out[:0], x.requestID)
	x.send(f.status, x.out)
}

// lastSeq tells the client what the read saw.
func (x *exchange) lastSeq(seq uint64) {
	x.Header()["X-Fastpaca-Last-Seq"] = []string{strconv.FormatUint(seq, 10)}
}
