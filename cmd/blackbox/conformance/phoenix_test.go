package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/streams"
)

// socket is a connection of Phoenix Channels whose every frame is looked at.
type socket struct {
	*streams.Socket
	a api
}

func (a api) socket(version string, subprotocols ...string) *socket {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.ctx, patience)
	defer cancel()
	s, err := streams.DialSocket(ctx, a.Base(), version, streams.Options{}, subprotocols...)
	require.NoError(a.t, err)
	a.t.Cleanup(s.Close)
	return &socket{s, a}
}

func (s *socket) send(format string, args ...any) {
	s.a.t.Helper()
	require.NoError(s.a.t, s.Send(s.a.ctx, fmt.Sprintf(format, args...)))
}

func (s *socket) read() *streams.Frame {
	s.a.t.Helper()
	ctx, cancel := context.WithTimeout(s.a.ctx, patience)
	defer cancel()
	f, err := s.Read(ctx)
	require.NoError(s.a.t, err)
	return f
}

// says reads a frame that must be the JSON.
func (s *socket) says(format string, args ...any) {
	s.a.t.Helper()
	require.JSONEq(s.a.t, fmt.Sprintf(format, args...), s.read().Text)
}

// joins joins a topic of which there is nothing to tell yet.
func (s *socket) joins(ref, id, params string) streams.Reply {
	s.a.t.Helper()
	require.NoError(s.a.t, s.Join(s.a.ctx, ref, streams.Topic(id), params))
	f := s.read()
	require.Equal(s.a.t, "phx_reply", f.Event, f.Text)
	require.Equal(s.a.t, ref, *f.Ref, f.Text)
	return f.Reply()
}

func (s *socket) message(joinRef, id string, seq int) {
	s.a.t.Helper()
	f := s.read()
	require.Equal(s.a.t, "message", f.Event, f.Text)
	require.Equal(s.a.t, joinRef, *f.JoinRef, f.Text)
	require.Nil(s.a.t, f.Ref)
	require.Equal(s.a.t, streams.Topic(id), f.Topic)
	var payload struct {
		Type string
		Seq  int
	}
	require.NoError(s.a.t, json.Unmarshal(f.Payload, &payload))
	require.Equal(s.a.t, "message", payload.Type)
	require.Equal(s.a.t, seq, payload.Seq)
}

// An id may be joined before it exists; each message comes once, and after
// leaving none does.
func TestC21JoinBeforeItExists(t *testing.T) {
	a := setup(t)
	id := unique()
	s := a.socket("2.0.0")
	reply := s.joins("6", id, `{}`)
	require.Equal(t, "ok", reply.Status)
	require.JSONEq(t, `{}`, string(reply.Response))
	s.says(`["6",null,%q,"caught_up",{"type":"caught_up","seq":0}]`, streams.Topic(id))
	require.NoError(t, a.Create(a.ctx, id))
	for i := range 3 {
		a.appended(id, http.StatusCreated, text("x"))
		s.message("6", id, i+1)
	}
	s.send(`["6","9",%q,"phx_leave",{}]`, streams.Topic(id))
	s.says(`["6","9",%q,"phx_reply",{"status":"ok","response":{}}]`, streams.Topic(id))
	s.says(`["6","6",%q,"phx_close",{}]`, streams.Topic(id))
	a.appended(id, http.StatusCreated, text("x"))
	require.Equal(t, http.StatusNoContent, a.delete(id).Status)
	// Another stream of the same router has seen all of it, and this one none.
	other := a.follow(streams.Phoenix, id, streams.Options{From: 4})
	other.messages(1)
	other.caughtUp(4)
	other.next("tombstone")
	s.send(`[null,"10","phoenix","heartbeat",{}]`)
	s.says(`[null,"10","phoenix","phx_reply",{"status":"ok","response":{}}]`)
}

func TestPhoenixJoinTellsOfTheConversation(t *testing.T) {
	a := setup(t)
	id := a.filled(2)
	s := a.socket("2.0.0")
	require.JSONEq(t, `{"last_seq":2,"version":2,"tombstoned":false}`, string(s.joins("1", id, `{"from":2}`).Response))
	s.message("1", id, 2)
	s.says(`["1",null,%q,"caught_up",{"type":"caught_up","seq":2}]`, streams.Topic(id))
	require.Equal(t, http.StatusNoContent, a.delete(id).Status)
	s.says(`["1",null,%q,"tombstone",{"type":"tombstone"}]`, streams.Topic(id))
	s.send(`["1","2",%q,"phx_leave",{}]`, streams.Topic(id))
	require.Equal(t, "phx_reply", s.read().Event)
	require.Equal(t, "phx_close", s.read().Event)
	require.JSONEq(t, `{"last_seq":2,"version":2,"tombstoned":true}`, string(s.joins("3", id, `{}`).Response))
}

// A join that replaces another on its topic ends that one, and only that.
func TestPhoenixRejoin(t *testing.T) {
	a := setup(t)
	id := a.filled(2)
	s := a.socket("2.0.0")
	s.joins("1", id, `{}`)
	s.says(`["1",null,%q,"caught_up",{"type":"caught_up","seq":2}]`, streams.Topic(id))
	require.Equal(t, "ok", s.joins("2", id, `{"from":2}`).Status)
	s.says(`["1","1",%q,"phx_close",{}]`, streams.Topic(id))
	s.message("2", id, 2)
	s.says(`["2",null,%q,"caught_up",{"type":"caught_up","seq":2}]`, streams.Topic(id))
	s.send(`["1","3",%q,"phx_leave",{}]`, streams.Topic(id)) // of the one that is over
	a.appended(id, http.StatusCreated, text("x"))
	s.message("2", id, 3)
}

// Many conversations on one connection, each with its own reference and cursor.
func TestPhoenixManyTopics(t *testing.T) {
	a := setup(t)
	s := a.socket("2.0.0")
	const topics = 50
	places := map[string]*streams.Position{}
	refs := map[string]string{}
	for i := range topics {
		id, ref := a.filled(2), fmt.Sprint(i+1)
		refs[streams.Topic(id)] = ref
		from := uint64(1 + i%2)
		places[ref] = streams.NewPosition(streams.NewRecord(), from)
		places[ref].Begin(streams.Phoenix)
		require.NoError(t, s.Join(a.ctx, ref, streams.Topic(id), fmt.Sprintf(`{"from":%d}`, from)))
	}
	for caughtUp := 0; caughtUp < topics; {
		f := s.read()
		require.Equal(t, refs[f.Topic], *f.JoinRef, f.Text)
		if f.Event == "phx_reply" {
			require.Equal(t, "ok", f.Reply().Status, f.Text)
			continue
		}
		var e streams.Event
		require.NoError(t, json.Unmarshal(f.Payload, &e))
		require.NoError(t, places[*f.JoinRef].Take(&e), f.Text)
		if e.Type == "caught_up" {
			caughtUp++
		}
	}
}

// Version 1 of the protocol is spoken in objects, and has no join references.
func TestPhoenixVersion1(t *testing.T) {
	for _, vsn := range []string{"1.0.0", ""} {
		t.Run("vsn="+vsn, func(t *testing.T) {
			a := setup(t)
			id := a.filled(1)
			s := a.socket(vsn)
			s.send(`{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}`)
			s.says(`{"topic":"phoenix","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"1"}`)
			s.send(`{"topic":%q,"event":"phx_join","payload":{"from":1},"ref":"2"}`, streams.Topic(id))
			s.says(`{"topic":%q,"event":"phx_reply","payload":{"status":"ok","response":{"last_seq":1,"version":1,"tombstoned":false}},"ref":"2"}`, streams.Topic(id))
			s.says(`{"topic":%q,"event":"message","payload":{"type":"message","seq":1,"version":1,"message":%s},"ref":null}`,
				streams.Topic(id), a.verified(id)[0].Raw)
			s.says(`{"topic":%q,"event":"caught_up","payload":{"type":"caught_up","seq":1},"ref":null}`, streams.Topic(id))
			s.send(`{"topic":%q,"event":"phx_leave","payload":{},"ref":"3"}`, streams.Topic(id))
			s.says(`{"topic":%q,"event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"3"}`, streams.Topic(id))
			s.says(`{"topic":%q,"event":"phx_close","payload":{},"ref":"2"}`, streams.Topic(id))
		})
	}
}

// Clients that carry a token offer it as a subprotocol, beside the one that they
// want to be selected. It is never echoed.
func TestPhoenixSubprotocols(t *testing.T) {
	a := setup(t)
	require.Equal(t, "phoenix", a.socket("2.0.0", "phoenix", "base64url.bearer.phx.c2VjcmV0").Subprotocol())
	require.Empty(t, a.socket("2.0.0").Subprotocol())
}
