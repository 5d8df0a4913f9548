package socket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/router/phoenix"
	"github.com/fastpaca/fastpaca/router/stream/streamtest"
)

// script is a conversation with the server: frames sent, and after each the
// frames that must come, and nothing else before the next.
type script []exchange

type exchange struct {
	sent string
	want []string
}

const (
	reply2   = `[%s,%s,"%s","phx_reply",{"status":"%s","response":%s}]`
	notFound = `{"reason":"unmatched topic"}`
)

func ok2(joinRef, ref, topic, response string) string {
	return fmt.Sprintf(reply2, joinRef, ref, topic, "ok", response)
}

func refused2(joinRef, ref, topic, response string) string {
	return fmt.Sprintf(reply2, joinRef, ref, topic, "error", response)
}

const beat2, beaten2 = `[null,"99","phoenix","heartbeat",{}]`, `[null,"99","phoenix","phx_reply",{"status":"ok","response":{}}]`

func TestPhoenixVersion2(t *testing.T) {
	t.Parallel()
	const c, state = "conversation:c", `{"last_seq":1,"version":1,"tombstoned":false}`
	first := `{"type":"message","seq":1,"version":1,"message":{"seq":1}}`
	caughtUp := func(ref, topic string, seq int) string {
		return fmt.Sprintf(`["%s",null,"%s","caught_up",{"type":"caught_up","seq":%d}]`, ref, topic, seq)
	}
	joined := []string{ok2(`"6"`, `"6"`, c, state), caughtUp("6", c, 1)}
	join := exchange{`["6","6","conversation:c","phx_join",{}]`, joined}
	for name, s := range map[string]script{
		"heartbeat":  {{beat2, []string{beaten2}}},
		"join":       {join},
		"from":       {{`["6","6","conversation:c","phx_join",{"from":1,"cursor":9}]`, []string{joined[0], `["6",null,"conversation:c","message",` + first + `]`, joined[1]}}},
		"from 0":     {{`["6","6","conversation:c","phx_join",{"from":0}]`, []string{joined[0], `["6",null,"conversation:c","message",` + first + `]`, joined[1]}}},
		"cursor":     {{`["6","6","conversation:c","phx_join",{"cursor":0}]`, []string{joined[0], `["6",null,"conversation:c","message",` + first + `]`, joined[1]}}},
		"null":       {{`["6","6","conversation:c","phx_join",null]`, joined}, {`["7","7","conversation:c","phx_join",{"from":null}]`, []string{ok2(`"7"`, `"7"`, c, state), `["6","6","conversation:c","phx_close",{}]`, caughtUp("7", c, 1)}}},
		"unknown id": {{`["6","6","conversation:a:b/ü","phx_join",{"x":1}]`, []string{ok2(`"6"`, `"6"`, "conversation:a:b/ü", "{}"), caughtUp("6", "conversation:a:b/ü", 0)}}},
		"bad from": {
			{`["6","6","conversation:c","phx_join",{"from":"3"}]`, []string{refused2(`"6"`, `"6"`, c, `{"reason":"invalid from"}`)}},
			{`["6","6","conversation:c","phx_join",{"from":1.5}]`, []string{refused2(`"6"`, `"6"`, c, `{"reason":"invalid from"}`)}},
			{`["6","6","conversation:c","phx_join",[]]`, []string{refused2(`"6"`, `"6"`, c, `{"reason":"invalid from"}`)}},
		},
		"bad topics": {
			{`["6","6","nope:1","phx_join",{}]`, []string{refused2("null", `"6"`, "nope:1", notFound)}},
			{`["6","6","conversation:","phx_join",{}]`, []string{refused2(`"6"`, `"6"`, "conversation:", `{"reason":"invalid conversation id"}`)}},
			{`["6","6","conversation:\u0000","phx_join",{}]`, []string{refused2(`"6"`, `"6"`, `conversation:\u0000`, `{"reason":"invalid conversation id"}`)}},
			{`[null,"23","nope:1","x",{}]`, []string{refused2("null", `"23"`, "nope:1", notFound)}},
			{`["1","23","conversation:c","x",{}]`, []string{refused2("null", `"23"`, c, notFound)}},
			{`[null,"1","phoenix","x",{}]`, []string{refused2("null", `"1"`, "phoenix", notFound)}},
		},
		"leave": {
			join,
			{`["6","9","conversation:c","phx_leave",{}]`, []string{ok2(`"6"`, `"9"`, c, "{}"), `["6","6","conversation:c","phx_close",{}]`}},
			{`["6","10","conversation:c","phx_leave",{}]`, []string{ok2(`"6"`, `"10"`, c, "{}")}},
		},
		"leave without join_ref": {join, {`[null,"9","conversation:c","phx_leave",{}]`, []string{ok2(`"6"`, `"9"`, c, "{}"), `["6","6","conversation:c","phx_close",{}]`}}},
		"stale":                  {join, {`["5","9","conversation:c","phx_leave",{}]`, nil}, {`["5","9","conversation:c","ping",{}]`, nil}},
		"push":                   {join, {`["6","7","conversation:c","ping",{}]`, []string{refused2(`"6"`, `"7"`, c, `{"reason":"unsupported event"}`)}}},
		"rejoin": {
			join,
			{`["8","8","conversation:c","phx_join",{}]`, []string{ok2(`"8"`, `"8"`, c, state), `["6","6","conversation:c","phx_close",{}]`, caughtUp("8", c, 1)}},
			{`["6","9","conversation:c","phx_leave",{}]`, nil},
		},
		"rejoin with the same ref": {join, join},
		"join without join_ref":    {{`[null,"6","conversation:c","phx_join",{}]`, joined}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			h.log.AppendRaw("c", []byte(`{"seq":1}`))
			p := h.phoenix("2.0.0")
			defer p.close()
			for _, x := range s {
				p.send(x.sent)
				p.says(x.want...)
				p.send(beat2)
				p.says(beaten2)
			}
		})
	}
}

func TestPhoenixVersion1(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.log.AppendRaw("c", []byte(`{"seq":1}`))
	// The shape of the first frame counts, whatever vsn says.
	for _, vsn := range []string{"1.0.0", "", "2.0.0"} {
		p := h.phoenix(vsn)
		p.send(`{"topic":"conversation:c","event":"phx_join","payload":{"from":1},"ref":"1","join_ref":"1"}`)
		p.says(
			`{"topic":"conversation:c","event":"phx_reply","payload":{"status":"ok","response":{"last_seq":1,"version":1,"tombstoned":false}},"ref":"1"}`,
			`{"topic":"conversation:c","event":"message","payload":{"type":"message","seq":1,"version":1,"message":{"seq":1}},"ref":null}`,
			`{"topic":"conversation:c","event":"caught_up","payload":{"type":"caught_up","seq":1},"ref":null}`,
		)
		p.send(`{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"2"}`)
		p.says(`{"topic":"phoenix","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"2"}`)
		p.send(`{"topic":"conversation:c","event":"phx_leave","payload":{},"ref":"3"}`)
		p.says(
			`{"topic":"conversation:c","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"3"}`,
			`{"topic":"conversation:c","event":"phx_close","payload":{},"ref":"1"}`,
		)
		p.close()
	}
	p := h.phoenix("1.0.0")
	p.send(beat2)
	p.says(beaten2)
	p.close()
}

func TestPhoenixManyTopics(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	p := h.phoenix("2.0.0")
	defer p.close()
	const topics, each = 50, 20
	for i := range topics {
		p.send(fmt.Sprintf(`["%d","%d","conversation:c%d","phx_join",{"from":1}]`, i+1, i+1, i))
	}
	for range each {
		for i := range topics {
			h.log.Append(rpc.Key(fmt.Sprintf("c%d", i)), 1, 100)
		}
	}
	next := map[string]uint64{}
	for got := 0; got < topics*each; {
		text, code, _ := p.read()
		require.NotNil(t, text, code)
		var frame [5]json.RawMessage
		require.NoError(t, json.Unmarshal(text, &frame))
		if string(frame[3]) != `"message"` {
			continue
		}
		var e event
		require.NoError(t, json.Unmarshal(frame[4], &e))
		next[string(frame[2])]++
		require.Equal(t, next[string(frame[2])], e.Seq, "%s", frame[2])
		got++
	}
}

func TestPhoenixBinary(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	push := append([]byte{0, 1, 2, 14, 6}, "610conversation:cupload\x01\x02\x03"...)
	p := h.phoenix("2.0.0")
	defer p.close()
	ctx, cancel := h.deadline()
	defer cancel()
	require.NoError(t, p.conn.Write(ctx, websocket.MessageBinary, push))
	p.says(`[null,"10","conversation:c","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]`)
	p.send(`["6","6","conversation:c","phx_join",{}]`)
	p.says(`["6","6","conversation:c","phx_reply",{"status":"ok","response":{}}]`, `["6",null,"conversation:c","caught_up",{"type":"caught_up","seq":0}]`)
	require.NoError(t, p.conn.Write(ctx, websocket.MessageBinary, push))
	p.says(`["6","10","conversation:c","phx_reply",{"status":"error","response":{"reason":"unsupported event"}}]`)
	join := append([]byte{0, 1, 1, 14, 8}, "66conversation:cphx_join{}"...)
	require.NoError(t, p.conn.Write(ctx, websocket.MessageBinary, join))
	p.says(`["6","6","conversation:c","phx_reply",{"status":"error","response":{"reason":"invalid from"}}]`)

	old := h.phoenix("1.0.0")
	defer old.close()
	old.send(`{"topic":"phoenix","event":"heartbeat","ref":"1"}`)
	_, _, _ = old.read()
	require.NoError(t, old.conn.Write(ctx, websocket.MessageBinary, push))
	require.Equal(t, websocket.StatusInvalidFramePayloadData, old.next().Code)
}

func TestPhoenixSubprotocol(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	ctx, cancel := h.deadline()
	defer cancel()
	for _, offered := range [][]string{nil, {"phoenix", "base64url.bearer.phx.c2VjcmV0"}} {
		conn, response, err := websocket.Dial(ctx, "ws://"+h.addr+"/socket/websocket?vsn=2.0.0", &websocket.DialOptions{Subprotocols: offered})
		require.NoError(t, err)
		if offered == nil {
			require.Empty(t, response.Header.Values("Sec-WebSocket-Protocol"))
		} else {
			require.Equal(t, []string{"phoenix"}, response.Header.Values("Sec-WebSocket-Protocol"))
		}
		_ = conn.CloseNow()
	}
	_, response, err := websocket.Dial(ctx, "ws://"+h.addr+"/socket/websocket?vsn=9", nil)
	require.Error(t, err)
	require.Equal(t, http.StatusForbidden, response.StatusCode)
}

func TestPhoenixJoinWhileTheDataPlaneIsAway(t *testing.T) {
	t.Parallel()
	log := streamtest.New()
	log.Append("c", 3, 100)
	resume := log.Stall()
	defer resume()
	h := newHarnessOver(t, log)
	p := h.phoenix("2.0.0")
	defer p.close()
	p.send(`["1","1","conversation:c","phx_join",{"from":3}]`)
	p.send(beat2)
	p.says(beaten2)
	p.send(`["2","2","conversation:c","phx_join",{"from":4}]`)
	p.send(beat2)
	p.says(beaten2)
	resume()
	p.says(
		`["2","2","conversation:c","phx_reply",{"status":"ok","response":{"last_seq":3,"version":1,"tombstoned":false}}]`,
		`["1","1","conversation:c","phx_close",{}]`,
		`["2",null,"conversation:c","caught_up",{"type":"caught_up","seq":3}]`,
	)
}

func TestJoinFrom(t *testing.T) {
	t.Parallel()
	for payload, want := range map[string]int64{
		`{}`: 0, `null`: 0, `{"from":7}`: 7, `{"from":-7}`: 1, `{"cursor":7}`: 8, `{"cursor":-1}`: 1, `{"from":null,"cursor":1}`: 2,
		`{"from":99999999999999999999}`: 1<<63 - 2, `{"From":3}`: 0, `{"from":5,"from":6}`: 6,
		`{"from":+1}`: -1, `{"from":1e3}`: -1, `{"from":true}`: -1, `{"cursor":"1"}`: -1, `[]`: -1, `"x"`: -1, `{"from":{}}`: -1,
	} {
		from, ok := joinFrom(&phoenix.Frame{Payload: []byte(payload)})
		require.Equal(t, want >= 0, ok, payload)
		if ok {
			require.Equal(t, uint64(want), from, payload)
		}
	}
	_, ok := joinFrom(&phoenix.Frame{Binary: true})
	require.False(t, ok)
}

func TestBucket(t *testing.T) {
	t.Parallel()
	b := bucket{size: 3, rate: 2}
	taken := func(now int64) (n int) {
		for b.take(now) {
			n++
		}
		return n
	}
	require.Equal(t, 3, taken(10))
	require.Equal(t, 0, taken(10))
	require.Equal(t, 2, taken(11))
	require.Equal(t, 3, taken(100))
}

// FuzzPhoenix sends one frame of anything to a server.
func FuzzPhoenix(f *testing.F) {
	for _, seed := range []string{
		beat2, `["6","6","conversation:c","phx_join",{"from":1}]`, `{"topic":"conversation:c","event":"phx_join","payload":{},"ref":null}`,
		"\x00\x01\x01\x0e\x0866conversation:cphx_join{}", strings.Repeat("[", 1000), `["` + strings.Repeat("x", 200) + `",null,"","",{}]`,
	} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	h := newHarness(f)
	h.log.Append("c", 3, 100)
	f.Fuzz(func(t *testing.T, frame []byte, binary bool) {
		on := *h
		on.t = t
		p := on.phoenix("2.0.0")
		defer p.close()
		kind := websocket.MessageText
		if binary {
			kind = websocket.MessageBinary
		}
		ctx, cancel := on.deadline()
		defer cancel()
		if p.conn.Write(ctx, kind, frame) != nil || p.conn.Write(ctx, websocket.MessageText, []byte(beat2)) != nil {
			return
		}
		for {
			_, answer, err := p.conn.Read(ctx)
			if err != nil {
				require.False(t, errors.Is(err, context.DeadlineExceeded), "neither answered nor closed")
				require.NotEqual(t, websocket.StatusInternalError, websocket.CloseStatus(err))
				return
			}
			require.True(t, json.Valid(answer), "%s", answer)
			if strings.Contains(string(answer), `"99"`) {
				return
			}
		}
	})
}
