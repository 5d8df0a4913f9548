package phoenix

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVersions(t *testing.T) {
	t.Parallel()
	for vsn, want := range map[string]Version{"": V1, "1.0.0": V1, "1.0.7": V1, "2.0.0": V2, "2.0.12": V2} {
		got, err := ParseVersion(vsn)
		require.NoError(t, err, vsn)
		require.Equal(t, want, got, vsn)
	}
	for _, vsn := range []string{"3.0.0", "2.1.0", "1", "2.0", "2.0.", "2.0.x", "2.0.-1", "2.0.99999", " 2.0.0"} {
		_, err := ParseVersion(vsn)
		require.ErrorIs(t, err, ErrVersion, vsn)
	}
}

func TestParseText(t *testing.T) {
	t.Parallel()
	cases := map[string]Frame{
		`[null,"9","phoenix","heartbeat",{}]`: {Shape: V2, Ref: RefOf("9"), Topic: "phoenix", Event: "heartbeat", Payload: []byte(`{}`)},
		`["6","6","conversation:abc","phx_join",{"from":3}]`: {
			Shape: V2, JoinRef: RefOf("6"), Ref: RefOf("6"), Topic: "conversation:abc", Event: "phx_join", Payload: []byte(`{"from":3}`),
		},
		` [ "" , null , "t" , "e" , [1] , "more" , {} ] `:       {Shape: V2, JoinRef: RefOf(""), Topic: "t", Event: "e", Payload: []byte(`[1]`)},
		`["\u0041",null,"ü:/","",null]`:                         {Shape: V2, JoinRef: RefOf("A"), Topic: "ü:/", Payload: []byte(`null`)},
		`{"topic":"t","event":"e","payload":{"a":1},"ref":"7"}`: {Shape: V1, Ref: RefOf("7"), Topic: "t", Event: "e", Payload: []byte(`{"a":1}`)},
		`{"ref":null,"event":"e","x":[{}],"topic":"t","join_ref":"1"}`: {
			Shape: V1, JoinRef: RefOf("1"), Topic: "t", Event: "e", Payload: []byte(`{}`),
		},
		`[null,null,"t","e",{"a":1,"a":2}]`: {Shape: V2, Topic: "t", Event: "e", Payload: []byte(`{"a":1,"a":2}`)},
	}
	for text, want := range cases {
		got, err := ParseText([]byte(text))
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{
		"", "x", "1", `"t"`, "null", "[", "{", "[]", "{}", `[null,null,"t","e"]`, `[1,null,"t","e",{}]`, `[null,null,null,"e",{}]`,
		`[null,null,"t",5,{}]`, `[null,null,"t","e",{}`, `[null,null,"t","e",{}] []`, `{"topic":"t"}`, `{"topic":1,"event":"e"}`,
		`{"topic":"t","event":"e","ref":3}`, `{"topic":"t","event":"e"}x`, "[null,null,\"\xff\",\"e\",{}]", `[null,null,"t","e",{]`,
		`["` + string(make([]byte, 300)) + `",null,"t","e",{}]`, `[null,null,"t","e",`,
	} {
		_, err := ParseText([]byte(text))
		require.ErrorIs(t, err, ErrFrame, text)
	}
}

func TestParseBinary(t *testing.T) {
	t.Parallel()
	push := append([]byte{0, 1, 2, 16, 6}, "610conversation:abcupload\x01\x02\x03"...)
	f, err := ParseBinary(push)
	require.NoError(t, err)
	require.Equal(t, Frame{
		Shape: V2, JoinRef: RefOf("6"), Ref: RefOf("10"), Topic: "conversation:abc", Event: "upload", Payload: []byte{1, 2, 3}, Binary: true,
	}, f)
	f, err = ParseBinary([]byte{0, 0, 0, 0, 0})
	require.NoError(t, err)
	require.False(t, f.JoinRef.Set || f.Ref.Set)
	for n := range len(push) - 3 {
		_, err := ParseBinary(push[:n])
		require.ErrorIs(t, err, ErrFrame, n)
	}
	for _, kind := range []byte{1, 2, 255} {
		_, err := ParseBinary([]byte{kind, 0, 0, 0, 0})
		require.ErrorIs(t, err, ErrFrame)
	}
}

func TestAppend(t *testing.T) {
	t.Parallel()
	require.Equal(t, `[null,"9","phoenix","phx_reply",{"status":"ok","response":{}}]`,
		string(AppendReply(nil, V2, Ref{}, RefOf("9"), TopicPhoenix, StatusOK, "{}")))
	require.Equal(t, `{"topic":"phoenix","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"9"}`,
		string(AppendReply(nil, V1, RefOf("1"), RefOf("9"), TopicPhoenix, StatusOK, "{}")))
	require.Equal(t, `["6",null,"conversation:\"","tombstone",{"type":"tombstone"}]`,
		string(AppendEvent(nil, V2, RefOf("6"), Ref{}, `conversation:"`, "tombstone", `{"type":"tombstone"}`)))
	require.Equal(t, `{"topic":"t","event":"e","payload":{},"ref":null}`, string(AppendEvent(nil, V1, RefOf("6"), Ref{}, "t", "e", "{}")))
	require.True(t, json.Valid(AppendEvent(nil, V2, RefOf("\xff"), Ref{}, "\xfe", "e", "{}")))
	require.Equal(t, RefOf("a"), RefOf("a").Or(RefOf("b")))
	require.Equal(t, RefOf("b"), Ref{}.Or(RefOf("b")))
}

// Whatever is sent, parsing ends in a frame that can be answered or an error.
func FuzzParseText(f *testing.F) {
	for _, seed := range []string{
		`[null,"9","phoenix","heartbeat",{}]`, `["6","6","conversation:abc","phx_join",{"from":3}]`, `{"topic":"t","event":"e","payload":{},"ref":"1"}`,
		`[`, `[[[[`, `["\ud800",null,"t","e",{}]`, `{"topic":"t","topic":"u","event":"e"}`, "\x00", `[null,null,"t","e",1e999,[],{}]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		given := string(b)
		frame, err := ParseText(b)
		require.Equal(t, given, string(b), "the input was changed")
		if err != nil {
			require.ErrorIs(t, err, ErrFrame)
			return
		}
		require.True(t, json.Valid(frame.Payload))
		require.False(t, frame.Binary)
		checkAnswers(t, frame)
	})
}

func FuzzParseBinary(f *testing.F) {
	f.Add(append([]byte{0, 1, 2, 16, 6}, "610conversation:abcupload\x01\x02\x03"...))
	f.Add([]byte{0, 255, 255, 255, 255})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := ParseBinary(b)
		if err != nil {
			require.ErrorIs(t, err, ErrFrame)
			return
		}
		require.True(t, frame.Binary)
		require.LessOrEqual(t, len(frame.Topic)+len(frame.Event)+len(frame.Payload), len(b))
		checkAnswers(t, frame)
	})
}

// checkAnswers answers the frame in both shapes, and reads the answer as the
// other side would.
func checkAnswers(t *testing.T, frame Frame) {
	for _, v := range []Version{V1, V2} {
		answer := AppendReply(nil, v, frame.JoinRef, frame.Ref, frame.Topic, StatusError, `{"reason":"unmatched topic"}`)
		require.True(t, json.Valid(answer), "%s", answer)
		back, err := ParseText(answer)
		require.NoError(t, err)
		require.Equal(t, frame.Ref.Set, back.Ref.Set)
		if !frame.Binary {
			require.Equal(t, frame.Ref, back.Ref)
			require.Equal(t, frame.Topic, back.Topic)
		}
	}
}
