package readme

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	t.Parallel()
	steps, err := Parse(strings.NewReader(`# Title
` + "```bash\nrm -rf not-run\n```" + `
<!-- test:quickstart -->
` + "```bash\necho one\n\necho two\n```" + `
<!-- expect: one -->
Some text.
<!-- expect: "two": 2 -->
<!-- an ordinary comment -->
<!-- test:restart -->
<!-- test:after -->

` + "```sh\n<!-- expect: inside a block -->\n```\n"))
	require.NoError(t, err)
	require.Equal(t, []Step{
		{Name: "quickstart", Line: 5, Script: "echo one\n\necho two\n", Expect: []string{"one", `"two": 2`}},
		{Name: "restart", Line: 15, Restart: true},
		{Name: "after", Line: 16, Script: "<!-- expect: inside a block -->\n"},
	}, steps)
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no block":                "<!-- test:a -->\n",
		"two markers":             "<!-- test:a -->\n<!-- test:b -->\n```bash\n```\n",
		"another language":        "<!-- test:a -->\n```ts\n```\n",
		"an open block":           "<!-- test:a -->\n```bash\necho\n",
		"expectation first":       "<!-- expect: x -->\n",
		"expectation of restart":  "<!-- test:restart -->\n<!-- expect: x -->\n",
		"expectation before code": "<!-- test:a -->\n<!-- expect: x -->\n```bash\n```\n",
	} {
		_, err := Parse(strings.NewReader(text))
		require.Error(t, err, name)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("<!-- test:a -->\n```bash\necho\n```\n<!-- expect: x -->\n")
	f.Add("```\n<!---->")
	f.Fuzz(func(t *testing.T, text string) {
		steps, err := Parse(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, s := range steps {
			require.False(t, s.Restart && s.Script != "", "a restart runs nothing")
			require.Positive(t, s.Line)
		}
	})
}
