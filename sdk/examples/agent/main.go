// An agent with a tool that may be killed at any step: it goes on there when it is
// started again, wherever that is. The model is a fake.
//
//	go run .               asks itself a question and keeps following
//	go run . support-42    works in that conversation
//
// What it has done is in the conversation and nowhere else. Each step is one
// message, with an id made of the question it belongs to. After a restart the
// agent reads the conversation again and takes the first step that is missing.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/fastpaca/fastpaca/sdk/go"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	url := os.Getenv("FASTPACA_URL")
	if url == "" {
		url = "http://localhost:4000"
	}
	client, err := fastpaca.New(url)
	if err != nil {
		return err
	}
	id := "agent-demo"
	if len(args) > 0 {
		id = args[0]
	}
	conv := client.Conversation(id)
	if _, err := conv.Put(ctx, nil); err != nil {
		return err
	}
	if len(args) == 0 {
		if _, err := conv.Append(ctx, fastpaca.TextMessage("user", "What is the weather in Oslo?")); err != nil {
			return err
		}
	}
	fmt.Printf("following %s; Ctrl-C stops\n", id)
	a := &agent{conv: conv, steps: map[string]fastpaca.Part{}}
	return a.follow(ctx)
}

// agent works through the questions of one conversation.
type agent struct {
	conv  *fastpaca.Conversation
	steps map[string]fastpaca.Part // that are in the conversation, by the ids of their messages
	open  []fastpaca.Message       // questions that may miss steps
}

// follow reads what is there before it does anything, and then works whenever
// something comes.
func (a *agent) follow(ctx context.Context) error {
	live := false
	for event, err := range a.conv.Events(ctx, 1) {
		if err != nil {
			return err
		}
		switch event.Type {
		case fastpaca.EventCaughtUp:
			live = true
		case fastpaca.EventMessage:
			a.take(event.Message)
		case fastpaca.EventGap:
			return &fastpaca.GapError{Expected: event.Expected, Actual: event.Actual}
		case fastpaca.EventTombstone:
			fmt.Println("the conversation was closed")
			return nil
		}
		if live {
			if err := a.work(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *agent) take(m fastpaca.Message) {
	fmt.Printf("%d %s: %s\n", m.Seq, m.Role, m.Parts[0])
	if m.Role == "user" {
		a.open = append(a.open, m)
	} else {
		a.steps[m.ID] = m.Parts[0]
	}
}

// work takes all steps that are missing.
func (a *agent) work(ctx context.Context) error {
	for ; len(a.open) > 0; a.open = a.open[1:] {
		for {
			step, err := a.next(ctx, a.open[0])
			if err != nil {
				return err
			}
			if step == nil {
				break
			}
			if _, err := a.conv.Append(ctx, *step); err != nil {
				return err
			}
			a.steps[step.ID] = step.Parts[0]
		}
	}
	return nil
}

// next makes the first step that a question misses; nil when it is answered.
func (a *agent) next(ctx context.Context, question fastpaca.Message) (*fastpaca.NewMessage, error) {
	id := func(step string) string { return fmt.Sprintf("%s-%d", step, question.Seq) }
	call, called := a.steps[id("call")]
	result, resulted := a.steps[id("result")]
	_, answered := a.steps[id("answer")]

	step := &fastpaca.NewMessage{Role: "assistant"}
	var part fastpaca.Part
	var err error
	switch {
	case answered:
		return nil, nil
	case resulted:
		step.ID = id("answer")
		part, err = askForAnswer(ctx, question, result)
	case called:
		step.ID, step.Role = id("result"), "tool"
		part, err = runTool(ctx, call)
	default:
		step.ID = id("call")
		part, err = askForCall(ctx, question)
	}
	step.Parts = []fastpaca.Part{part}
	return step, err
}
