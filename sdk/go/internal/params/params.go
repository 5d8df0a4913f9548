// Package params writes request parameters for the generated client, in place
// of the runtime module of its generator: the contract has none but strings and
// integers, and needs none of that module's dependencies.
package params

import (
	"fmt"
	"net/url"
	"reflect"
	"strconv"
	"strings"
)

// ParamLocation says where in a request a parameter goes.
type ParamLocation int

// The places that the contract uses.
const (
	ParamLocationQuery ParamLocation = iota + 1
	ParamLocationPath
	ParamLocationHeader
)

// StyleParamOptions are what the generated code knows of a parameter.
type StyleParamOptions struct {
	ParamLocation ParamLocation
	Type          string // of the contract, unused: the Go type tells
	Format        string // likewise
}

// StyleParamWithOptions returns a parameter as it stands in a request: escaped,
// and in a query together with its name. Style and explode make no difference
// for single values. Values that are neither strings nor integers are an error.
func StyleParamWithOptions(_ string, _ bool, name string, value any, opts StyleParamOptions) (string, error) {
	v := reflect.ValueOf(value)
	var text string
	switch {
	case v.Kind() == reflect.String:
		text = v.String()
	case v.CanInt():
		text = strconv.FormatInt(v.Int(), 10)
	default:
		return "", fmt.Errorf("parameter %s: cannot write a %T", name, value)
	}
	switch opts.ParamLocation {
	case ParamLocationQuery:
		return url.QueryEscape(name) + "=" + url.QueryEscape(text), nil
	case ParamLocationPath:
		return PathSegment(text), nil
	default:
		return text, nil
	}
}

// PathSegment escapes any text as one segment of a path. Unlike url.PathEscape
// it also escapes "." and "..", which would otherwise be taken for steps.
func PathSegment(text string) string {
	if text == "." || text == ".." {
		return strings.ReplaceAll(text, ".", "%2E")
	}
	return url.PathEscape(text)
}
