package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestParseCount(t *testing.T) {
	t.Parallel()
	cases := []struct {
		raw  string
		most uint64
		want uint64
		ok   bool
	}{
		{"0", 10, 0, true}, {"7", 10, 7, true}, {"10", 10, 10, true}, {"11", 10, 0, false},
		{"18446744073709551615", 1<<64 - 1, 1<<64 - 1, true}, {"18446744073709551616", 1<<64 - 1, 0, false},
		{"99999999999999999999", 1<<64 - 1, 0, false}, {"184467440737095516150", 1<<64 - 1, 0, false},
		{"", 10, 0, false}, {"-1", 10, 0, false}, {"-0", 10, 0, false}, {"1.0", 10, 0, false}, {"1e0", 10, 0, false},
		{`"1"`, 10, 0, false}, {"null", 10, 0, false}, {"[1]", 10, 0, false},
	}
	for _, tc := range cases {
		n, ok := parseCount([]byte(tc.raw), tc.most)
		require.Equal(t, tc.ok, ok, tc.raw)
		if ok {
			require.Equal(t, tc.want, n, tc.raw)
		}
	}
}

func TestParseInteger(t *testing.T) {
	t.Parallel()
	cases := map[string]int64{
		"0": 0, "-0": 0, "007": 7, "-5": -5, "9223372036854775807": 1<<63 - 1, "9223372036854775808": 1<<63 - 1,
		"99999999999999999999999999": 1<<63 - 1, "-99999999999999999999999999": -1 << 63,
	}
	for s, want := range cases {
		n, ok := parseInteger(s)
		require.True(t, ok, s)
		require.Equal(t, want, n, s)
	}
	for _, s := range []string{"", "-", "+1", " 1", "1 ", "1.0", "1e3", "0x10", "1_000", "--1", "١", "NaN"} {
		_, ok := parseInteger(s)
		require.False(t, ok, s)
	}
}

func TestTooDeep(t *testing.T) {
	t.Parallel()
	nest := func(open, middle, shut string, n int) []byte {
		return []byte(strings.Repeat(open, n) + middle + strings.Repeat(shut, n))
	}
	require.False(t, tooDeep(nest("[", "", "]", maxJSONDepth)))
	require.True(t, tooDeep(nest("[", "", "]", maxJSONDepth+1)))
	require.False(t, tooDeep(nest(`{"a":`, "1", "}", maxJSONDepth)))
	require.True(t, tooDeep(nest(`{"a":`, "1", "}", maxJSONDepth+1)))
	require.False(t, tooDeep([]byte("["+strings.Repeat("[],", 1000)+"[]]")), "wide is not deep")
	require.False(t, tooDeep([]byte(`["`+strings.Repeat(`[`, 1000)+`","\"`+strings.Repeat(`{`, 1000)+`\\"]`)), "brackets in strings are not levels")
}

// decodedLen agrees with the decoder of jsontext on every string.
func TestDecodedLen(t *testing.T) {
	t.Parallel()
	check := func(t require.TestingT, raw []byte) {
		decoded, err := jsontext.AppendUnquote(nil, raw)
		var syntax *jsontext.SyntacticError
		if err != nil && !errors.As(err, &syntax) {
			return
		}
		require.Equal(t, len(decoded), decodedLen(raw), "%s", raw)
	}
	for _, s := range []string{`""`, `"abc"`, `"\n\t\\\/\"\b\f\r"`, `"\u0041\u00e9\u20ac\ud83d\ude00"`, `"\uD83D\uDE00"`, `"\ud83d"`, `"\ud83dx"`, `"\ud83d\n"`, `"\ude00\ud83d"`, `"\ud83d\ud83d\ude00"`, `"é☃🐫"`, `"\u0000"`, `"\uFFFF\u07ff\u0800\u007f\u0080"`} {
		check(t, []byte(s))
	}
	rapid.Check(t, func(t *rapid.T) {
		pieces := rapid.SliceOf(rapid.SampledFrom([]string{
			"a", "é", "☃", "🐫", `\n`, `\\`, `\"`, `\u0041`, `\u00e9`, `\u20AC`, `\ud83d`, `\ude00`, `\uD83D\uDE00`, `\u0000`, `\uffff`,
		})).Draw(t, "pieces")
		check(t, []byte(`"`+strings.Join(pieces, "")+`"`))
	})
}

// strict reports, with the standard library and a slow recursion, whether a text
// is what decoder accepts: JSON in UTF-8 without duplicate names, and not too
// deep.
func strict(text []byte) bool {
	if !utf8.Valid(text) || !json.Valid(text) {
		return false
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return distinct(d, 0) == nil
}

var errNotStrict = errors.New("not strict")

func distinct(d *json.Decoder, depth int) error {
	token, err := d.Token()
	if err != nil {
		return err
	}
	open, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	if depth++; depth > maxJSONDepth {
		return errNotStrict
	}
	names := map[string]bool{}
	for d.More() {
		if open == '{' {
			name, err := d.Token()
			if err != nil {
				return err
			}
			if names[name.(string)] {
				return errNotStrict
			}
			names[name.(string)] = true
		}
		if err := distinct(d, depth); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil && err != io.EOF {
		return err
	}
	return nil
}

// FuzzDecoder checks the decoder against the standard library.
func FuzzDecoder(f *testing.F) {
	for _, s := range []string{
		hello, `{}`, `[]`, `null`, `1`, `""`, ``, ` `, `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `[{"a":[{"b":1,"b":1}]}]`, `{"a":}`, `[1,]`, `01`, `1e400`, `-`, `"\ud800"`,
		`{"\ud800":1,"\ud801":1}`, "\"\xff\"", `{"a":1}{}`, `[[[[]]]]`, `{"a":{"a":{"a":1}}}`, "\ufeff{}", `"\u00"`, `tru`, `{"a" :1 , "b": [ ] }`,
		strings.Repeat("[", 513) + strings.Repeat("]", 513), `"a` + "\n" + `b"`, `"\/\b"`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var d decoder
		err := d.start(text)
		if err == nil {
			_, err = d.value()
		}
		if err == nil {
			err = d.finish()
		}
		if want := strict(text); want != (err == nil) {
			t.Fatalf("%q: strict %v, decoder %v", text, want, err)
		}
	})
}
