package fastpaca_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"

	"github.com/fastpaca/fastpaca/sdk/go"
)

// The code of the README: create or get, append, read, replay.
func Example() {
	ctx := context.Background()
	client, err := fastpaca.New(server.URL()) // http://127.0.0.1:4000
	if err != nil {
		log.Fatal(err)
	}
	conv := client.Conversation("chat-123")
	if _, err := conv.Put(ctx, map[string]any{"user_id": "u_123", "channel": "web"}); err != nil {
		log.Fatal(err)
	}
	if _, err := conv.Append(ctx, fastpaca.TextMessage("user", "Hello!")); err != nil {
		log.Fatal(err)
	}
	if _, err := conv.Append(ctx, fastpaca.TextMessage("assistant", "Hi there!")); err != nil {
		log.Fatal(err)
	}
	messages, err := conv.Tail(ctx, 100)
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range messages {
		fmt.Println(m.Seq, m.Role, m.Text())
	}
	page, err := conv.Replay(ctx, 2, 50)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(page.Messages), "from 2, go on at", page.NextFrom)
	// Output:
	// 1 user Hello!
	// 2 assistant Hi there!
	// 1 from 2, go on at 3
}

// A message id of your own makes an append safe to repeat by hand as well, for
// as long as the message is hot.
func ExampleConversation_Append() {
	ctx := context.Background()
	client, _ := fastpaca.New(server.URL())
	conv := client.Conversation("example/append")
	_, _ = conv.Put(ctx, nil)

	m := fastpaca.TextMessage("user", "Charge my card once.")
	m.ID = "msg_01"
	for range 2 {
		done, err := conv.Append(ctx, m)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("stored at", done.Seq, "duplicate:", done.Duplicate)
	}
	m.Parts = []fastpaca.Part{fastpaca.Text("Charge my card twice.")}
	done, _ := conv.Append(ctx, m)
	fmt.Println("stored at", done.Seq, "as a revision of", done.Revises)
	// Output:
	// stored at 1 duplicate: false
	// stored at 1 duplicate: true
	// stored at 2 as a revision of 1
}

// Two writers that must not overwrite each other's assumptions.
func ExampleIfVersion() {
	ctx := context.Background()
	client, _ := fastpaca.New(server.URL())
	conv := client.Conversation("example/guard")
	info, _ := conv.Put(ctx, nil)

	if _, err := conv.Append(ctx, fastpaca.TextMessage("user", "first"), fastpaca.IfVersion(info.Version)); err != nil {
		log.Fatal(err)
	}
	_, err := conv.Append(ctx, fastpaca.TextMessage("user", "second"), fastpaca.IfVersion(info.Version))
	if errors.Is(err, fastpaca.ErrConflict) {
		var failed *fastpaca.Error
		errors.As(err, &failed)
		fmt.Println("somebody was faster, the version is now", failed.CurrentVersion)
	}
	// Output: somebody was faster, the version is now 1
}

// Parts are yours: tool calls, data, numbers of any size.
func ExampleNewPart() {
	ctx := context.Background()
	client, _ := fastpaca.New(server.URL())
	conv := client.Conversation("example/parts")
	_, _ = conv.Put(ctx, nil)

	call, err := fastpaca.NewPart(map[string]any{
		"type": "tool-transfer", "toolCallId": "call_1", "state": "input-available",
		"input": map[string]any{"account": json.Number("12345678901234567890")},
	})
	if err != nil {
		log.Fatal(err)
	}
	done, err := conv.AppendBatch(ctx, []fastpaca.NewMessage{
		fastpaca.TextMessage("user", "Transfer it."),
		{Role: "assistant", Parts: []fastpaca.Part{call}, Metadata: json.RawMessage(`{"model":"m-1"}`)},
	})
	if err != nil {
		log.Fatal(err)
	}
	messages, _ := conv.Tail(ctx, 1)
	fmt.Println(len(done), "stored,", messages[0].Parts[0].Type())
	fmt.Println(messages[0].Parts[0])
	// Output:
	// 2 stored, tool-transfer
	// {"input":{"account":12345678901234567890},"state":"input-available","toolCallId":"call_1","type":"tool-transfer"}
}

// A worker that sees every message once, from where it left off, for ever.
func ExampleConversation_Subscribe() {
	ctx := context.Background()
	client, _ := fastpaca.New(server.URL())
	conv := client.Conversation("example/subscribe")
	_, _ = conv.Put(ctx, nil)
	for _, text := range []string{"one", "two", "three"} {
		if _, err := conv.Append(ctx, fastpaca.TextMessage("user", text)); err != nil {
			log.Fatal(err)
		}
	}
	_ = conv.Tombstone(ctx) // so that this example ends

	cursor := int64(2) // kept by you: the first message you want
	for m, err := range conv.Subscribe(ctx, cursor) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(m.Seq, m.Text())
		cursor = m.Seq + 1
	}
	// Output:
	// 2 two
	// 3 three
}

// Page back through a long conversation while it grows.
func ExampleConversation_TailBefore() {
	ctx := context.Background()
	client, _ := fastpaca.New(server.URL())
	conv := client.Conversation("example/pages")
	_, _ = conv.Put(ctx, nil)
	for i := range 5 {
		_, _ = conv.Append(ctx, fastpaca.TextMessage("user", fmt.Sprint("message ", i+1)))
	}
	page, err := conv.Tail(ctx, 2)
	for len(page) > 0 && err == nil {
		fmt.Println(page[0].Seq, "to", page[len(page)-1].Seq)
		page, err = conv.TailBefore(ctx, page[0].Seq, 2)
	}
	// Output:
	// 4 to 5
	// 2 to 3
	// 1 to 1
}

// What to do about an error.
func ExampleError() {
	ctx := context.Background()
	client, _ := fastpaca.New(server.URL())
	_, err := client.Conversation("example/missing").Append(ctx, fastpaca.TextMessage("user", "Hello?"))
	var failed *fastpaca.Error
	switch {
	case errors.Is(err, fastpaca.ErrNotFound):
		fmt.Println("create it first")
	case errors.As(err, &failed) && failed.Retryable:
		fmt.Println("try again after", failed.RetryAfter)
	}
	// Output: create it first
}
