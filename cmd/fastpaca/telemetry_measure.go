package main

import (
	"errors"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/fastpaca/fastpaca/dataplane/group"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/router/api"
	"github.com/fastpaca/fastpaca/router/forward"
)

// stage is a part of an append. All but the first divide it without a gap.
type stage uint8

const (
	stageTotal     stage = iota // from the parsed request header to the written answer
	stageReceive                // reading and checking the request
	stageRouteWait              // finding the node to ask, other nodes and pauses between tries included
	stageForward                // the way to the node and back
	stageQueue                  // waiting on the leader, for the entry before and for Raft
	stageLogSync                // the leader's disk
	stageReplicate              // the quorum
	stageApply                  // the state machine, until the caller has the answer
	stageRespond                // writing the answer
	stages
)

var stageNames = [stages]string{"total", "receive", "route_wait", "forward", "queue", "log_sync", "replicate", "apply", "respond"}

// shown says whether a process with these parts measures the stage.
func (s stage) shown(routes, stores bool) bool {
	if s >= stageQueue && s <= stageApply {
		return stores
	}
	return routes
}

// outcomeClass says what became of a request.
type outcomeClass uint8

const (
	outcomeOK          outcomeClass = iota
	outcomeRejected                 // the request cannot be done as it is
	outcomeOverloaded               // a queue was full; nothing was proposed
	outcomeUnavailable              // no leader or no quorum; nothing was proposed
	outcomeUnknown                  // proposed, and may or may not commit
	outcomeStorage                  // no room, or damage
	outcomeFailed                   // anything else
	outcomes
)

var outcomeNames = [outcomes]string{"ok", "rejected", "overloaded", "unavailable", "unknown", "storage", "failed"}

var rejections = []error{
	rpc.ErrInvalidID, rpc.ErrNotFound, rpc.ErrTombstoned, rpc.ErrIdempotencyConflict, rpc.ErrEpochFenced, rpc.ErrMinSeqTimeout,
}

func outcomeOf(err error) outcomeClass {
	if err == nil {
		return outcomeOK
	}
	// An error can be several: what is unknown comes first.
	switch {
	case errors.Is(err, rpc.ErrOutcomeUnknown):
		return outcomeUnknown
	case errors.Is(err, rpc.ErrOverloaded):
		return outcomeOverloaded
	case errors.Is(err, rpc.ErrStorageFull), errors.Is(err, rpc.ErrCorrupt):
		return outcomeStorage
	case errors.Is(err, rpc.ErrUnavailable), errors.Is(err, rpc.ErrClosed), errors.Is(err, rpc.ErrArchiveUnavailable):
		return outcomeUnavailable
	}
	for _, rejection := range rejections {
		if errors.Is(err, rejection) {
			return outcomeRejected
		}
	}
	var conflict *rpc.VersionConflictError
	var expired *rpc.CursorExpiredError
	if errors.As(err, &conflict) || errors.As(err, &expired) {
		return outcomeRejected
	}
	return outcomeFailed
}

// measured is everything that is counted on the paths of requests.
type measured struct {
	routes, stores bool // what of it this process measures
	appends        [stages][outcomes]*histogram
	reads          [forward.Reads][rpc.Stale + 1][outcomes]*histogram
	logSync        *histogram
	writes         *histogram
	bytes          *histogram

	gained, lost, stood atomic.Int64
}

var consistencyNames = [rpc.Stale + 1]string{"leader", "linearizable", "stale"}

// newMeasured makes the counters and the families they are shown as. What a
// process never counts, because it has no router or no data node, is not shown;
// the rest is from the start.
func newMeasured(routes, stores bool) (*measured, []*family) {
	const second = float64(time.Second)
	m := &measured{routes: routes, stores: stores}
	appends := &family{name: "fastpaca.append.duration", unit: "s", scale: second,
		help: "How long appends take, in all (total) and by stage. The other stages divide the total without a gap."}
	for s := range stages {
		for o := range outcomes {
			h := newHistogram(latencyBounds, attribute.String("stage", stageNames[s]), attribute.String("outcome", outcomeNames[o]))
			h.always = o == outcomeOK && s.shown(routes, stores)
			m.appends[s][o] = h
			appends.of = append(appends.of, h)
		}
	}
	reads := &family{name: "fastpaca.read.duration", unit: "s", scale: second,
		help: "How long reads take at the router, retries included."}
	for r := range forward.Reads {
		for c := range m.reads[r] {
			for o := range outcomes {
				h := newHistogram(latencyBounds, attribute.String("operation", r.String()),
					attribute.String("consistency", consistencyNames[c]), attribute.String("outcome", outcomeNames[o]))
				h.always = o == outcomeOK && c == 0 && routes
				m.reads[r][c][o] = h
				reads.of = append(reads.of, h)
			}
		}
	}
	one := func(name, unit, help string, scale float64, bounds []int64) (*histogram, *family) {
		h := newHistogram(bounds)
		h.always = stores
		return h, &family{name: name, unit: unit, help: help, scale: scale, of: []*histogram{h}}
	}
	var logSync, writes, bytes *family
	m.logSync, logSync = one("fastpaca.raft.log.sync.duration", "s", "How long one durable write of Raft log entries takes, on leaders and followers.", second, latencyBounds)
	m.writes, writes = one("fastpaca.append.batch.writes", "{write}", "Writes that share one Raft entry.", 1, exponential(1, 9))
	m.bytes, bytes = one("fastpaca.append.batch.size", "By", "Bytes of the writes that share one Raft entry.", 1, exponential(256, 14))
	return m, []*family{appends, reads, logSync, writes, bytes}
}

// routerMeasure and nodeMeasure are the two sides of measured.
type (
	routerMeasure  struct{ *measured }
	forwardMeasure struct{ *measured }
	nodeMeasure    struct{ *measured }
)

var (
	_ api.Measure     = routerMeasure{}
	_ forward.Measure = forwardMeasure{}
	_ group.Measure   = nodeMeasure{}
)

func (m *measured) stage(s stage, o outcomeClass, d time.Duration, span trace.Span) {
	m.appends[s][o].record(int64(d), span)
}

// Appended implements api.Measure.
func (m routerMeasure) Appended(span trace.Span, total, receive, respond time.Duration, err error) {
	o := outcomeOf(err)
	m.stage(stageTotal, o, total, span)
	m.stage(stageReceive, o, receive, span)
	m.stage(stageRespond, o, respond, span)
}

// Appended implements forward.Measure.
func (m forwardMeasure) Appended(span trace.Span, wait, hop time.Duration, err error) {
	o := outcomeOf(err)
	m.stage(stageRouteWait, o, wait, span)
	m.stage(stageForward, o, hop, span)
}

// Read implements forward.Measure.
func (m forwardMeasure) Read(span trace.Span, op forward.Read, c rpc.Consistency, took time.Duration, err error) {
	if op < forward.Reads && c <= rpc.Stale {
		m.reads[op][c][outcomeOf(err)].record(int64(took), span)
	}
}

// Appended implements group.Measure.
func (m nodeMeasure) Appended(span trace.Span, s group.Stages, err error) {
	o := outcomeOf(err)
	for i, took := range [...]time.Duration{s.Queue, s.LogSync, s.Replicate, s.Apply} {
		if took < 0 {
			return
		}
		m.stage(stageQueue+stage(i), o, took, span)
	}
}

// Entry implements group.Measure.
func (m nodeMeasure) Entry(writes int, bytes int64) {
	m.writes.record(int64(writes), nil)
	m.bytes.record(bytes, nil)
}

// LogSynced implements group.Measure.
func (m nodeMeasure) LogSynced(took time.Duration) { m.logSync.record(int64(took), nil) }

// Led implements group.Measure.
func (m nodeMeasure) Led(leading bool) {
	if leading {
		m.gained.Add(1)
	} else {
		m.lost.Add(1)
	}
}

// Stood implements group.Measure.
func (m nodeMeasure) Stood() { m.stood.Add(1) }
