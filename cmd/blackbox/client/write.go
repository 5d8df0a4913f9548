package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// Appended is the answer to an append, of one message or of several.
type Appended struct {
	Seq        uint64  `json:"seq"`
	Version    uint64  `json:"version"`
	TokenCount uint64  `json:"token_count"`
	LastSeq    *uint64 `json:"last_seq"`
	Duplicate  bool    `json:"duplicate"`
	Revises    *uint64 `json:"revises"`
	Messages   []struct {
		Seq        uint64  `json:"seq"`
		ID         string  `json:"id"`
		TokenCount uint64  `json:"token_count"`
		Duplicate  bool    `json:"duplicate"`
		Revises    *uint64 `json:"revises"`
	} `json:"messages"`
}

// Create makes sure that a conversation exists.
func (c *Client) Create(ctx context.Context, id string) error {
	reply, err := c.Do(ctx, http.MethodPut, Path(id), []byte(`{}`))
	switch {
	case err != nil:
		return err
	case reply.Status != http.StatusOK:
		return &StatusError{"create conversation " + id, reply}
	}
	return nil
}

// Append appends what body says. Any answer but 200 and 201 is a *StatusError;
// any other error leaves open whether the messages were appended.
func (c *Client) Append(ctx context.Context, id string, body []byte, headers ...Header) (Appended, error) {
	var out Appended
	reply, err := c.Do(ctx, http.MethodPost, Path(id)+"/messages", body, headers...)
	switch {
	case err != nil:
		return out, err
	case reply.Status != http.StatusCreated && reply.Status != http.StatusOK:
		return out, &StatusError{"append to " + id, reply}
	}
	if err := json.Unmarshal(reply.Body, &out); err != nil {
		return out, fmt.Errorf("decode the answer to an append to %s: %w", id, err)
	}
	return out, nil
}

// TextBody is the body that appends one message with one text part; id may be
// empty.
func TextBody(id, text string) []byte {
	type part struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	type message struct {
		ID    string `json:"id,omitempty"`
		Role  string `json:"role"`
		Parts []part `json:"parts"`
	}
	// Strings always encode.
	body, _ := json.Marshal(map[string]message{
		"message": {ID: id, Role: "user", Parts: []part{{Type: "text", Text: text}}},
	})
	return body
}

// TextOf returns the text of a message's first part.
func (m Message) TextOf() string {
	var parts []struct {
		Text string `json:"text"`
	}
	if json.Unmarshal(m.Parts, &parts) != nil || len(parts) == 0 {
		return ""
	}
	return parts[0].Text
}
