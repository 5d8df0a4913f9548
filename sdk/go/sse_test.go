package fastpaca

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func framesOf(text string) *frames {
	return &frames{in: bufio.NewReaderSize(strings.NewReader(text), 16), alive: func() {}}
}

func TestServerSentEvents(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 1000)
	for name, c := range map[string]struct {
		text  string
		want  []string
		retry time.Duration
	}{
		"one":          {"event: message\nid: 1\ndata: {}\n\n", []string{"{}"}, 0},
		"CRLF":         {"data: a\r\n\r\ndata: b\r\n\r\n", []string{"a", "b"}, 0},
		"comments":     {": hello\n\n:\n\ndata: a\n: b\n\n", []string{"a"}, 0},
		"several data": {"data: a\ndata:b\ndata:  c\n\n", []string{"a\nb\n c"}, 0},
		"empty data":   {"data\n\ndata:\n\n", []string{"", ""}, 0},
		"no data":      {"event: x\nid: 1\n\n", nil, 0},
		"retry":        {"retry: 250\n\nretry: x\n\nretry: -1\n\n", nil, 250 * time.Millisecond},
		"unfinished":   {"data: a\n\ndata: b\n", []string{"a"}, 0},
		"cut line":     {"data: a\n\ndata: b", []string{"a"}, 0},
		"long lines":   {"data: " + long + "\n\ndata: y\n\n", []string{long, "y"}, 0},
		"nothing":      {"", nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := framesOf(c.text)
			var got []string
			var buf []byte
			for {
				data, err := f.next(buf)
				if err != nil {
					require.ErrorIs(t, err, io.ErrUnexpectedEOF)
					break
				}
				got, buf = append(got, string(data)), data
			}
			require.Equal(t, c.want, got)
			require.Equal(t, c.retry, f.retry)
		})
	}
}

// A server that never ends a line or an event does not fill the memory.
func TestServerSentEventsAreBounded(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]io.Reader{
		"a line":   io.MultiReader(strings.NewReader("data: "), endless("x")),
		"an event": endless("data: " + strings.Repeat("x", 1000) + "\n"),
	} {
		f := &frames{in: bufio.NewReader(in), alive: func() {}}
		_, err := f.next(nil)
		require.ErrorIs(t, err, errFrameTooLarge, name)
	}
}

type endless string

func (e endless) Read(p []byte) (int, error) {
	n := 0
	for n+len(e) <= len(p) {
		n += copy(p[n:], e)
	}
	return n, nil
}

func FuzzServerSentEvents(f *testing.F) {
	f.Add([]byte("event: message\nid: 1\ndata: {}\n\n: x\n\nretry: 1\n"))
	f.Add([]byte("data\r\n\r\n\x00:\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		in := frames{in: bufio.NewReaderSize(bytes.NewReader(text), 16), alive: func() {}}
		total := 0
		for {
			data, err := in.next(nil)
			if err != nil {
				return
			}
			total += len(data)
			require.LessOrEqual(t, total, len(text))
		}
	})
}
