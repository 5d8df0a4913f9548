package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

// stepBytes is how many bytes of rows a step of a restore holds, if no row is
// longer. Each is one entry of the group's log.
const stepBytes = 256 << 10

// Target is what a cluster holds that is to be filled.
type Target struct {
	groups []rpc.GroupState
	// Begun: a restore of this backup was interrupted; it goes on.
	Begun bool
}

// Inspect asks every group what it holds. It returns ErrNotEmpty for a cluster
// that holds anything but a part of this backup.
func (b *Backup) Inspect(ctx context.Context, c Cluster, opts Options) (*Target, error) {
	opts = opts.withDefaults()
	t := &Target{groups: make([]rpc.GroupState, rpc.Groups)}
	var other, foreign, begun atomic.Int64
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(opts.FanOut)
	for i := range t.groups {
		work.Go(func() error {
			return opts.attend(ctx, c, rpc.Group(i), func(n Node) error {
				s, err := n.GroupState(ctx, rpc.Group(i))
				if err != nil {
					return err
				}
				t.groups[i] = *s
				if s.Rows == 0 {
					return nil
				}
				same, err := b.equal(ctx, n, s)
				switch {
				case err != nil:
					return err
				case same:
					begun.Add(1)
				case s.Restoring:
					foreign.Add(1)
				default:
					other.Add(1)
				}
				return nil
			})
		})
	}
	if err := work.Wait(); err != nil {
		return nil, fmt.Errorf("inspect cluster: %w", err)
	}
	if n := other.Load(); n > 0 {
		var conversations uint64
		for i := range t.groups {
			conversations += t.groups[i].Conversations
		}
		return nil, fmt.Errorf("the cluster %w: it holds %d conversations, and %d groups hold others than this backup", ErrNotEmpty, conversations, n)
	}
	if n := foreign.Load(); n > 0 {
		return nil, fmt.Errorf("the cluster %w: a restore of another backup has begun, in %d groups; only that can go on", ErrNotEmpty, n)
	}
	t.Begun = begun.Load() > 0
	return t, nil
}

// equal reports whether a group holds exactly what the backup has of it or,
// while it is being restored, what a restore of the backup stores first.
func (b *Backup) equal(ctx context.Context, n Node, at *rpc.GroupState) (bool, error) {
	got, err := stateHash(ctx, n, at)
	if err != nil {
		return false, err
	}
	if at.Restoring && got.Applied != at.Applied {
		return false, fmt.Errorf("another restore is under way: %w", rpc.ErrUnavailable)
	}
	want, err := b.hash(ctx, *at)
	return got.Hash == want, err
}

// stateHash is the hash of a group that was seen at. Unlike other calls it is
// answered by any replica; one that is behind has to be asked again.
func stateHash(ctx context.Context, n Node, at *rpc.GroupState) (*rpc.StateHash, error) {
	got, err := n.StateHash(ctx, at.Group)
	if err == nil && got.Applied < at.Applied {
		err = fmt.Errorf("the replica is behind: %w", rpc.ErrUnavailable)
	}
	return got, err
}

// hash is the hash that a group has which is restored as far as at says. The
// epoch in it is that of the cluster's own archiver leases.
func (b *Backup) hash(ctx context.Context, at rpc.GroupState) (sum [32]byte, err error) {
	name := groupFile(at.Group)
	f, err := os.Open(local(b.dir, name))
	if err != nil {
		return sum, err
	}
	defer func() { _ = f.Close() }() // it is only read
	s, err := state.NewStreamReader(&countingReader{ctx: ctx, r: f}, at.Group)
	if err != nil {
		return sum, damaged(name, err)
	}
	s.HashAs(at)
	for {
		if _, err := s.Next(); errors.Is(err, io.EOF) {
			return s.Hash(), nil
		} else if err != nil {
			return sum, damaged(name, err)
		}
	}
}

// Result is what a restore came to.
type Result struct {
	Groups int `json:"groups"`
	Equal  int `json:"equal"` // whose state was compared by its hash afterwards
	// Moved groups were written to before they could be compared: by clients, or
	// by the archiver.
	Moved  int    `json:"moved"`
	Totals Totals `json:"totals"`
}

// Restore fills the cluster that t is of. When it returns without an error
// everything is committed at a quorum of every group and has been compared. It
// can be repeated after any failure, and goes on where it was.
func (b *Backup) Restore(ctx context.Context, c Cluster, t *Target, opts Options) (*Result, error) {
	opts = opts.withDefaults()
	var equal, moved atomic.Int64
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(opts.FanOut)
	for i := range b.Groups {
		work.Go(func() error {
			same, err := b.fill(ctx, c, t.groups[i], &opts)
			if err != nil {
				return err
			}
			if same {
				equal.Add(1)
			} else {
				moved.Add(1)
			}
			opts.Progress(1, 0)
			return nil
		})
	}
	if err := work.Wait(); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	return &Result{Groups: len(b.Groups), Equal: int(equal.Load()), Moved: int(moved.Load()), Totals: b.Totals}, nil
}

// fill restores one group, and reports whether its state is that of the backup
// afterwards; it may also have moved on.
func (b *Backup) fill(ctx context.Context, c Cluster, at rpc.GroupState, opts *Options) (same bool, err error) {
	group := at.Group
	if at.Rows == 0 || at.Restoring {
		f := &filler{ctx: ctx, cluster: c, opts: opts, group: group, skip: at.Rows}
		if at, err = f.fill(b.dir); err != nil {
			return false, err
		}
	}
	want, err := b.hash(ctx, at)
	if err != nil {
		return false, err
	}
	err = opts.attend(ctx, c, group, func(n Node) error {
		got, err := stateHash(ctx, n, &at)
		if err != nil {
			return err
		}
		if same = got.Hash == want; !same && got.Applied == at.Applied {
			return fmt.Errorf("its state is not that of the backup: %w", rpc.ErrCorrupt)
		}
		return nil
	})
	return same, err
}

// filler sends the rows of one group, step by step: first those that nobody can
// find without the others, then the conversations' records.
type filler struct {
	ctx     context.Context
	cluster Cluster
	opts    *Options
	group   rpc.Group

	skip  uint64 // rows that the group holds from an earlier attempt
	sent  uint64 // rows that it holds, or that were skipped
	step  rpc.RestoreRequest
	rows  uint64 // in the step
	spare []byte
	state rpc.GroupState // after the last step
}

func (f *filler) fill(dir string) (rpc.GroupState, error) {
	var total rpc.GroupState
	for _, records := range []bool{false, true} {
		file, err := os.Open(local(dir, groupFile(f.group)))
		if err != nil {
			return f.state, err
		}
		err = func() error {
			defer func() { _ = file.Close() }() // it is only read
			s, err := state.NewStreamReader(file, f.group)
			if err != nil {
				return err
			}
			total, f.step.Numbers = s.State(), s.Numbers()
			return f.pass(s, records)
		}()
		if err != nil {
			return f.state, damaged(groupFile(f.group), err)
		}
		if !records {
			if err := f.flush(); err != nil { // a step holds rows in one order
				return f.state, err
			}
		}
	}
	if total.Rows == 0 && f.skip == 0 {
		// There is nothing to be done but to find out where the group is.
		err := f.opts.attend(f.ctx, f.cluster, f.group, func(n Node) error {
			s, err := n.GroupState(f.ctx, f.group)
			if err == nil {
				f.state = *s
			}
			return err
		})
		return f.state, err
	}
	f.step.Total = &total
	err := f.send()
	return f.state, err
}

// pass sends the records of a stream, or all other rows.
func (f *filler) pass(s *state.StreamReader, records bool) error {
	for {
		row, err := s.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if row.IsRecord() != records {
			continue
		}
		if f.skip > f.sent {
			f.sent++
			continue
		}
		f.spare = row.AppendTo(f.spare[:0])
		if len(f.step.Rows)+len(f.spare) > stepBytes {
			if err := f.flush(); err != nil {
				return err
			}
		}
		f.step.Rows = append(f.step.Rows, f.spare...)
		f.rows++
	}
}

// flush sends a step if there is anything in it.
func (f *filler) flush() error {
	if len(f.step.Rows) == 0 {
		return nil
	}
	return f.send()
}

// send takes the step, once, however often it must be tried.
func (f *filler) send() error {
	f.step.Group, f.step.After = f.group, f.sent
	after := f.sent + f.rows
	err := f.opts.attend(f.ctx, f.cluster, f.group, func(n Node) error {
		reply, err := n.Restore(f.ctx, &f.step)
		if err != nil {
			return err
		}
		f.state = reply.State
		// One that was taken before, and whose answer was lost, is refused.
		if !reply.Taken && (reply.State.Rows != after || reply.State.Restoring == (f.step.Total != nil)) {
			return fmt.Errorf("refused: %s", reply.Refused)
		}
		return nil
	})
	if err != nil {
		return err
	}
	f.opts.Progress(0, int64(len(f.step.Rows)))
	f.sent, f.rows, f.step.Rows = after, 0, f.step.Rows[:0]
	return nil
}
