package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/fastpaca/fastpaca/sdk/go"
)

func conversationCreateCommand() *cli.Command {
	var conf conversationConfig
	var metadata string
	return &cli.Command{
		Name: "create", Usage: "create a conversation, or get it if it exists", ArgsUsage: "ID",
		Description: "Metadata that is given replaces what is there.\n\n" +
			"Example:\n   fastpaca conversation create chat-123 --metadata '{\"user_id\":\"u_123\"}'",
		Flags: append(conf.flags(), &cli.StringFlag{Name: "metadata", Usage: "a `JSON` object", Destination: &metadata}),
		Action: conf.action(oneID, func(s *session) error {
			given, err := jsonFlag("metadata", metadata)
			if err != nil {
				return err
			}
			info, err := s.conversation().Put(s.ctx, given)
			if err != nil {
				return err
			}
			return s.printer.conversation(info)
		}),
	}
}

// jsonFlag is the value of a flag that takes JSON, nil if it is empty.
func jsonFlag(name, value string) (any, error) {
	switch {
	case value == "":
		return nil, nil
	case !json.Valid([]byte(value)):
		return nil, usageError{fmt.Errorf("--%s: not valid JSON: %s", name, value)}
	}
	return json.RawMessage(value), nil
}

func conversationTombstoneCommand() *cli.Command {
	var conf conversationConfig
	return &cli.Command{
		Name: "tombstone", Usage: "close a conversation for writing, for ever", ArgsUsage: "ID",
		Description: "It can still be read. Repeating it changes nothing.\n\n" +
			"Example:\n   fastpaca conversation tombstone chat-123",
		Flags:  conf.flags(),
		Action: conf.action(oneID, func(s *session) error { return s.conversation().Tombstone(s.ctx) }),
	}
}

// appendConfig is everything `fastpaca conversation append` can be told.
type appendConfig struct {
	conversationConfig
	Role, Text, Message, ID, Metadata, Key string
	IfVersion                              int64
	Create                                 bool
}

func conversationAppendCommand() *cli.Command {
	conf := appendConfig{}
	return &cli.Command{
		Name: "append", Usage: "append a message, or several", ArgsUsage: "ID [TEXT]",
		Description: "The text is an argument, --text, or what is read from stdin. --message takes a whole message\n" +
			"as JSON; --message - reads messages from stdin, one after the other, as export writes them.\n\n" +
			"Example:\n   fastpaca conversation append chat-123 'Hello!'\n" +
			"   fastpaca conversation append chat-123 --role assistant < answer.txt\n" +
			"   fastpaca conversation append chat-123 --message '{\"role\":\"user\",\"parts\":[{\"type\":\"text\",\"text\":\"Hi\"}]}'\n" +
			"   fastpaca conversation export chat-123 | fastpaca conversation append copy --create --message -",
		Flags: append(conf.flags(),
			&cli.StringFlag{Name: "role", Value: "user", Usage: "`ROLE` of the message", Destination: &conf.Role},
			&cli.StringFlag{Name: "text", Usage: "`TEXT` of the message", Destination: &conf.Text},
			&cli.StringFlag{Name: "message", Usage: "the message as `JSON`, or - for messages from stdin", Destination: &conf.Message},
			&cli.StringFlag{Name: "id", Usage: "`ID` of the message; the same id and content is stored once", Destination: &conf.ID},
			&cli.StringFlag{Name: "metadata", Usage: "metadata of the message, a `JSON` object", Destination: &conf.Metadata},
			&cli.StringFlag{Name: "idempotency-key", Usage: "makes the call safe to repeat: the same `KEY`, the same answer", Destination: &conf.Key},
			&cli.Int64Flag{Name: "if-version", Value: -1, DefaultText: "any", Usage: "append only if the conversation has version `N`", Destination: &conf.IfVersion},
			&cli.BoolFlag{Name: "create", Usage: "create the conversation if it does not exist", Destination: &conf.Create},
		),
		Action: conf.action(arity{1, 2, "ID and perhaps a TEXT"}, conf.run),
	}
}

func (c *appendConfig) run(s *session) error {
	next, err := c.source(s)
	if err != nil {
		return err
	}
	if c.Create {
		if _, err := s.conversation().Put(s.ctx, nil); err != nil {
			return err
		}
	}
	var opts []fastpaca.AppendOption
	if c.IfVersion >= 0 {
		opts = append(opts, fastpaca.IfVersion(c.IfVersion))
	}
	if c.Key != "" {
		opts = append(opts, fastpaca.IdempotencyKey(c.Key))
	}
	total := 0
	for {
		batch, err := next()
		if len(batch) > 0 {
			done, err := appendBatch(s, batch, opts)
			if err != nil {
				return after(s, total, err)
			}
			total += len(done)
			for _, a := range done {
				if err := s.printer.appended(a); err != nil {
					return err
				}
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return after(s, total, err)
		}
	}
}

// after tells how much of several messages is stored. All of it can be sent
// again when the messages have ids.
func after(s *session, total int, err error) error {
	if total > 0 {
		fmt.Fprintf(s.stderr, "%d messages were stored before this:\n", total)
	}
	return err
}

func appendBatch(s *session, batch []fastpaca.NewMessage, opts []fastpaca.AppendOption) ([]fastpaca.Appended, error) {
	if len(batch) > 1 {
		return s.conversation().AppendBatch(s.ctx, batch, opts...)
	}
	done, err := s.conversation().Append(s.ctx, batch[0], opts...)
	if err != nil {
		return nil, err
	}
	return []fastpaca.Appended{done}, nil
}

// source returns where the messages come from: a function that returns the next
// of them, and io.EOF with or after the last.
func (c *appendConfig) source(s *session) (func() ([]fastpaca.NewMessage, error), error) {
	if c.Message == "-" {
		if c.IfVersion >= 0 || c.Key != "" {
			return nil, usageError{errors.New("--message - may take several appends; --if-version and --idempotency-key are for one")}
		}
		return messagesFrom(s.stdin), nil
	}
	m, err := c.single(s)
	if err != nil {
		return nil, err
	}
	return func() ([]fastpaca.NewMessage, error) { return []fastpaca.NewMessage{m}, io.EOF }, nil
}

// maxStdinText is more than a message may hold.
const maxStdinText = 2 << 20

// single is the one message of the flags, the argument or stdin.
func (c *appendConfig) single(s *session) (fastpaca.NewMessage, error) {
	texts := 0
	for _, given := range []bool{len(s.args) > 1, c.Text != "", c.Message != ""} {
		if given {
			texts++
		}
	}
	if texts > 1 {
		return fastpaca.NewMessage{}, usageError{errors.New("give the message once: as TEXT, --text or --message")}
	}
	if c.Message != "" {
		var m wireMessage
		if err := json.Unmarshal([]byte(c.Message), &m); err != nil {
			return fastpaca.NewMessage{}, usageError{fmt.Errorf("--message: %w", err)}
		}
		return m.message(), nil
	}
	metadata, err := jsonFlag("metadata", c.Metadata)
	if err != nil {
		return fastpaca.NewMessage{}, err
	}
	text := c.Text
	switch {
	case len(s.args) > 1:
		text = s.args[1]
	case text == "":
		if _, terminal := terminalWidth(s.stdin); terminal {
			return fastpaca.NewMessage{}, usageError{errors.New("there is no message: give a TEXT, or send it to stdin")}
		}
		read, err := io.ReadAll(io.LimitReader(s.stdin, maxStdinText))
		if err != nil {
			return fastpaca.NewMessage{}, fmt.Errorf("read stdin: %w", err)
		}
		if text = strings.TrimSuffix(string(read), "\n"); text == "" {
			return fastpaca.NewMessage{}, usageError{errors.New("there is no message: no TEXT was given, and stdin is empty")}
		}
	}
	m := fastpaca.TextMessage(c.Role, text)
	m.ID, m.Metadata = c.ID, metadata
	return m, nil
}

// wireMessage is a message as JSON, to append; what else it holds is ignored.
type wireMessage struct {
	ID         string          `json:"id"`
	Role       string          `json:"role"`
	Parts      []fastpaca.Part `json:"parts"`
	Metadata   json.RawMessage `json:"metadata"`
	TokenCount *int64          `json:"token_count"`
	size       int
}

func (m *wireMessage) message() fastpaca.NewMessage {
	out := fastpaca.NewMessage{ID: m.ID, Role: m.Role, Parts: m.Parts, TokenCount: m.TokenCount}
	if m.Metadata != nil {
		out.Metadata = m.Metadata
	}
	return out
}

// UnmarshalJSON also notes the size.
func (m *wireMessage) UnmarshalJSON(data []byte) error {
	type plain wireMessage
	m.size = len(data)
	return json.Unmarshal(data, (*plain)(m))
}

// Bounds of one append of messages from stdin, below the server's.
const (
	maxBatchMessages = 500
	maxBatchBytes    = 4 << 20
)

// messagesFrom reads JSON messages and gathers them into batches.
func messagesFrom(r io.Reader) func() ([]fastpaca.NewMessage, error) {
	decoder := json.NewDecoder(r)
	read := 0
	return func() ([]fastpaca.NewMessage, error) {
		var batch []fastpaca.NewMessage
		for size := 0; len(batch) < maxBatchMessages && size < maxBatchBytes; {
			var m wireMessage
			if err := decoder.Decode(&m); err != nil {
				if !errors.Is(err, io.EOF) {
					err = fmt.Errorf("message %d of stdin: %w", read+1, err)
				}
				return batch, err
			}
			read++
			size += m.size
			batch = append(batch, m.message())
		}
		return batch, nil
	}
}
