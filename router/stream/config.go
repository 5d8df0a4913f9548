package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Reader is what a Hub reads from the data plane.
type Reader interface {
	Conversation(ctx context.Context, key rpc.Key, opts rpc.ReadOptions) (*rpc.Conversation, error)
	Messages(ctx context.Context, req *rpc.MessagesRequest) (*rpc.Page, error)
}

// Config configures a Hub. The zero value of everything but the first three
// takes the default named beside it.
type Config struct {
	// Node reads the log. Required.
	Node Reader
	// Feed tells what is new. Required.
	Feed rpc.Feed
	// Log receives what goes wrong upstream. Required.
	Log *slog.Logger
	// Registerer receives the metrics. Nil registers none.
	Registerer prometheus.Registerer

	// MaxTopics bounds the conversations followed at a time: 100,000.
	MaxTopics int
	// RingMessages and RingBytes bound the newest messages that one topic
	// keeps: 256, and 256 KiB. One message is kept whatever its size.
	RingMessages int
	RingBytes    int
	// RingBudget bounds the bytes of all rings: 32 MiB. A topic that would
	// pass it gives up its ring, and its cursors read the log.
	RingBudget int64
	// RingAge is how long a ring outlives its last message: 5 s.
	RingAge time.Duration
	// PageBytes is the size that pages aim at: 256 KiB.
	PageBytes int
	// PageBudget bounds the bytes of the pages held: 32 MiB. Reads under way
	// come on top, each at most rpc.MaxPageBytes and one message.
	PageBudget int64
	// PageReads bounds the reads under way: 16.
	PageReads int
	// Subscribes bounds the subscriptions being opened: 64.
	Subscribes int
	// CallTimeout bounds one call to the data plane: 15 s.
	CallTimeout time.Duration
	// JoinTimeout bounds how long a cursor waits for its conversation to be
	// found: 8 s, which is below what Phoenix clients wait.
	JoinTimeout time.Duration
	// Linger is how long a topic outlives its last cursor: 5 s.
	Linger time.Duration
	// BackoffMin and BackoffMax bound the pause between two tries upstream;
	// it doubles and is jittered: 20 ms, 2 s.
	BackoffMin time.Duration
	BackoffMax time.Duration
	// Sweep is how often what has aged is looked for: 1 s.
	Sweep time.Duration
}

func (c *Config) withDefaults() {
	def(&c.MaxTopics, 100_000)
	def(&c.RingMessages, 256)
	def(&c.RingBytes, 256<<10)
	def(&c.RingBudget, 32<<20)
	def(&c.RingAge, 5*time.Second)
	def(&c.PageBytes, 256<<10)
	def(&c.PageBudget, 32<<20)
	def(&c.PageReads, 16)
	def(&c.Subscribes, 64)
	def(&c.CallTimeout, 15*time.Second)
	def(&c.JoinTimeout, 8*time.Second)
	def(&c.Linger, 5*time.Second)
	def(&c.BackoffMin, 20*time.Millisecond)
	def(&c.BackoffMax, 2*time.Second)
	def(&c.Sweep, time.Second)
}

func def[T comparable](value *T, standard T) {
	var zero T
	if *value == zero {
		*value = standard
	}
}

func (c *Config) validate() error {
	var errs []error
	if c.Node == nil || c.Feed == nil || c.Log == nil {
		errs = append(errs, errors.New("the data plane and the logger are required"))
	}
	for name, value := range map[string]int64{
		"MaxTopics": int64(c.MaxTopics), "RingMessages": int64(c.RingMessages), "RingBytes": int64(c.RingBytes),
		"RingBudget": c.RingBudget, "RingAge": int64(c.RingAge), "PageBytes": int64(c.PageBytes), "PageBudget": c.PageBudget,
		"PageReads": int64(c.PageReads), "Subscribes": int64(c.Subscribes), "CallTimeout": int64(c.CallTimeout),
		"JoinTimeout": int64(c.JoinTimeout), "Linger": int64(c.Linger), "BackoffMin": int64(c.BackoffMin), "Sweep": int64(c.Sweep),
	} {
		if value <= 0 {
			errs = append(errs, fmt.Errorf("%s must be positive", name))
		}
	}
	if c.BackoffMax < c.BackoffMin {
		errs = append(errs, errors.New("BackoffMax must not be below BackoffMin"))
	}
	return errors.Join(errs...)
}
