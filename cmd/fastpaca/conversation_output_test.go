package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/sdk/go"
)

// A message must not be able to move the cursor, set a title or hide text.
func TestPrintable(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"plain":             "plain",
		"two\nlines\tand  ": "two lines and",
		"\x1b[2Jgone":       "\ufffd[2Jgone",
		"a\u202eb":          "a\ufffdb",
		"\u009b1m":          "\ufffd1m",
		"\xff":              "\ufffd",
		"llama 🦙 \u00e9":    "llama 🦙 é",
		"👩\u200d💻":          "👩\u200d💻",
	} {
		require.Equal(t, want, printable(given))
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("\x1b]0;title\x07")
	f.Fuzz(func(t *testing.T, s string) {
		require.NotContains(t, printable(s), "\x1b")
		require.Zero(t, strings.Count(printable(s), "\n"))
		require.Equal(t, printable(s), printable(printable(s)))
	})
}

func TestColumns(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := printer{w: &out, colours: true, columns: 60}
	m := fastpaca.Message{Seq: 12345678, Role: "user", Parts: []fastpaca.Part{fastpaca.Text(strings.Repeat("é", 100)), fastpaca.Part(`{"type":"x"}`)}}
	require.NoError(t, p.message(m))
	require.Contains(t, out.String(), "\x1b[36muser      \x1b[0m  "+strings.Repeat("é", 19)+"…\n")
	require.Contains(t, out.String(), "12345678")
	out.Reset()
	p.colours, p.columns = false, 0
	require.NoError(t, p.message(m))
	require.Contains(t, out.String(), strings.Repeat("é", 100)+" [x]\n")
	require.NotContains(t, out.String(), "\x1b")
}

func TestJSONLines(t *testing.T) {
	t.Parallel()
	require.Equal(t, "{ \"a\": 1 }\n", string(jsonLine([]byte(`{ "a": 1 }`))))
	require.Equal(t, "{\"a\":1e400}\n", string(jsonLine([]byte("{\n \"a\":\r\n1e400 }"))))
	raw := append(make([]byte, 0, 100), `{}`...)
	_ = jsonLine(raw)
	require.Zero(t, raw[:3][2], "what it was given is not written to")
}

func TestShellWords(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"chat-1/a.b": "chat-1/a.b", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "-x": "'-x'", "$x": "'$x'", "🦙": "'🦙'",
	} {
		require.Equal(t, want, shellWord(given))
	}
}
