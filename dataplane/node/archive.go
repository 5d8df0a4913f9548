package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	controlrpc "github.com/fastpaca/fastpaca/controlplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/archive"
	"github.com/fastpaca/fastpaca/dataplane/archiver"
	"github.com/fastpaca/fastpaca/dataplane/group"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/state"
)

// ArchiveConfig connects a node with the archive.
type ArchiveConfig struct {
	// Store outlives the node.
	Store ArchiveStore
	// Leases decides which groups this node archives.
	Leases controlrpc.Leases
	// Interval, BatchRows and TailKeep are those of archiver.Options.
	Interval  time.Duration
	BatchRows int
	TailKeep  uint64
}

// ArchiveStore is the archive as a node uses it; *archive.Store is one.
type ArchiveStore interface {
	archiver.Store
	// Messages reads a range, see archive.Store.
	Messages(ctx context.Context, r archive.Range) ([]rpc.Message, error)
	// Earliest returns the lowest sequence held of a conversation, or 0.
	Earliest(ctx context.Context, key rpc.Key) (uint64, error)
}

// maxTrimRaces bounds how often a page is begun anew because the hot log was
// trimmed between its two parts.
const maxTrimRaces = 8

func (n *Node) makeArchiver() (err error) {
	conf := n.conf.Archive
	if conf == nil {
		return nil
	}
	n.archiver, err = archiver.New(archiver.Options{
		Node: controlrpc.NodeID(n.conf.ID), Incarnation: n.engine.Identity().Incarnation,
		Cluster: func() string { return n.engine.Identity().ClusterID },
		Leases:  conf.Leases, Store: conf.Store, Logger: n.conf.Logger.With("node", n.conf.ID),
		Interval: conf.Interval, BatchRows: conf.BatchRows, TailKeep: conf.TailKeep,
		Group: func(id rpc.Group) archiver.Group {
			if g := n.groups[id].Load(); g != nil {
				return g
			}
			return nil
		},
	})
	return err
}

// Archiver returns the node's archiver, nil without an archive.
func (n *Node) Archiver() *archiver.Archiver { return n.archiver }

func (n *Node) stateOptions(id rpc.Group) state.Options {
	opts := state.Options{Cache: n.cache}
	if a := n.archiver; a != nil {
		opts.OnCommit = func(list []state.Committed) { a.Committed(id, list) }
		opts.OnReset = func() { a.Reset(id) }
	}
	return opts
}

// errNoArchive: what was trimmed is in an archive that this node was not told of.
var errNoArchive = fmt.Errorf("%w: this data node was started without --archive-url", rpc.ErrArchiveUnavailable)

// messages reads forward through the archive into the hot log. The group is
// asked first, and again for what follows: it decides whether the read may be
// served here.
func (n *Node) messages(ctx context.Context, g *group.Group, req *rpc.MessagesRequest) (*rpc.Page, error) {
	p := pageOf{limit: min(max(req.Limit, 1), rpc.MaxPageMessages)}
	next := *req
	next.From = max(req.From, 1)
	for range maxTrimRaces {
		page, err := g.Messages(ctx, &next)
		var expired *rpc.CursorExpiredError
		switch {
		case err == nil && len(p.messages) == 0:
			return page, nil
		case err == nil:
			p.add(page.Messages)
			page.Messages, page.Earliest = p.messages, 1
			return page, nil
		case !errors.As(err, &expired):
			return nil, err
		}
		// Everything below the hot log is in the archive.
		high := min(expired.Earliest-1, next.From+uint64(p.limit-len(p.messages))-1)
		more, err := n.archived(ctx, &archive.Range{Key: req.Key, Low: next.From, High: high, MaxBytes: rpc.MaxPageBytes - p.bytes})
		if err != nil {
			return nil, n.expired(ctx, req.Key, next.From, expired.Earliest, err)
		}
		if !p.add(more) {
			break
		}
		next.From, next.Limit = next.From+uint64(len(more)), p.limit-len(p.messages)
	}
	return n.finish(ctx, g, &p, req)
}

// finish completes a page that holds archived messages only.
func (n *Node) finish(ctx context.Context, g *group.Group, p *pageOf, req *rpc.MessagesRequest) (*rpc.Page, error) {
	conv, err := g.Conversation(ctx, req.Key, rpc.ReadOptions{Consistency: req.Consistency})
	if err != nil {
		return nil, err
	}
	return &rpc.Page{Messages: p.messages, LastSeq: conv.LastSeq, Earliest: 1}, nil
}

// expired explains why the archive does not have what was trimmed: somebody
// has deleted the oldest messages, or it cannot be read.
func (n *Node) expired(ctx context.Context, key rpc.Key, from, hot uint64, err error) error {
	if !errors.As(err, new(*rpc.CursorExpiredError)) {
		return err
	}
	earliest, err := n.conf.Archive.Store.Earliest(ctx, key)
	switch {
	case err != nil:
		return err
	case earliest == 0:
		earliest = hot
	case earliest <= from:
		return fmt.Errorf("messages: the archive lacks message %d: %w", from, rpc.ErrCorrupt)
	}
	return fmt.Errorf("messages: %w", &rpc.CursorExpiredError{Earliest: earliest})
}

func (n *Node) archived(ctx context.Context, r *archive.Range) ([]rpc.Message, error) {
	if n.conf.Archive == nil {
		return nil, errNoArchive
	}
	return n.conf.Archive.Store.Messages(ctx, *r)
}

// pageOf gathers a page from several places.
type pageOf struct {
	messages []rpc.Message
	bytes    int
	limit    int
}

// add takes what fits and reports whether there is room for more.
func (p *pageOf) add(more []rpc.Message) bool {
	for i := range more {
		n := len(more[i].JSON)
		if len(p.messages) == p.limit || len(p.messages) > 0 && p.bytes+n > rpc.MaxPageBytes {
			return false
		}
		p.messages = append(p.messages, more[i])
		p.bytes += n
	}
	return len(p.messages) < p.limit && p.bytes < rpc.MaxPageBytes
}

// tail reads the newest messages, on into the archive where the hot log does
// not reach down to what was asked for.
func (n *Node) tail(ctx context.Context, g *group.Group, req *rpc.TailRequest) (*rpc.Page, error) {
	page, err := g.Tail(ctx, req)
	if err != nil {
		return nil, err
	}
	low, high := tailRange(req, page.LastSeq)
	if low > high || low >= page.Earliest {
		return page, nil
	}
	p := pageOf{limit: rpc.MaxPageMessages}
	if len(page.Messages) > 0 {
		p.add(page.Messages)
		if page.Messages[0].Seq > page.Earliest || p.bytes >= rpc.MaxPageBytes {
			return page, nil // it holds as many bytes as it may
		}
	}
	older, err := n.archived(ctx, &archive.Range{
		Key: req.Key, Low: low, High: min(high, page.Earliest-1), MaxBytes: rpc.MaxPageBytes - p.bytes, Newest: true,
	})
	if errors.As(err, new(*rpc.CursorExpiredError)) {
		return page, nil // somebody has deleted them
	}
	if err != nil {
		return nil, err
	}
	if last := older[len(older)-1]; len(page.Messages) > 0 && p.bytes+len(last.JSON) > rpc.MaxPageBytes {
		return page, nil // only one was found, and it does not fit
	}
	page.Messages, page.Earliest = append(older, page.Messages...), 1
	return page, nil
}

// tailRange returns the sequences that a tail asks for; low is above high when
// there are none.
func tailRange(req *rpc.TailRequest, last uint64) (low, high uint64) {
	high = last
	if req.Before > 0 {
		high = min(high, req.Before-1)
	}
	if req.Offset >= high {
		return 1, 0
	}
	high -= req.Offset
	limit := uint64(min(max(req.Limit, 1), rpc.MaxPageMessages))
	return high - min(limit, high) + 1, high
}
