package fastpaca

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Parts and metadata go out byte for byte: spaces, order, escapes, numbers.
func TestMessagesKeepTheirBytes(t *testing.T) {
	t.Parallel()
	part := `{ "type":"tool-x", "z":12345678901234567890, "a":1e400, "html":"<&>", "s":"\ud800\u0000" }`
	metadata := `{ "big" : 9007199254740993, "b":2.0 }`
	count := int64(0)
	m := NewMessage{ID: "a<b>\"c", Role: "user & co", Parts: []Part{Part(part), Text("<&>\u2028🦙")}, Metadata: json.RawMessage(metadata), TokenCount: &count}
	got, err := m.appendJSON(nil, m.ID)
	require.NoError(t, err)
	require.Equal(t, `{"id":"a<b>\"c","role":"user & co","parts":[`+part+`,{"type":"text","text":"<&>\u2028🦙"}],"metadata":`+metadata+`,"token_count":0}`, string(got))
}

func TestMessagesThatCannotBeSent(t *testing.T) {
	t.Parallel()
	good := TextMessage("user", "hi")
	for name, m := range map[string]NewMessage{
		"no parts":         {Role: "user"},
		"empty part":       {Role: "user", Parts: []Part{nil}},
		"broken part":      {Role: "user", Parts: []Part{Part(`{"type":"x"`)}},
		"smuggled member":  {Role: "user", Parts: []Part{Part(`{}],"role":"x","parts":[{}`)}},
		"odd role":         {Role: "\xff", Parts: good.Parts},
		"odd id":           {ID: "\xff", Role: "user", Parts: good.Parts},
		"broken metadata":  {Role: "user", Parts: good.Parts, Metadata: json.RawMessage(`{`)},
		"no JSON metadata": {Role: "user", Parts: good.Parts, Metadata: map[string]any{"f": func() {}}},
	} {
		client, _ := clientOf(t, func(http.ResponseWriter, *http.Request) { t.Error(name + " was sent") })
		_, err := client.Conversation("c").Append(t.Context(), m)
		require.Equal(t, CodeInvalid, failureIn(t, err).Code, name)
		require.Equal(t, `append to "c"`, failureIn(t, err).Op, name)
	}
	_, err := NewPart(make(chan int))
	require.Equal(t, CodeInvalid, failureIn(t, err).Code)
	client, _ := clientOf(t, func(http.ResponseWriter, *http.Request) { t.Error("sent") })
	_, err = client.Conversation("c").AppendBatch(t.Context(), nil)
	require.Equal(t, CodeInvalid, failureIn(t, err).Code)
	_, err = client.Conversation("c").Put(t.Context(), json.RawMessage(`{`))
	require.Equal(t, CodeInvalid, failureIn(t, err).Code)
}

func TestReadingMessages(t *testing.T) {
	t.Parallel()
	const stored = `{"seq":3,"id":"m","role":"user","parts":[{"type":"text","text":"a"},{"type":"x","n":12345678901234567890},{"type":"text","text":"b"}],"metadata":{"k":1e400},"token_count":5,"inserted_at":"2026-01-02T03:04:05.678901Z","later":1}`
	var m Message
	require.NoError(t, json.Unmarshal([]byte(stored), &m))
	require.Equal(t, stored, string(m.Raw()))
	require.Equal(t, "ab", m.Text())
	require.Equal(t, `{"k":1e400}`, string(m.Metadata))
	require.Equal(t, "x", m.Parts[1].Type())
	require.Empty(t, m.Parts[1].Text())
	require.Equal(t, `{"type":"x","n":12345678901234567890}`, m.Parts[1].String())
	require.Equal(t, 678901000, m.InsertedAt.Nanosecond())
	var x struct{ N json.Number }
	require.NoError(t, m.Parts[1].Decode(&x))
	require.Equal(t, json.Number("12345678901234567890"), x.N)
	again, err := json.Marshal(m)
	require.NoError(t, err)
	require.Contains(t, string(again), `{"type":"x","n":12345678901234567890}`)
	require.Empty(t, Part(`[]`).Type())
	require.Nil(t, Message{}.Raw())
	p, err := NewPart(map[string]any{"type": "a<b"})
	require.NoError(t, err)
	require.Equal(t, `{"type":"a<b"}`, p.String())
}

func TestMessageIDs(t *testing.T) {
	t.Parallel()
	require.NotEqual(t, newMessageID("", 0), newMessageID("", 0))
	require.Equal(t, newMessageID("k", 0), newMessageID("k", 0))
	require.NotEqual(t, newMessageID("k", 0), newMessageID("k", 1))
	require.NotEqual(t, newMessageID("k", 11), newMessageID("1k", 1))
	require.Len(t, newMessageID("k", 0), len(newMessageID("", 0)))
}

// Any text is one part, and comes back.
func FuzzText(f *testing.F) {
	for _, s := range []string{"", "a", "\x00", "\"\\", "\u2028", "🦙", "</script>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p := Text(s)
		require.True(t, json.Valid(p))
		require.Equal(t, strings.ToValidUTF8(s, "\ufffd"), strings.ToValidUTF8(p.Text(), "\ufffd"))
	})
}
