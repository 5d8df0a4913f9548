package archive

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/dataplane/archive/archivetest"
)

func TestColumnsOfAMessage(t *testing.T) {
	t.Parallel()
	c, err := parseColumns([]byte(`{"seq":7,"id":"m \"1\" \u00e9\n","role":"user","parts":[{"type":"x","b":1,"a":[1,2,{}]}],` +
		`"metadata":{"k": "}\"{"},"token_count":12,"future":[{"parts":1}],"inserted_at":"2026-03-04T05:06:07.000089Z"}`))
	require.NoError(t, err)
	require.Equal(t, "m \"1\" é\n", c.id)
	require.Equal(t, "user", c.role)
	require.JSONEq(t, `[{"type":"x","b":1,"a":[1,2,{}]}]`, string(c.parts))
	require.JSONEq(t, `{"k":"}\"{"}`, string(c.metadata))
	require.Equal(t, int64(12), c.tokens)
	require.Equal(t, time.Date(2026, 3, 4, 5, 6, 7, 89000, time.UTC), c.inserted.UTC())
	require.True(t, c.exact)
}

func TestColumnsRefuseWhatIsNotAMessage(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"", "{", "[]", "{}", `{"a"}`, `{"a":}`, `{"a":1`, `{a:1}`, `{"role":"u"}`, `{"inserted_at":"yesterday"}`, `{"inserted_at":5}`} {
		_, err := parseColumns([]byte(in))
		require.Error(t, err, in)
	}
}

// What jsonb cannot hold is replaced, and what it can is left alone.
var cleaning = map[string]struct {
	in, want string
	exact    bool
}{
	"plain":              {`{"a":[1,-2.5e3,true,null,"x\"\\\/\b"]}`, `{"a":[1,-2.5e3,true,null,"x\"\\\/\b"]}`, true},
	"NUL":                {`["a\u0000b\u0000"]`, `["a\ufffdb\ufffd"]`, false},
	"NUL in a key":       {`{"\u0000":1}`, `{"\ufffd":1}`, false},
	"backslash u0000":    {`["\\u0000"]`, `["\\u0000"]`, true},
	"lone high":          {`["\ud800x"]`, `["\ufffdx"]`, false},
	"lone low":           {`["\udc00"]`, `["\ufffd"]`, false},
	"wrong order":        {`["\udc00\ud800"]`, `["\ufffd\ufffd"]`, false},
	"pair":               {`["\ud83d\ude00"]`, `["\ud83d\ude00"]`, true},
	"high then escape":   {`["\ud83d\u0041"]`, `["\ufffd\u0041"]`, false},
	"replacement itself": {`["\uFFFD"]`, `["\uFFFD"]`, true},
	"1e400":              {`[1e400]`, `[1e400]`, true},
	"huge exponent":      {`[1e999999, -1E-9999]`, `["1e999999", "-1E-9999"]`, false},
	"absurd exponent":    {`[1e99999999999999999999]`, `["1e99999999999999999999"]`, false},
	"many digits":        {`[` + strings.Repeat("9", 401) + `]`, `["` + strings.Repeat("9", 401) + `"]`, false},
	"beyond 2^53":        {`[9007199254740993]`, `[9007199254740993]`, true},
	"not UTF-8":          {"[\"a\xffb\"]", `["a\ufffdb"]`, false},
	"deep":               {strings.Repeat("[", 1002) + strings.Repeat("]", 1002), strings.Repeat("[", 1000) + "null" + strings.Repeat("]", 1000), false},
}

func TestCleanJSON(t *testing.T) {
	t.Parallel()
	for name, c := range cleaning {
		got, exact := cleanJSON([]byte(c.in))
		require.Equal(t, c.want, string(got), name)
		require.Equal(t, c.exact, exact, name)
	}
}

// Postgres itself takes everything that was cleaned, and refuses what was not.
func TestPostgresTakesCleanJSON(t *testing.T) {
	t.Parallel()
	url := archivetest.Shared(t).NewDatabase(t)
	for name, c := range cleaning {
		require.NotEmpty(t, archivetest.Query[string](t, url, "SELECT ($1::text)::jsonb::text", c.want), name)
	}
}

// Whatever JSON a client can send, the columns are valid JSON of the same
// shape, and cleaning twice changes nothing more.
func FuzzCleanJSON(f *testing.F) {
	for _, c := range cleaning {
		f.Add([]byte(c.in))
	}
	f.Add([]byte(`{"a":"\u12"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		out, exact := cleanJSON(in)
		if !json.Valid(in) {
			return // it must only not panic
		}
		require.True(t, json.Valid(out), "%q became %q", in, out)
		require.Equal(t, exact, string(in) == string(out))
		again, clean := cleanJSON(out)
		require.True(t, clean, "%q became %q", out, again)
		require.NotContains(t, strings.ReplaceAll(string(out), `\\`, ""), `\u0000`)
	})
}

func FuzzParseColumns(f *testing.F) {
	f.Add([]byte(`{"seq":7,"id":"m","role":"user","parts":[],"metadata":{},"token_count":1,"inserted_at":"2026-03-04T05:06:07.000089Z"}`))
	f.Add([]byte(`{"role":"\u0000\ud800","token_count":99999999999999999999,"inserted_at":"2026-03-04T05:06:07Z"}`))
	f.Add([]byte(`{"a":"\`))
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := parseColumns(in)
		if err != nil || !json.Valid(in) {
			return
		}
		require.NotContains(t, c.role, "\x00")
		require.NotContains(t, c.id, "\x00")
		require.True(t, c.parts == nil || json.Valid(c.parts))
		require.GreaterOrEqual(t, c.tokens, int64(0))
	})
}
