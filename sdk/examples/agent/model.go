package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/fastpaca/fastpaca/sdk/go"
)

// The three functions below stand for a model and a tool. They take their time,
// so that there is time to kill the agent.

const thinking = 300 * time.Millisecond

// toolCall and toolResult are parts of this program's own making: the server
// keeps any, as it got them.
type toolCall struct {
	Type string `json:"type"` // "tool_call"
	Name string `json:"name"`
	City string `json:"city"`
}

type toolResult struct {
	Type    string `json:"type"` // "tool_result"
	City    string `json:"city"`
	Degrees int    `json:"degrees"`
}

// askForCall has the model choose a tool: the weather of the last word.
func askForCall(ctx context.Context, question fastpaca.Message) (fastpaca.Part, error) {
	if err := think(ctx); err != nil {
		return nil, err
	}
	words := strings.Fields(strings.TrimRight(question.Text(), "?!. "))
	city := "nowhere"
	if len(words) > 0 {
		city = words[len(words)-1]
	}
	return fastpaca.NewPart(toolCall{Type: "tool_call", Name: "weather", City: city})
}

// runTool looks the weather up. A tool that changes something should be given the
// id of its step, so that it can tell when it is run again after a crash.
func runTool(ctx context.Context, part fastpaca.Part) (fastpaca.Part, error) {
	var call toolCall
	if err := part.Decode(&call); err != nil {
		return nil, err
	}
	if err := think(ctx); err != nil {
		return nil, err
	}
	return fastpaca.NewPart(toolResult{Type: "tool_result", City: call.City, Degrees: len(call.City)})
}

// askForAnswer has the model say what the tool found.
func askForAnswer(ctx context.Context, _ fastpaca.Message, part fastpaca.Part) (fastpaca.Part, error) {
	var result toolResult
	if err := part.Decode(&result); err != nil {
		return nil, err
	}
	if err := think(ctx); err != nil {
		return nil, err
	}
	return fastpaca.Text(fmt.Sprintf("It is %d degrees in %s.", result.Degrees, result.City)), nil
}

func think(ctx context.Context) error {
	select {
	case <-time.After(thinking):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
