package group

import (
	"context"
	"fmt"
	"io"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

// aside is a command that shares its entry with no other write.
type aside struct {
	data []byte
	done chan asideOutcome // capacity 1: the proposer never waits for a caller
}

type asideOutcome struct {
	outcome state.Outcome
	err     error
}

// GroupState tells what the group holds, see rpc.Backup.
func (g *Group) GroupState() (*rpc.GroupState, error) {
	if err := g.readable(); err != nil {
		return nil, err
	}
	s := g.machine.GroupState()
	return &s, nil
}

// Export streams the state to w as it is now, see rpc.Backup. Nothing waits for
// it, but the storage keeps what it covers until it ends.
func (g *Group) Export(ctx context.Context, w io.Writer) error {
	if err := g.visit(); err != nil {
		return err
	}
	defer g.visitors.Done()
	if err := g.readable(); err != nil {
		return err
	}
	snapshot, err := g.machine.OpenSnapshot()
	if err != nil {
		return g.readError("export", err)
	}
	_, err = snapshot.WriteTo(&endingWriter{w, ctx, g.life})
	if closeErr := snapshot.Close(); err == nil {
		err = closeErr
	}
	switch {
	case err != nil && g.life.Err() != nil:
		return fmt.Errorf("group %d: export: %w", g.opts.Group, rpc.ErrClosed)
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("group %d: export: %w: %w", g.opts.Group, rpc.ErrUnavailable, ctx.Err())
	case err != nil:
		return g.readError("export", err)
	}
	return nil
}

// endingWriter writes until a context ends.
type endingWriter struct {
	w         io.Writer
	ctx, life context.Context
}

func (w *endingWriter) Write(p []byte) (int, error) {
	if err := w.life.Err(); err != nil {
		return 0, err
	}
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.w.Write(p)
}

// Restore takes one step of filling the group, see rpc.Backup.
func (g *Group) Restore(ctx context.Context, req *rpc.RestoreRequest) (*rpc.RestoreReply, error) {
	data, err := state.EncodeRestore(nil, req)
	if err != nil {
		return nil, fmt.Errorf("group %d: restore: %w", g.opts.Group, err)
	}
	if err := g.writable(); err != nil {
		return nil, err
	}
	bytes := int64(len(data))
	if !g.opts.Budget.take(bytes) {
		return nil, fmt.Errorf("group %d: node queue bytes: %w", g.opts.Group, rpc.ErrOverloaded)
	}
	a := &aside{data: data, done: make(chan asideOutcome, 1)}
	select {
	case g.asides <- a: // unbuffered: the proposer takes it over and answers
	case <-ctx.Done():
		g.opts.Budget.give(bytes)
		return nil, fmt.Errorf("group %d: waiting to propose: %w", g.opts.Group, rpc.ErrUnavailable)
	case <-g.proposerDone:
		g.opts.Budget.give(bytes)
		return nil, fmt.Errorf("group %d: %w", g.opts.Group, rpc.ErrClosed)
	}
	select {
	case o := <-a.done:
		if err := o.err; err != nil {
			return nil, err
		}
		reply, ok := o.outcome.Reply.(*rpc.RestoreReply)
		if !ok {
			return nil, fmt.Errorf("group %d: restore: %w", g.opts.Group, o.outcome.Err)
		}
		return reply, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("group %d: waiting for commit: %w", g.opts.Group, rpc.ErrOutcomeUnknown)
	}
}

// commitAside proposes a command of its own. Called by runProposer.
func (g *Group) commitAside(a *aside) {
	defer g.opts.Budget.give(int64(len(a.data)))
	outcomes, err := g.raise(a.data, 1)
	if err != nil {
		a.done <- asideOutcome{err: err}
		return
	}
	a.done <- asideOutcome{outcome: outcomes[0]}
}
