// The cases of cases.json through the client that oapi-codegen generates, with
// its defaults, from the contract as it is: go run . CASES. BASE is the server, NAME sets conversations apart.
// Every body goes through the generated types both ways. Prints results as JSON.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"

	"fastpaca.test/oapi-codegen/contract"
)

type call struct {
	Op      string
	ID      string
	Query   map[string]any
	Headers map[string]any
	Body    json.RawMessage
	Want    struct {
		Status int
		Body   any
	}
}

type result struct{ Name, Failure, Skipped string }

// errCannot is of a call that the generated client has no function for.
var errCannot = errors.New("not generated")

// answer is what all generated answers have in common.
type answer interface{ StatusCode() int }

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		return err
	}
	var cases []struct {
		Name  string
		Calls []call
	}
	if err := decode(text, &cases); err != nil {
		return err
	}
	client, err := contract.NewClientWithResponses(os.Getenv("BASE") + "/v1")
	if err != nil {
		return err
	}
	results := make([]result, len(cases))
	for i, one := range cases {
		results[i].Name = one.Name
		for n, c := range one.Calls {
			err := try(client, c, os.Getenv("NAME")+"/"+cmp.Or(c.ID, one.Calls[0].ID))
			if errors.Is(err, errCannot) {
				results[i].Skipped = fmt.Sprintf("%s: %v", c.Op, err)
				break
			}
			if err != nil {
				results[i].Failure = fmt.Sprintf("call %d, %s: %v", n+1, c.Op, err)
				break
			}
		}
	}
	return json.NewEncoder(os.Stdout).Encode(results)
}

// try makes a call and compares the answer.
func try(client *contract.ClientWithResponses, c call, id string) error {
	c.Want.Body = named(c.Want.Body, id)
	for name, value := range c.Query {
		c.Query[name] = named(value, id)
	}
	got, err := send(client, c, id)
	if err != nil {
		return err
	}
	if got.StatusCode() != c.Want.Status {
		return fmt.Errorf("status %d, want %d: %s", got.StatusCode(), c.Want.Status, reflect.ValueOf(got).Elem().FieldByName("Body").Bytes())
	}
	if c.Want.Body == nil {
		return nil
	}
	field := reflect.ValueOf(got).Elem().FieldByName(fmt.Sprintf("JSON%d", c.Want.Status))
	if !field.IsValid() || field.IsNil() {
		return fmt.Errorf("the generated type has no body for %d", c.Want.Status)
	}
	text, err := json.Marshal(field.Interface())
	if err != nil {
		return err
	}
	var body any
	if err := decode(text, &body); err != nil {
		return err
	}
	if !holds(body, c.Want.Body) {
		want, _ := json.Marshal(c.Want.Body)
		return fmt.Errorf("got %s, want %s", text, want)
	}
	return nil
}

func send(client *contract.ClientWithResponses, c call, id string) (answer, error) {
	ctx := context.Background()
	switch c.Op {
	case "putConversation":
		var body contract.PutConversationJSONRequestBody
		if err := decode(c.Body, &body); err != nil {
			return nil, err
		}
		return client.PutConversationWithResponse(ctx, id, body)
	case "getConversation":
		params, err := paramsOf[contract.GetConversationParams](c)
		if err != nil {
			return nil, err
		}
		return client.GetConversationWithResponse(ctx, id, params)
	case "tombstoneConversation":
		return client.TombstoneConversationWithResponse(ctx, id)
	case "listConversations":
		params, err := paramsOf[contract.ListConversationsParams](c)
		if err != nil {
			return nil, err
		}
		return client.ListConversationsWithResponse(ctx, params)
	case "appendMessages":
		params, err := paramsOf[contract.AppendMessagesParams](c)
		if err != nil {
			return nil, err
		}
		body, err := appendBody(c.Body)
		if err != nil {
			return nil, err
		}
		return client.AppendMessagesWithResponse(ctx, id, params, body)
	case "tailMessages":
		params, err := paramsOf[contract.TailMessagesParams](c)
		if err != nil {
			return nil, err
		}
		return client.TailMessagesWithResponse(ctx, id, params)
	case "replayMessages":
		params, err := paramsOf[contract.ReplayMessagesParams](c)
		if err != nil {
			return nil, err
		}
		return client.ReplayMessagesWithResponse(ctx, id, params)
	}
	return nil, errCannot // oapi-codegen makes no client of event streams
}

// appendBody goes through the union's branch.
func appendBody(text []byte) (body contract.AppendMessagesJSONRequestBody, err error) {
	if !bytes.Contains(text, []byte(`"messages"`)) {
		var one contract.AppendMessage
		if err := decode(text, &one); err != nil {
			return body, err
		}
		return body, body.FromAppendMessage(one)
	}
	var several contract.AppendMessages
	if err := decode(text, &several); err != nil {
		return body, err
	}
	return body, body.FromAppendMessages(several)
}

// paramsOf fills the generated parameters by the names of the contract.
func paramsOf[T any](c call) (*T, error) {
	all := map[string]any{}
	for _, some := range []map[string]any{c.Query, c.Headers} {
		for name, value := range some {
			all[name] = value
		}
	}
	text, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	params := new(T)
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields() // a parameter that was not generated
	return params, decoder.Decode(params)
}

// decode keeps numbers as they are written.
func decode(text []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	return decoder.Decode(into)
}

// named puts the conversation's id where $ID stands.
func named(value any, id string) any {
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			v[name] = named(member, id)
		}
	case []any:
		for i, element := range v {
			v[i] = named(element, id)
		}
	case string:
		return strings.ReplaceAll(v, "$ID", id)
	}
	return value
}

// holds reports whether a value has all that is wanted; objects may have more.
func holds(got, want any) bool {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return false
		}
		for name, member := range w {
			if value, ok := g[name]; !ok || !holds(value, member) {
				return false
			}
		}
		return true
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return false
		}
		for i := range w {
			if !holds(g[i], w[i]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(got, want)
}
