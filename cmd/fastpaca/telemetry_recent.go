package main

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"google.golang.org/grpc"

	"github.com/fastpaca/fastpaca/controlplane/latency"
	"github.com/fastpaca/fastpaca/controlplane/mesh"
)

// reportLatency has this process tell the members of the control plane, again and
// again, how long appends took lately. `fastpaca cluster status` asks them.
func (in *internal) reportLatency(addresses []string, p *parts) error {
	if in.telemetry.measured == nil {
		return nil
	}
	var targets []latency.Target
	var conns []*grpc.ClientConn
	closeAll := func(context.Context) error {
		var errs []error
		for _, conn := range conns {
			errs = append(errs, conn.Close())
		}
		return errors.Join(errs...)
	}
	for _, address := range addresses {
		conn, err := mesh.NewGRPCClient(in.dialer, "", address)
		if err != nil {
			return errors.Join(err, closeAll(context.Background()))
		}
		conns, targets = append(conns, conn), append(targets, latency.NewClient(conn))
	}
	p.add("connections of the latency reports", closeAll)
	in.report(targets, p)
	return nil
}

// report starts reporting to targets.
func (in *internal) report(targets []latency.Target, p *parts) {
	m := in.telemetry.measured
	if m == nil {
		return
	}
	p.addCloser("latency reports", latency.StartReporter(latency.ReporterConfig{
		Process: rand.Text(), Bounds: latencyDurations(), Read: m.recent, Targets: targets, Logger: in.log,
	}))
}

func latencyDurations() []time.Duration {
	bounds := make([]time.Duration, len(latencyBounds))
	for i, b := range latencyBounds {
		bounds[i] = time.Duration(b)
	}
	return bounds
}

// recent is everything since the process started, as far as it measures it.
func (m *measured) recent() (all []latency.Stage, failed uint64) {
	for s := range stages {
		if !s.shown(m.routes, m.stores) {
			continue
		}
		h := m.appends[s][outcomeOK]
		part := latency.Stage{Name: stageNames[s], Counts: make([]uint64, len(h.counts)), Sum: time.Duration(h.sum.Load())}
		for i := range h.counts {
			part.Counts[i] = h.counts[i].Load()
		}
		all = append(all, part)
	}
	for o := outcomeOK + 1; o < outcomes; o++ {
		if o == outcomeRejected {
			continue
		}
		for i := range m.appends[stageTotal][o].counts {
			failed += m.appends[stageTotal][o].counts[i].Load()
		}
	}
	return all, failed
}

// keepLatency makes this process, a member of the control plane, one that is
// told. serveGRPC serves it.
func (in *internal) keepLatency() *latency.Board {
	in.latency = latency.NewBoard()
	return in.latency
}

// mayReport keeps everybody from reporting who serves no appends.
func mayReport(ctx context.Context) bool {
	peer, ok := mesh.PeerFromContext(ctx)
	return ok && (peer.Role == mesh.RoleRouter || peer.Role == mesh.RoleData || peer.Role == mesh.RoleServer)
}
