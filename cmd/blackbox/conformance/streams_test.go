package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/streams"
)

// patience bounds the wait for an event that must come.
const patience = time.Minute

// onEach runs a test on each transport.
func onEach(t *testing.T, test func(a api, kind streams.Transport)) {
	t.Parallel()
	for _, kind := range streams.Transports() {
		t.Run(string(kind), func(t *testing.T) { test(setup(t), kind) })
	}
}

// followed is an open stream. Everything that comes is held against what may
// come at its place.
type followed struct {
	a      api
	kind   streams.Transport
	stream streams.Stream
	place  *streams.Position
}

func (a api) follow(kind streams.Transport, id string, o streams.Options) *followed {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.ctx, patience)
	defer cancel()
	stream, err := streams.Open(ctx, kind, a.Base(), id, o)
	require.NoError(a.t, err)
	a.t.Cleanup(stream.Close)
	from := o.From
	if o.Resume != nil {
		from = *o.Resume + 1
	}
	f := &followed{a, kind, stream, streams.NewPosition(streams.NewRecord(), from)}
	f.place.Begin(kind)
	return f
}

// next returns the next event, which must be of the type.
func (f *followed) next(kind string) streams.Event {
	f.a.t.Helper()
	ctx, cancel := context.WithTimeout(f.a.ctx, patience)
	defer cancel()
	e, err := f.stream.Next(ctx)
	require.NoError(f.a.t, err)
	require.NoError(f.a.t, f.place.Take(&e))
	require.Equal(f.a.t, kind, e.Type, "%+v", e)
	return e
}

// messages returns the next n events, which must be messages.
func (f *followed) messages(n int) []streams.Event {
	f.a.t.Helper()
	var all []streams.Event
	for range n {
		all = append(all, f.next("message"))
	}
	return all
}

func (f *followed) caughtUp(seq int) {
	f.a.t.Helper()
	require.EqualValues(f.a.t, seq, f.next("caught_up").Seq)
}

// Each message comes once to each subscriber, as the bytes that a read gives.
func TestC21OneEventPerMessage(t *testing.T) {
	onEach(t, func(a api, kind streams.Transport) {
		id := a.filled(3)
		var all []*followed
		for range 3 {
			f := a.follow(kind, id, streams.Options{From: 1})
			f.messages(3)
			f.caughtUp(3)
			all = append(all, f)
		}
		a.appended(id, http.StatusCreated, batch(numbers(2)...))
		a.appended(id, http.StatusCreated, message(`"id":"m","role":"r","parts":[{"type":"t","z":1.0,"a":[1e400,12345678901234567890],"é":"\u00e9"}]`))
		log := a.verified(id)
		for _, f := range all {
			for i, e := range f.messages(3) {
				require.EqualValues(t, 4+i, e.Seq)
				require.EqualValues(t, []int{4, 4, 5}[i], e.Version)
				require.Equal(t, string(log[e.Seq-1].Raw), string(e.Message))
			}
		}
		require.Equal(t, http.StatusNoContent, a.delete(id).Status)
		for _, f := range all {
			f.next("tombstone") // and so nothing came twice
		}
	})
}

// Where a stream begins.
func TestStreamCursors(t *testing.T) {
	onEach(t, func(a api, kind streams.Transport) {
		id := a.filled(10)
		for _, tc := range []struct {
			from  uint64
			first int // of those that are there; 0 if none
		}{{0, 0}, {1, 1}, {7, 7}, {10, 10}, {11, 0}} {
			f := a.follow(kind, id, streams.Options{From: tc.from})
			if tc.first > 0 {
				f.messages(10 - tc.first + 1)
			}
			f.caughtUp(10)
			require.EqualValues(t, 11, f.place.Next)
		}
		now, ahead := a.follow(kind, id, streams.Options{}), a.follow(kind, id, streams.Options{From: 13})
		now.caughtUp(10)
		ahead.caughtUp(10)
		for i := range 4 {
			a.appended(id, http.StatusCreated, text(fmt.Sprint(11+i)))
		}
		require.EqualValues(t, 11, now.messages(4)[0].Seq)
		require.EqualValues(t, 13, ahead.messages(2)[0].Seq)
	})
}

// Below the first message is the first, and beyond all numbers is ahead of every
// log, however it is said.
func TestStreamCursorsOutOfRange(t *testing.T) {
	a := setup(t)
	id := a.filled(2)
	expect := func(kind streams.Transport, o streams.Options, first uint64) {
		o.From = first // the checker's idea of it; what is sent is the raw value
		f := a.follow(kind, id, o)
		if first == 1 {
			f.messages(2)
		}
		f.caughtUp(2)
		f.stream.Close()
	}
	const beyond = math.MaxInt64
	for raw, first := range map[string]uint64{
		"0": 1, "-0": 1, "-7": 1, "-99999999999999999999999": 1, "01": 1,
		"9223372036854775807": beyond, "9223372036854775808": beyond, "18446744073709551616": beyond, strings.Repeat("9", 200): beyond,
	} {
		for kind := range streamPaths {
			expect(kind, streams.Options{RawFrom: raw}, first)
		}
	}
	for _, seen := range []uint64{0, math.MaxInt64 - 1} {
		expect(streams.SSE, streams.Options{Resume: &seen}, seen+1)
		expect(streams.Phoenix, streams.Options{Resume: &seen}, seen+1)
	}
	s := a.socket("2.0.0")
	for i, params := range []string{`{"from":0}`, `{"from":-7}`, `{"cursor":0}`, `{"cursor":-1}`, `{"from":1,"cursor":2}`} {
		ref := fmt.Sprint(i + 1)
		require.Equal(t, "ok", s.joins(ref, id, params).Status, params)
		if i > 0 {
			require.Equal(t, "phx_close", s.read().Event) // of the join before
		}
		s.message(ref, id, 1)
		s.message(ref, id, 2)
		require.Equal(t, "caught_up", s.read().Event, params)
	}
}

// An empty conversation is caught up with at 0, and one that is tombstoned ends.
func TestStreamsOfEmptyAndEndedConversations(t *testing.T) {
	onEach(t, func(a api, kind streams.Transport) {
		empty := a.follow(kind, a.created(), streams.Options{})
		empty.caughtUp(0)
		id := a.filled(2)
		require.Equal(t, http.StatusNoContent, a.delete(id).Status)
		for _, from := range []uint64{0, 1, 2, 3, 50} {
			f := a.follow(kind, id, streams.Options{From: from})
			if from == 1 || from == 2 {
				f.messages(3 - int(from))
			}
			f.caughtUp(2)
			f.next("tombstone")
		}
	})
}

// A client that comes back says what it has seen, and goes on behind it.
func TestStreamsResume(t *testing.T) {
	onEach(t, func(a api, kind streams.Transport) {
		id := a.filled(5)
		f := a.follow(kind, id, streams.Options{From: 1})
		f.messages(2)
		f.stream.Close()
		a.appended(id, http.StatusCreated, text("6"))
		last := f.place.Next - 1
		o := streams.Options{Resume: &last, From: 1} // a browser's URL stays as it was
		if kind == streams.WebSocket {
			o = streams.Options{From: f.place.Next}
		}
		again := a.follow(kind, id, o)
		require.EqualValues(t, 3, again.messages(4)[0].Seq)
		again.caughtUp(6)
	})
}

// Messages of every size come whole, whether compression is offered or not.
func TestStreamsOfLargeMessages(t *testing.T) {
	onEach(t, func(a api, kind streams.Transport) {
		id := a.created()
		for _, size := range []int{1, 124, 125, 126, 1000, 17_000, 65_535, 66_000, 700_000} {
			a.appended(id, http.StatusCreated, text(strings.Repeat("é\n", size/3+1)))
		}
		log := a.verified(id)
		for _, compress := range []bool{false, true} {
			f := a.follow(kind, id, streams.Options{From: 1, Compress: compress})
			for i, e := range f.messages(len(log)) {
				require.Equal(t, string(log[i].Raw), string(e.Message))
			}
		}
	})
}

// The white space of a message that a client has formatted survives, so that the
// bytes are the same on every way to read them.
func TestStreamsOfFormattedMessages(t *testing.T) {
	onEach(t, func(a api, kind streams.Transport) {
		id := a.created()
		a.appended(id, http.StatusCreated, "{\n  \"message\": {\n \"role\": \"user\",\n\t\"parts\": [\n{ \"type\" : \"x\",\n \"n\": [1,\n 2] }\n]\n}\n}")
		log := a.verified(id)
		f := a.follow(kind, id, streams.Options{From: 1})
		require.Equal(t, string(log[0].Raw), string(f.messages(1)[0].Message))
	})
}

// streamPaths are the two that follow one conversation.
var streamPaths = map[streams.Transport]string{streams.WebSocket: "/stream", streams.SSE: "/events"}

// Refusals are answers of HTTP, before anything is upgraded or streamed.
func TestStreamRefusals(t *testing.T) {
	a := setup(t)
	id := a.filled(1)
	for kind, path := range streamPaths {
		for _, tc := range []struct {
			id, query string
			status    int
			code      string
		}{
			{unique(), "", http.StatusNotFound, "conversation_not_found"},
			{unique(), "?from=1", http.StatusNotFound, "conversation_not_found"},
			{id, "?from=x", http.StatusBadRequest, "invalid_parameter"},
			{id, "?from=1.5", http.StatusBadRequest, "invalid_parameter"},
			{id, "?from=", http.StatusBadRequest, "invalid_parameter"},
			{id, "?from=1&from=2", http.StatusBadRequest, "invalid_parameter"},
			{strings.Repeat("x", 513), "", http.StatusBadRequest, "invalid_id"},
			{"a\x00b", "", http.StatusBadRequest, "invalid_id"},
		} {
			var headers []client.Header
			if kind == streams.WebSocket {
				headers = upgrade()
			}
			requireFault(t, a.get(client.Path(tc.id)+path+tc.query, headers...), tc.status, tc.code)
		}
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
			requireFault(t, a.request(method, client.Path(id)+path, "{}"), http.StatusMethodNotAllowed, "method_not_allowed")
		}
	}
}

// upgrade are the headers of a handshake.
func upgrade() []client.Header {
	return []client.Header{
		{Name: "Connection", Value: "Upgrade"}, {Name: "Upgrade", Value: "websocket"},
		{Name: "Sec-WebSocket-Version", Value: "13"}, {Name: "Sec-WebSocket-Key", Value: "AAAAAAAAAAAAAAAAAAAAAA=="},
	}
}

// What is no handshake is answered as such.
func TestHandshakes(t *testing.T) {
	a := setup(t)
	id := a.filled(1)
	without := func(name, value string) []client.Header {
		headers := upgrade()
		for i := range headers {
			if headers[i].Name == name {
				headers[i].Value = value
			}
		}
		return headers
	}
	for _, tc := range []struct {
		headers []client.Header
		native  int
		phoenix int
	}{
		{nil, http.StatusUpgradeRequired, http.StatusBadRequest},
		{without("Connection", "keep-alive"), http.StatusUpgradeRequired, http.StatusBadRequest},
		{without("Upgrade", "h2c"), http.StatusUpgradeRequired, http.StatusBadRequest},
		{without("Sec-WebSocket-Version", "8"), http.StatusBadRequest, http.StatusBadRequest},
		{without("Sec-WebSocket-Key", "short"), http.StatusBadRequest, http.StatusBadRequest},
		{without("Sec-WebSocket-Key", ""), http.StatusBadRequest, http.StatusBadRequest},
	} {
		requireFault(t, a.get(client.Path(id)+"/stream", tc.headers...), tc.native, "")
		requireFault(t, a.get("/socket/websocket?vsn=2.0.0", tc.headers...), tc.phoenix, "")
	}
	for _, vsn := range []string{"3.0.0", "2", "x", "0.9.0"} {
		require.Equal(t, http.StatusForbidden, a.get("/socket/websocket?vsn="+vsn, upgrade()...).Status, vsn)
	}
}

// eventsOf opens a stream of Server-Sent Events.
func (a api) eventsOf(id string, o streams.Options) *streams.EventSource {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.ctx, patience)
	defer cancel()
	s, err := streams.OpenEvents(ctx, a.Base(), id, o)
	require.NoError(a.t, err)
	a.t.Cleanup(s.Close)
	return s
}

// What a browser and the proxies before it make of a stream is in its headers.
func TestEventsHeaders(t *testing.T) {
	a := setup(t)
	s := a.eventsOf(a.filled(1), streams.Options{From: 1})
	require.Equal(t, "text/event-stream", s.Header.Get("Content-Type"))
	require.Contains(t, s.Header.Get("Cache-Control"), "no-cache")
	require.Empty(t, s.Header.Get("Content-Encoding"))
	e, err := s.Next(a.ctx)
	require.NoError(t, err)
	require.Equal(t, "1", e.ID)
	require.Positive(t, s.Retry, "a pause before the client comes back")
}

func TestLastEventIDIsChecked(t *testing.T) {
	a := setup(t)
	target := client.Path(a.filled(1)) + "/events"
	for _, value := range []string{"x", "-1", "1.5", "1,2"} {
		requireFault(t, a.get(target, client.Header{Name: "Last-Event-ID", Value: value}), http.StatusBadRequest, "invalid_parameter")
	}
}

// Browsers ask first whether a page may send what it wants to.
func TestPreflight(t *testing.T) {
	a := setup(t)
	id := a.filled(1)
	origin := client.Header{Name: "Origin", Value: a.Base()} // the same host is always allowed
	for _, path := range []string{"", "/messages", "/tail", "/events"} {
		reply := a.request(http.MethodOptions, client.Path(id)+path, "", origin,
			client.Header{Name: "Access-Control-Request-Method", Value: "POST"},
			client.Header{Name: "Access-Control-Request-Headers", Value: "content-type,last-event-id,idempotency-key"})
		require.Equal(t, http.StatusNoContent, reply.Status, reply)
		require.Equal(t, a.Base(), reply.Header.Get("Access-Control-Allow-Origin"))
		for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
			require.Contains(t, reply.Header.Get("Access-Control-Allow-Methods"), method)
		}
		for _, header := range []string{"content-type", "last-event-id", "idempotency-key"} {
			require.Contains(t, strings.ToLower(reply.Header.Get("Access-Control-Allow-Headers")), header)
		}
	}
	reply := a.get(client.Path(id), origin)
	require.Equal(t, a.Base(), reply.Header.Get("Access-Control-Allow-Origin"))
	require.Contains(t, strings.Join(reply.Header.Values("Vary"), ","), "Origin")
	s := a.eventsOf(id, streams.Options{From: 1, Headers: []client.Header{origin}})
	require.Equal(t, a.Base(), s.Header.Get("Access-Control-Allow-Origin"))
}

// Pages of other origins get nothing of a stream, and no permission to read the
// rest.
func TestForeignOrigins(t *testing.T) {
	a := setup(t)
	id := a.filled(1)
	origin := client.Header{Name: "Origin", Value: "https://evil.invalid"}
	for _, target := range []string{client.Path(id) + "/stream", client.Path(id) + "/events", "/socket/websocket?vsn=2.0.0"} {
		requireFault(t, a.get(target, append(upgrade(), origin)...), http.StatusForbidden, "origin_not_allowed")
	}
	require.Empty(t, a.get(client.Path(id), origin).Header.Get("Access-Control-Allow-Origin"))
	reply := a.request(http.MethodOptions, client.Path(id), "", origin, client.Header{Name: "Access-Control-Request-Method", Value: "PUT"})
	requireFault(t, reply, http.StatusForbidden, "origin_not_allowed")
	require.Empty(t, reply.Header.Get("Access-Control-Allow-Origin"))
}

// The document describes the streams.
func TestStreamsAreDescribed(t *testing.T) {
	a := setup(t)
	var doc openAPI
	require.NoError(t, json.Unmarshal(a.get("/v1/openapi.json").Body, &doc))
	for _, path := range streamPaths {
		require.Contains(t, doc.Paths["/conversations/{id}"+path], "get")
	}
}
