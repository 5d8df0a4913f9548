package forward

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/router/table"
)

// maxListCalls bounds the nodes that one List asks at the same time.
const maxListCalls = 16

// List asks every node for the groups it leads and merges the answers by key.
// No groups in the request means all of them. The answer is complete or an
// error, never a part of it: a group that cannot be read fails the whole list.
func (f *Forwarder) List(ctx context.Context, req *rpc.ListRequest) (*rpc.ListReply, error) {
	ctx, course := f.begin(ctx, "forward list", rpc.Groups)
	reply, err := f.list(ctx, req)
	f.readDone(ReadList, req.Consistency, &course, err)
	return reply, err
}

func (f *Forwarder) list(ctx context.Context, req *rpc.ListRequest) (*rpc.ListReply, error) {
	start := time.Now()
	pending := newPursuits(req)
	merged := &rpc.ListReply{}
	for {
		calls := f.plan(pending)
		f.ask(ctx, req, calls)
		pending = pending[:0]
		var pause time.Duration
		var failure error
		for _, c := range calls {
			if c.err == nil {
				merged.Conversations = append(merged.Conversations, c.reply.Conversations...)
				continue
			}
			wanted, again := c.next(f)
			if !again {
				return nil, c.err
			}
			pause, failure = max(pause, wanted), c.err
			pending = append(pending, c.pursuits...)
		}
		if len(pending) == 0 {
			return merge(merged, req.Limit), nil
		}
		if !wait(ctx, pause, f.cfg.RetryBudget-time.Since(start)) {
			return nil, failure
		}
	}
}

func newPursuits(req *rpc.ListRequest) []pursuit {
	groups := req.Groups
	if len(groups) == 0 {
		groups = make([]rpc.Group, rpc.Groups)
		for g := range groups {
			groups[g] = rpc.Group(g)
		}
	}
	turn := 0
	if req.Consistency == rpc.Stale {
		turn = rand.IntN(1 << 16)
	}
	all := make([]pursuit, len(groups))
	for i, g := range groups {
		all[i] = pursuit{group: g, anyReplica: req.Consistency == rpc.Stale, turn: turn}
	}
	return all
}

// listCall asks one node for some of its groups.
type listCall struct {
	target   *table.Node // nil when the groups have no known replica
	pursuits []pursuit
	reply    *rpc.ListReply
	err      error
}

// plan sorts the groups by the node to ask for them.
func (f *Forwarder) plan(pending []pursuit) []*listCall {
	var calls []*listCall
	byNode := make(map[*table.Node]*listCall)
	for _, p := range pending {
		route, _ := f.cfg.Table.Lookup(p.group)
		target := p.choose(route)
		c := byNode[target]
		if c == nil {
			c = &listCall{target: target}
			byNode[target] = c
			calls = append(calls, c)
		}
		c.pursuits = append(c.pursuits, p)
	}
	return calls
}

// ask makes the calls and waits for all of them.
func (f *Forwarder) ask(ctx context.Context, req *rpc.ListRequest, calls []*listCall) {
	if len(calls) == 1 {
		calls[0].run(ctx, f, req)
		return
	}
	var workers errgroup.Group
	workers.SetLimit(maxListCalls)
	for _, c := range calls {
		workers.Go(func() error {
			c.run(ctx, f, req)
			return nil
		})
	}
	_ = workers.Wait() // each call keeps its own error
}

func (c *listCall) run(ctx context.Context, f *Forwarder, req *rpc.ListRequest) {
	if c.target == nil {
		c.err = fmt.Errorf("group %d has no known replica: %w", c.pursuits[0].group, rpc.ErrUnavailable)
		return
	}
	part := *req
	part.Groups = make([]rpc.Group, len(c.pursuits))
	for i := range c.pursuits {
		part.Groups[i] = c.pursuits[i].group
	}
	c.err = f.call(c.target, func(n rpc.Node) (err error) {
		c.reply, err = n.List(ctx, &part)
		return err
	})
}

// next moves the pursuits of a failed call on. A node that does not lead names
// the one group it stumbled over; the others have learnt nothing and are asked
// for again where they were.
func (c *listCall) next(f *Forwarder) (pause time.Duration, again bool) {
	var notLeader *rpc.NotLeaderError
	redirected := errors.As(c.err, &notLeader)
	moved := false
	for i := range c.pursuits {
		p := &c.pursuits[i]
		if redirected && p.group != notLeader.Group {
			continue
		}
		moved = true
		route, _ := f.cfg.Table.Lookup(p.group)
		wanted, again := p.next(f, route, c.target, c.err)
		if !again {
			return 0, false
		}
		pause = max(pause, wanted)
	}
	if !moved { // it names a group that it was not asked for
		return f.backoff(1), true
	}
	return pause, true
}

// merge orders the conversations of all nodes and cuts them to the limit. Each
// node's answer was cut to the same limit, so nothing below the cut is missing.
func merge(all *rpc.ListReply, limit int) *rpc.ListReply {
	slices.SortFunc(all.Conversations, func(a, b rpc.Conversation) int {
		return strings.Compare(string(a.Key), string(b.Key))
	})
	if limit > 0 && len(all.Conversations) > limit {
		all.Conversations = all.Conversations[:limit]
	}
	return all
}
