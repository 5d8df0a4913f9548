package params

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStyle(t *testing.T) {
	t.Parallel()
	type level string
	for name, c := range map[string]struct {
		value any
		in    ParamLocation
		want  string
	}{
		"path":         {"a/b c?d#e%f", ParamLocationPath, "a%2Fb%20c%3Fd%23e%25f"},
		"path, emoji":  {"🦙", ParamLocationPath, "%F0%9F%A6%99"},
		"path, dot":    {".", ParamLocationPath, "%2E"},
		"path, dots":   {"..", ParamLocationPath, "%2E%2E"},
		"path, three":  {"...", ParamLocationPath, "..."},
		"query":        {"a&b=c +d", ParamLocationQuery, "p=a%26b%3Dc+%2Bd"},
		"query, count": {int64(-7), ParamLocationQuery, "p=-7"},
		"query, named": {level("stale"), ParamLocationQuery, "p=stale"},
		"header":       {"key: 1", ParamLocationHeader, "key: 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := StyleParamWithOptions("form", true, "p", c.value, StyleParamOptions{ParamLocation: c.in})
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
	for _, odd := range []any{nil, 1.5, []string{"a"}, struct{}{}} {
		_, err := StyleParamWithOptions("form", true, "p", odd, StyleParamOptions{})
		require.ErrorContains(t, err, "parameter p")
	}
}

// Whatever an id holds, it is one segment of a path and comes back as it was.
func FuzzPathSegment(f *testing.F) {
	for _, id := range []string{"a", ".", "..", "a/../b", "%2F", "🦙", "\xff", "a b", "?x=1#y"} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		if id == "" {
			return
		}
		base, err := url.Parse("http://host/v1/")
		require.NoError(t, err)
		full, err := base.Parse("./conversations/" + PathSegment(id) + "/tail")
		require.NoError(t, err)
		require.Equal(t, "/v1/conversations/"+id+"/tail", full.Path)
	})
}
