package openapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// released is the contract as it was released last. Clients in the field are
// made from it, so it is replaced when a version is released and at no other
// time: `cp openapi.json released.json`.
const released = "released.json"

// tool is the path of the pinned oasdiff, built when it is first asked for.
var tool = sync.OnceValues(func() (string, error) {
	cmd := exec.Command("go", "tool", "-modfile=tool.mod", "-n", "oasdiff")
	var said strings.Builder
	cmd.Stderr = &said
	path, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("build oasdiff: %w: %s", err, &said)
	}
	return strings.TrimSpace(string(path)), nil
})

// oasdiff runs the tool. broken tells that it found something.
func oasdiff(t *testing.T, args ...string) (output string, broken bool) {
	t.Helper()
	program, err := tool()
	require.NoError(t, err)
	out, err := exec.Command(program, args...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return string(out), true
	}
	require.NoError(t, err, "%s", out)
	return string(out), false
}

// breaking compares a document with the released contract. Beside what oasdiff
// takes for breaking, it is breaking to drop an optional member of an answer, a
// documented failure, or the name of an operation: clients have fields, branches
// and functions of those names.
func breaking(t *testing.T, document string) (output string, broken bool) {
	t.Helper()
	return oasdiff(t, "breaking", "--fail-on", "WARN", "--severity-levels", "breaking-levels.txt", "--format", "singleline", released, document)
}

func TestTheReleasedContractIsKept(t *testing.T) {
	t.Parallel()
	output, broken := breaking(t, "openapi.json")
	require.False(t, broken, "what breaks clients of the released contract:\n%s", output)
}

func TestDocumentsAreValid(t *testing.T) {
	t.Parallel()
	for _, document := range []string{"openapi.json", "openapi.yaml", "openapi-3.0.json", "admin.json", "admin.yaml"} {
		output, broken := oasdiff(t, "validate", document)
		require.False(t, broken, "%s:\n%s", document, output)
	}
}

type object = map[string]any

// in follows keys into a document.
func in(document object, keys ...string) object {
	for _, key := range keys {
		document = document[key].(object)
	}
	return document
}

func schema(document object, name string) object {
	return in(document, "components", "schemas", name)
}

func operation(document object, path, method string) object {
	return in(document, "paths", path, method)
}

func parameter(document object, path, method, name string) object {
	for _, p := range operation(document, path, method)["parameters"].([]any) {
		if p.(object)["name"] == name {
			return p.(object)
		}
	}
	return nil
}

const (
	conversation = "/conversations/{id}"
	messages     = conversation + "/messages"
	tail         = conversation + "/tail"
)

// What the comparison is there for is noticed; what clients do not notice is not.
func TestBreakingChangesAreNoticed(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]struct {
		change func(document object)
		check  string // of oasdiff; empty when nothing is broken
	}{
		"a path goes": {func(d object) { delete(in(d, "paths"), tail) }, "api-path-removed-without-deprecation"},
		"an operation goes": {func(d object) { delete(in(d, "paths", conversation), "delete") },
			"api-removed-without-deprecation"},
		"an operation is renamed": {func(d object) { operation(d, tail, "get")["operationId"] = "newest" }, "api-operation-id-removed"},
		"a success goes":          {func(d object) { delete(in(operation(d, messages, "post"), "responses"), "201") }, "response-success-status-removed"},
		"a failure goes":          {func(d object) { delete(in(operation(d, messages, "post"), "responses"), "409") }, "response-non-success-status-removed"},
		"a member of an answer goes": {func(d object) {
			message := schema(d, "Message")
			delete(in(message, "properties"), "seq")
			message["required"] = slices.DeleteFunc(message["required"].([]any), func(name any) bool { return name == "seq" })
		}, "response-required-property-removed"},
		"an optional member of an answer goes": {func(d object) { delete(in(schema(d, "Message"), "properties"), "id") }, "response-optional-property-removed"},
		"a member of an answer may be absent": {func(d object) {
			message := schema(d, "Message")
			message["required"] = message["required"].([]any)[1:]
		}, "response-property-became-optional"},
		"a member has another type": {func(d object) { in(schema(d, "Message"), "properties", "seq")["type"] = "string" }, "response-property-type-changed"},
		"a body needs a new member": {func(d object) {
			message := schema(d, "NewMessage")
			in(message, "properties")["channel"] = object{"type": "string"}
			message["required"] = append(message["required"].([]any), "channel")
		}, "new-required-request-property"},
		"a body needs what it did not": {func(d object) {
			message := schema(d, "NewMessage")
			message["required"] = append(message["required"].([]any), "id")
		}, "request-property-became-required"},
		"a bound is narrower":   {func(d object) { in(schema(d, "NewMessage"), "properties", "role")["maxLength"] = 32 }, "request-property-max-length-decreased"},
		"an enum is narrower":   {func(d object) { in(parameter(d, tail, "get", "consistency"), "schema")["enum"] = []any{"leader"} }, "request-parameter-enum-value-removed"},
		"a parameter is needed": {func(d object) { parameter(d, tail, "get", "limit")["required"] = true }, "request-parameter-became-required"},
		"a parameter goes": {func(d object) {
			get := operation(d, tail, "get")
			get["parameters"] = slices.DeleteFunc(get["parameters"].([]any), func(p any) bool { return p.(object)["name"] == "before" })
		}, "request-parameter-removed"},

		"an operation, members and a parameter come": {func(d object) {
			in(d, "paths")["/conversations/{id}/summary"] = object{"get": object{
				"operationId": "summary", "responses": object{"204": object{"description": "None."}},
				"parameters": []any{object{"name": "id", "in": "path", "required": true, "schema": object{"type": "string"}}},
			}}
			in(schema(d, "Message"), "properties")["channel"] = object{"type": "string"}
			in(schema(d, "NewMessage"), "properties")["channel"] = object{"type": "string"}
			get := operation(d, tail, "get")
			get["parameters"] = append(get["parameters"].([]any), object{"name": "role", "in": "query", "schema": object{"type": "string"}})
		}, ""},
		"other words": {func(d object) {
			operation(d, tail, "get")["description"] = "Newest."
			in(schema(d, "Message"), "properties", "seq")["description"] = "Place."
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(released)
			require.NoError(t, err)
			var document object
			require.NoError(t, json.Unmarshal(text, &document))
			change.change(document)
			changed := filepath.Join(t.TempDir(), "changed.json")
			text, err = json.Marshal(document)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(changed, text, 0o644))

			output, broken := breaking(t, changed)
			require.Equal(t, change.check != "", broken, output)
			if change.check != "" {
				require.Contains(t, output, "["+change.check+"]")
			}
		})
	}
}
