package main

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/fastpaca/fastpaca/controlplane/member"
	"github.com/fastpaca/fastpaca/dataplane/node"
	"github.com/fastpaca/fastpaca/dataplane/transport"
)

// instruments makes instruments that a callback reads, and remembers what went
// wrong and whom to observe.
type instruments struct {
	meter metric.Meter
	all   []metric.Observable
	err   error
}

func (i *instruments) gauge(name, unit, help string) metric.Int64Observable {
	g, err := i.meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(help))
	return made(i, g, err)
}

func (i *instruments) counter(name, unit, help string) metric.Int64Observable {
	c, err := i.meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(help))
	return made(i, c, err)
}

func made[T metric.Int64Observable](i *instruments, instrument T, err error) metric.Int64Observable {
	i.err = errors.Join(i.err, err)
	i.all = append(i.all, instrument)
	return instrument
}

// labelled is an attribute set made once.
func labelled(key, value string) metric.ObserveOption {
	return metric.WithAttributeSet(attribute.NewSet(attribute.String(key, value)))
}

// observeNode measures a data node whenever somebody collects.
func (t *telemetry) observeNode(n *node.Node, p *parts) error {
	if t.measured == nil {
		return nil
	}
	i := &instruments{meter: t.meter}
	observers := []func(metric.Observer, *node.Observation){
		i.replicas(), i.storage(), i.transport(), i.elections(t.measured),
	}
	if i.err != nil {
		return i.err
	}
	remove := t.paths.add(func() (metricdata.Metrics, bool) { return walSync(n, t.paths.since) })
	p.add("telemetry of the data node's log", func(context.Context) error { remove(); return nil })
	return t.observe("data node", p, func(_ context.Context, o metric.Observer) error {
		seen := n.Observe()
		for _, observe := range observers {
			observe(o, &seen)
		}
		return nil
	}, i.all...)
}

// replicas are the groups of a node. Only gauges name a group.
func (i *instruments) replicas() func(metric.Observer, *node.Observation) {
	count := i.gauge("fastpaca.node.groups", "{group}", "Replicas that run on this node, by state; a replica may be in several.")
	leading := i.gauge("fastpaca.group.leader", "", "Whether this node leads the group and may serve it.")
	lag := i.gauge("fastpaca.group.lag", "{entry}", "Entries of its log that the replica has yet to apply.")
	clock := i.gauge("fastpaca.node.clock", "ms", "The node's clock, in Unix milliseconds, to be compared with the time of the scrape.")
	var of [256]metric.ObserveOption
	for g := range of {
		of[g] = metric.WithAttributeSet(attribute.NewSet(attribute.Int("group", g)))
	}
	states := map[string]metric.ObserveOption{}
	for _, s := range []string{"assigned", "open", "leading", "leaderless", "failed"} {
		states[s] = labelled("state", s)
	}
	return func(o metric.Observer, seen *node.Observation) {
		s := &seen.Status
		o.ObserveInt64(count, int64(s.Assigned), states["assigned"])
		o.ObserveInt64(count, int64(s.Open), states["open"])
		o.ObserveInt64(count, int64(s.Leading), states["leading"])
		o.ObserveInt64(count, int64(len(s.Leaderless)), states["leaderless"])
		o.ObserveInt64(count, int64(len(s.Failed)), states["failed"])
		o.ObserveInt64(clock, time.Now().UnixMilli())
		for _, g := range seen.Groups {
			led := int64(0)
			if g.Leading {
				led = 1
			}
			o.ObserveInt64(leading, led, of[g.Group])
			o.ObserveInt64(lag, int64(g.Lag), of[g.Group])
		}
	}
}

func (i *instruments) storage() func(metric.Observer, *node.Observation) {
	ok := i.gauge("fastpaca.storage.writable", "", "Whether the storage takes writes.")
	disk := i.gauge("fastpaca.storage.disk", "By", "The file system that holds the data directory: its size, and what is free.")
	used := i.gauge("fastpaca.storage.used", "By", "Bytes of all files of the storage.")
	wal := i.gauge("fastpaca.storage.wal.size", "By", "Bytes in the files of the write-ahead log.")
	written := i.counter("fastpaca.storage.wal.written", "By", "Bytes written to the write-ahead log.")
	memtable := i.gauge("fastpaca.storage.memtable.size", "By", "Bytes in memory that are not flushed yet.")
	flushes := i.counter("fastpaca.storage.flushes", "{flush}", "Memtables flushed.")
	compactions := i.counter("fastpaca.storage.compactions", "{compaction}", "Compactions done.")
	running := i.gauge("fastpaca.storage.compactions.running", "{compaction}", "Compactions under way.")
	failed := i.counter("fastpaca.storage.compactions.failed", "{compaction}", "Compactions that failed and are tried again.")
	debt := i.gauge("fastpaca.storage.compaction.debt", "By", "Bytes to compact before the tree is in shape.")
	amplification := i.gauge("fastpaca.storage.read.amplification", "{place}", "Places that a read may have to look at.")
	cache := i.gauge("fastpaca.storage.cache.size", "By", "Bytes in the block cache.")
	lookups := i.counter("fastpaca.storage.cache.lookups", "{lookup}", "Look-ups in the block cache, by result.")
	hit, miss := labelled("result", "hit"), labelled("result", "miss")
	total, free := labelled("kind", "total"), labelled("kind", "free")
	return func(o metric.Observer, seen *node.Observation) {
		s := &seen.Storage
		writable := int64(1)
		if seen.Status.Storage != nil {
			writable = 0
		}
		o.ObserveInt64(ok, writable)
		o.ObserveInt64(disk, int64(s.DiskTotal), total)
		o.ObserveInt64(disk, int64(s.DiskFree), free)
		o.ObserveInt64(used, int64(s.UsedBytes))
		o.ObserveInt64(wal, int64(s.WALBytes))
		o.ObserveInt64(written, int64(s.WALWritten))
		o.ObserveInt64(memtable, int64(s.MemTableBytes))
		o.ObserveInt64(flushes, int64(s.Flushes))
		o.ObserveInt64(compactions, int64(s.Compactions))
		o.ObserveInt64(running, s.CompactionsRunning)
		o.ObserveInt64(failed, int64(s.CompactionsFailed))
		o.ObserveInt64(debt, int64(s.CompactionDebt))
		o.ObserveInt64(amplification, int64(s.ReadAmplification))
		o.ObserveInt64(cache, s.CacheBytes)
		o.ObserveInt64(lookups, s.CacheHits, hit)
		o.ObserveInt64(lookups, s.CacheMisses, miss)
	}
}

// walSync is the storage's own histogram.
func walSync(n *node.Node, since time.Time) (metricdata.Metrics, bool) {
	d := n.WALSync()
	if len(d.Counts) == 0 {
		return metricdata.Metrics{}, false
	}
	point := metricdata.HistogramDataPoint[float64]{Bounds: d.Bounds, BucketCounts: d.Counts, Sum: d.Sum, StartTime: since, Time: time.Now()}
	for _, n := range d.Counts {
		point.Count += n
	}
	return metricdata.Metrics{
		Name: "fastpaca.storage.wal.sync.duration", Unit: "s", Description: "How long syncs of the write-ahead log take, of all groups together.",
		Data: metricdata.Histogram[float64]{Temporality: metricdata.CumulativeTemporality, DataPoints: []metricdata.HistogramDataPoint[float64]{point}},
	}, true
}

func (i *instruments) transport() func(metric.Observer, *node.Observation) {
	io := i.counter("fastpaca.transport.io", "By", "Bytes exchanged with other nodes, by lane and direction.")
	frames := i.counter("fastpaca.transport.frames", "{frame}", "Frames sent to other nodes, by lane.")
	flushes := i.counter("fastpaca.transport.flushes", "{flush}", "Writes that carried these frames, by lane.")
	dials := i.counter("fastpaca.transport.dials", "{dial}", "Attempts to connect to other nodes, by result.")
	timeouts := i.counter("fastpaca.transport.timeouts", "{call}", "Calls to other nodes that ended without an answer.")
	connections := i.gauge("fastpaca.transport.connections", "{connection}", "Connections to other nodes.")
	type lane struct{ name, in, out metric.ObserveOption }
	var lanes [3]lane
	for l, name := range []string{"election", "append", "snapshot"} {
		both := func(direction string) metric.ObserveOption {
			return metric.WithAttributeSet(attribute.NewSet(attribute.String("lane", name), attribute.String("direction", direction)))
		}
		lanes[l] = lane{labelled("lane", name), both("receive"), both("transmit")}
	}
	ok, failed := labelled("result", "ok"), labelled("result", "failed")
	return func(o metric.Observer, seen *node.Observation) {
		s := &seen.Transport
		for l, stats := range []*transport.LaneStats{&s.Election, &s.Append, &s.Snapshot} {
			o.ObserveInt64(io, int64(stats.BytesIn), lanes[l].in)
			o.ObserveInt64(io, int64(stats.BytesOut), lanes[l].out)
			o.ObserveInt64(frames, int64(stats.FramesOut), lanes[l].name)
			o.ObserveInt64(flushes, int64(stats.Flushes), lanes[l].name)
		}
		o.ObserveInt64(dials, int64(s.Dials-min(s.DialFailures, s.Dials)), ok)
		o.ObserveInt64(dials, int64(s.DialFailures), failed)
		o.ObserveInt64(timeouts, int64(s.Timeouts))
		o.ObserveInt64(connections, int64(s.Connections))
	}
}

func (i *instruments) elections(m *measured) func(metric.Observer, *node.Observation) {
	changes := i.counter("fastpaca.raft.leadership.changes", "{change}", "Times that a replica of this node began to lead, and ceased to.")
	stood := i.counter("fastpaca.raft.elections", "{election}", "Times that a replica of this node stood for election, or asked whether it could.")
	gained, lost := labelled("change", "gained"), labelled("change", "lost")
	return func(o metric.Observer, _ *node.Observation) {
		o.ObserveInt64(changes, m.gained.Load(), gained)
		o.ObserveInt64(changes, m.lost.Load(), lost)
		o.ObserveInt64(stood, m.stood.Load())
	}
}

// observeControl measures a control member whenever somebody collects.
func (t *telemetry) observeControl(s *member.Server, p *parts) error {
	if t.measured == nil {
		return nil
	}
	i := &instruments{meter: t.meter}
	leader := i.gauge("fastpaca.control.leader", "", "Whether this member leads the control plane. The others know part of what follows only.")
	groups := i.gauge("fastpaca.control.groups", "{group}", "Groups by state; a group may be in several.")
	moves := i.gauge("fastpaca.control.moves.in_flight", "{move}", "Moves of replicas under way, by phase.")
	done := i.counter("fastpaca.control.moves", "{move}", "Moves of replicas that ended since the cluster was created, by result.")
	nodes := i.gauge("fastpaca.control.nodes", "{node}", "Registered data nodes, by what this member knows of their life.")
	lag := i.gauge("fastpaca.control.replica.lag", "{entry}", "Most entries that any replica has yet to apply, as the nodes say.")
	if i.err != nil {
		return i.err
	}
	return t.observe("control plane", p, func(_ context.Context, o metric.Observer) error {
		seen := s.Status()
		led := int64(0)
		if seen.Leading {
			led = 1
		}
		o.ObserveInt64(leader, led)
		g, m := &seen.Groups, &seen.Moves
		for state, n := range map[string]int{"placed": g.Placed, "formed": g.Formed, "lost": g.Lost, "no_quorum": g.NoQuorum, "short": g.Short, "led": g.Led} {
			if state != "led" || seen.Leading {
				o.ObserveInt64(groups, int64(n), labelled("state", state))
			}
		}
		for phase, n := range map[string]int{"join": m.Joining, "promote": m.Promoting, "leave": m.Leaving, "withdraw": m.Withdrawing} {
			o.ObserveInt64(moves, int64(n), labelled("phase", phase))
		}
		o.ObserveInt64(done, int64(m.Finished), labelled("result", "finished"))
		o.ObserveInt64(done, int64(m.Aborted), labelled("result", "aborted"))
		alive, most := map[string]int{"alive": 0, "silent": 0, "unknown": 0}, uint64(0)
		for _, n := range seen.Nodes {
			if _, known := alive[n.Liveness]; known {
				alive[n.Liveness]++
			} else {
				alive["unknown"]++
			}
			most = max(most, n.MaxLag)
		}
		for liveness, n := range alive {
			o.ObserveInt64(nodes, int64(n), labelled("liveness", liveness))
		}
		o.ObserveInt64(lag, int64(most))
		return nil
	}, i.all...)
}
