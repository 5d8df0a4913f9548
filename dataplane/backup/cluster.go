package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// Node is a data node as this package calls it.
type Node interface {
	rpc.Backup
	rpc.Inspector
}

// Cluster finds data nodes. It is called from several goroutines.
type Cluster interface {
	// Leader returns the node that leads a group as far as is known, the one
	// with the id in hint if it is not empty.
	Leader(ctx context.Context, group rpc.Group, hint string) (Node, error)
}

// Options of a backup and of a restore. Zero fields take the defaults.
type Options struct {
	// FanOut is how many groups are worked on at a time. Default 6.
	FanOut int
	// Patience is how long a group may refuse, for want of a leader, before the
	// whole is given up. Default one minute.
	Patience time.Duration
	// Progress, when not nil, is told of every group that is done, and of bytes
	// as they are copied. It is called from several goroutines.
	Progress func(groups int, bytes int64)
}

func (o Options) withDefaults() Options {
	if o.FanOut == 0 {
		o.FanOut = 6
	}
	if o.Patience == 0 {
		o.Patience = time.Minute
	}
	if o.Progress == nil {
		o.Progress = func(int, int64) {}
	}
	return o
}

const (
	// retryPause is the wait before a leader is looked for again.
	retryPause = 100 * time.Millisecond
	// maxTurns bounds how often a group is tried. Nodes take few groups at a
	// time, so that being refused for that is no failure.
	maxTurns = 100_000
)

// attend calls do with the leader of a group until it succeeds, fails for good,
// or the group has refused for as long as Patience.
func (o *Options) attend(ctx context.Context, c Cluster, group rpc.Group, do func(Node) error) error {
	deadline := time.Now().Add(o.Patience)
	hint := ""
	for turn := 1; ; turn++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		began := time.Now()
		node, err := c.Leader(ctx, group, hint)
		hint = ""
		if err == nil {
			err = do(node)
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !transient(err) || turn == maxTurns:
			return fmt.Errorf("group %d: %w", group, err)
		case errors.Is(err, rpc.ErrOverloaded) || time.Since(began) > o.Patience:
			deadline = time.Now().Add(o.Patience) // it waited its turn, or was at work
		case time.Now().After(deadline):
			return fmt.Errorf("group %d: %w", group, err)
		}
		if notLeader, ok := errors.AsType[*rpc.NotLeaderError](err); ok && notLeader.Leader != "" {
			hint = notLeader.Leader
		}
		timer := time.NewTimer(retryPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

func transient(err error) bool {
	for _, e := range []error{rpc.ErrUnavailable, rpc.ErrOverloaded, rpc.ErrOutcomeUnknown, rpc.ErrClosed, rpc.ErrStorageFull} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
