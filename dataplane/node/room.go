package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fastpaca/fastpaca/dataplane/group"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

const (
	// roomInterval is how often groups are told whether the disk has room.
	roomInterval = 250 * time.Millisecond
	// yieldInterval lies between two rounds in which a node without room offers
	// its leaderships to others.
	yieldInterval = 5 * time.Second
	// unarchivedInterval is the same of a node that cannot write the archive. Its
	// writes go on, so there is no hurry.
	unarchivedInterval = 30 * time.Second
	// refusalInterval is how long a node that did not take a leadership over is
	// not offered any.
	refusalInterval = 5 * time.Second
	// handOverFanOut bounds the leaderships handed over at a time: a follower's
	// disk takes them all.
	handOverFanOut = 16
)

// full reports whether the disk has no room.
func (n *Node) full() bool { return errors.Is(n.engine.Health(), rpc.ErrStorageFull) }

// unarchived reports whether what is led here is not archived, for long, though
// it should be.
func (n *Node) unarchived() bool { return n.archiver != nil && n.archiver.Resigned() }

// takeOver refuses leaderships that others want to hand over while writes would
// be refused here, or not be archived.
func (n *Node) takeOver() error {
	if err := n.engine.Health(); err != nil {
		return fmt.Errorf("no leadership is taken over: %w", err)
	}
	if n.unarchived() {
		return fmt.Errorf("no leadership is taken over: %w", rpc.ErrArchiveUnavailable)
	}
	return nil
}

// runRoom watches for a disk without room. Leaders then go to nodes that have
// some; entries that wait for room are answered for. Leaders also go to nodes
// that can write the archive, when this one cannot.
func (n *Node) runRoom(ctx context.Context) {
	tick := time.NewTicker(roomInterval)
	defer tick.Stop()
	var due time.Time
	yielding := make(chan struct{}, 1)
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			full := n.full()
			for i := range n.groups {
				if g := n.groups[i].Load(); g != nil {
					g.Stall(full)
				}
			}
			yield, interval := n.handOver, yieldInterval
			if !full {
				yield, interval = n.handOverUnarchived, unarchivedInterval
			}
			if !full && !n.unarchived() || n.draining.Load() || now.Before(due) {
				continue
			}
			select {
			case yielding <- struct{}{}: // a transfer may wait for the disk as well
				due = now.Add(interval)
				n.work.Go(func() {
					defer func() { <-yielding }()
					yield(ctx)
				})
			default:
			}
		}
	}
}

// handOverUnarchived hands over, one by one, the groups led here to nodes that
// can write the archive. It ends at the first that nobody takes: then no node
// can, and there is nothing to be gained.
func (n *Node) handOverUnarchived(ctx context.Context) {
	for i := range n.groups {
		g := n.groups[i].Load()
		if g == nil {
			continue
		}
		if _, err := g.HandOver(); err != nil {
			n.log.Debug("leadership was not handed over", "group", i, "error", err)
			return
		}
		if ctx.Err() != nil || !n.unarchived() || n.draining.Load() {
			return
		}
	}
}

// handOver offers the leadership of every group led here to the others. It
// returns when all were tried, or when ctx ends.
func (n *Node) handOver(ctx context.Context) {
	slots := make(chan struct{}, handOverFanOut)
	var work sync.WaitGroup
	defer work.Wait()
	for i := range n.groups {
		g := n.groups[i].Load()
		if g == nil {
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		work.Go(func() {
			defer func() { <-slots }()
			n.handOverGroup(i, g)
		})
	}
}

func (n *Node) handOverGroup(id int, g *group.Group) {
	if _, err := g.HandOver(); err != nil {
		n.log.Debug("leadership was not handed over", "group", id, "error", err)
	}
}
