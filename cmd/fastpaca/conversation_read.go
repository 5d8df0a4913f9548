package main

import (
	"fmt"
	"slices"
	"sync"

	"github.com/urfave/cli/v2"

	"github.com/fastpaca/fastpaca/sdk/go"
)

func conversationGetCommand() *cli.Command {
	var conf conversationConfig
	return &cli.Command{
		Name: "get", Usage: "show a conversation", ArgsUsage: "ID",
		Description: "Example:\n   fastpaca conversation get chat-123 -o json",
		Flags:       conf.flags(),
		Action: conf.action(oneID, func(s *session) error {
			info, err := s.conversation().Get(s.ctx)
			if err != nil {
				return err
			}
			return s.printer.conversation(info)
		}),
	}
}

func conversationListCommand() *cli.Command {
	var conf conversationConfig
	var limit int
	return &cli.Command{
		Name: "list", Usage: "list the conversations whose id begins with PREFIX", ArgsUsage: "[PREFIX]",
		Description: "Example:\n   fastpaca conversation list chat- --limit 20",
		Flags:       append(conf.flags(), &cli.IntFlag{Name: "limit", Value: 100, Usage: "stop after `N`; 0 for all", Destination: &limit}),
		Action: conf.action(maybeID, func(s *session) error {
			prefix := ""
			if len(s.args) > 0 {
				prefix = s.args[0]
			}
			shown := 0
			for info, err := range s.client.Conversations(s.ctx, prefix) {
				if err != nil {
					return err
				}
				if limit > 0 && shown == limit {
					if !s.printer.json {
						fmt.Fprintf(s.stderr, "There are more than %d; --limit 0 lists all.\n", limit)
					}
					return nil
				}
				if shown++; shown == 1 {
					s.printer.listHeader()
				}
				if err := s.printer.listed(info); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}

func conversationTailCommand() *cli.Command {
	var conf conversationConfig
	var limit int
	var before int64
	return &cli.Command{
		Name: "tail", Usage: "show the newest messages", ArgsUsage: "ID",
		Description: "Example:\n   fastpaca conversation tail chat-123 --limit 20\n" +
			"   fastpaca conversation tail chat-123 --before 42",
		Flags: append(conf.flags(),
			&cli.IntFlag{Name: "limit", Aliases: []string{"n"}, Value: 20, Usage: "show `N` messages at most", Destination: &limit},
			&cli.Int64Flag{Name: "before", Usage: "only messages below sequence `SEQ`", Destination: &before}),
		Action: conf.action(oneID, func(s *session) error {
			if limit < 1 || before < 0 {
				return usageError{fmt.Errorf("--limit %d --before %d: want at least 1 and 0", limit, before)}
			}
			var newest []fastpaca.Message // first
			for m, err := range s.conversation().Backward(s.ctx, before) {
				if err != nil {
					return err
				}
				if newest = append(newest, m); len(newest) == limit {
					break
				}
			}
			slices.Reverse(newest)
			return s.table(newest)
		}),
	}
}

// table prints messages with the names of their columns, if there are any.
func (s *session) table(messages []fastpaca.Message) error {
	if len(messages) > 0 {
		s.printer.header()
	}
	for _, m := range messages {
		if err := s.printer.message(m); err != nil {
			return err
		}
	}
	return nil
}

func conversationReplayCommand() *cli.Command {
	var conf conversationConfig
	var from int64
	var limit int
	return &cli.Command{
		Name: "replay", Usage: "show the messages from a sequence on", ArgsUsage: "ID",
		Description: "Reads to the end as it is then; follow goes on.\n\n" +
			"Example:\n   fastpaca conversation replay chat-123 --from 50 --limit 50",
		Flags: append(conf.flags(),
			&cli.Int64Flag{Name: "from", Value: 1, Usage: "begin at sequence `SEQ`", Destination: &from},
			&cli.IntFlag{Name: "limit", Aliases: []string{"n"}, Usage: "stop after `N` messages; 0 for all", Destination: &limit}),
		Action: conf.action(oneID, func(s *session) error {
			shown := 0
			for m, err := range s.conversation().Messages(s.ctx, from) {
				if err != nil {
					return err
				}
				if shown++; shown == 1 {
					s.printer.header()
				}
				if err := s.printer.message(m); err != nil || shown == limit {
					return err
				}
			}
			return nil
		}),
	}
}

func conversationFollowCommand() *cli.Command {
	conf := followConfig{}
	return &cli.Command{
		Name: "follow", Usage: "print messages as they come", ArgsUsage: "ID",
		Description: "Begins with the newest messages, reconnects when the connection breaks, and goes on where\n" +
			"it was: nothing is missed or printed twice. Ends at Ctrl-C, after --limit messages, or when\n" +
			"the conversation is tombstoned, with exit code 0.\n\n" +
			"Example:\n   fastpaca conversation follow chat-123\n" +
			"   fastpaca conversation follow chat-123 --from 1 -o json | jq .parts",
		Flags: append(conf.flags(),
			&cli.Int64Flag{Name: "from", DefaultText: "see --tail", Usage: "begin at sequence `SEQ`", Destination: &conf.From},
			&cli.Int64Flag{Name: "tail", Value: 10, Usage: "begin with the newest `N` messages; 0 for none", Destination: &conf.Tail},
			&cli.IntFlag{Name: "limit", Aliases: []string{"n"}, Usage: "stop after `N` messages; 0 for never", Destination: &conf.Limit}),
		Action: conf.action(oneID, conf.run),
	}
}

// followConfig is everything `fastpaca conversation follow` can be told.
type followConfig struct {
	conversationConfig
	From, Tail int64
	Limit      int
}

func (c *followConfig) run(s *session) error {
	from := c.From
	if from == 0 {
		info, err := s.conversation().Get(s.ctx)
		if err != nil {
			return err
		}
		from = max(1, info.LastSeq+1-max(c.Tail, 0))
	}
	header := sync.OnceFunc(s.printer.header) // once there is a conversation
	shown, lost := 0, false
	for e, err := range s.conversation().Events(s.ctx, from) {
		if err != nil {
			if s.ctx.Err() != nil {
				return nil // Ctrl-C is how one ends it
			}
			return err
		}
		switch e.Type {
		case fastpaca.EventMessage:
			header()
			if err := s.printer.message(e.Message); err != nil {
				return err
			}
			if shown++; shown == c.Limit {
				return nil
			}
		case fastpaca.EventGap:
			fmt.Fprintf(s.stderr, "Messages %d to %d are no longer held by the server.\n", e.Expected, e.Actual-1)
		case fastpaca.EventReconnecting:
			if !lost {
				fmt.Fprintf(s.stderr, "Connection lost, reconnecting: %v\n", e.Err)
			}
			lost = true
		case fastpaca.EventCaughtUp:
			header()
			if lost {
				fmt.Fprintln(s.stderr, "Connected again.")
			}
			lost = false
		case fastpaca.EventTombstone:
			fmt.Fprintln(s.stderr, "The conversation is tombstoned: there will be no more messages.")
		}
	}
	return nil
}
