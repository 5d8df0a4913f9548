package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clusterResult holds the runs of one side with one number of clients.
type clusterResult struct {
	Side    string      `json:"side"`
	Clients int         `json:"clients"`
	Runs    []appendRun `json:"runs"`
}

// clusterTarget is what the cluster must reach with one number of clients.
type clusterTarget struct {
	overEtcd float64 // appends/s over etcd's
	micros   float64 // server CPU per append, all processes together
}

var clusterTargets = map[int]clusterTarget{
	64:   {1, 200},
	256:  {1.2, 150},
	1024: {1.5, 110},
}

// parseClients parses a list of numbers of clients.
func parseClients(list string) ([]int, error) {
	var out []int
	for field := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(field))
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is no number of clients", field)
		}
		out = append(out, n)
	}
	return out, nil
}

// clusterAppend measures three data nodes with a router and a control member
// against etcd's three members, in turn, with one number of clients after the
// other on the same servers.
func (b *bench) clusterAppend(ctx context.Context) error {
	sizes, err := parseClients(b.ClusterClients)
	if err != nil {
		return err
	}
	results := make(map[string]map[int]*clusterResult)
	for run := range b.Runs {
		for _, start := range b.clusterSides(ctx) {
			s, err := start()
			if err != nil {
				return err
			}
			if results[s.name()] == nil {
				results[s.name()] = make(map[int]*clusterResult)
			}
			err = b.clusterRun(ctx, s, run, sizes, results[s.name()])
			s.stop()
			if err != nil {
				return fmt.Errorf("%s: %w", s.name(), err)
			}
		}
	}
	for _, clients := range sizes {
		ours, theirs := results[nameFastpaca][clients], results[nameEtcd][clients]
		b.report.Cluster = append(b.report.Cluster, *ours, *theirs)
		b.judgeCluster(ours, theirs)
	}
	return nil
}

// Names of the sides.
const (
	nameFastpaca = "fastpaca"
	nameEtcd     = "etcd"
)

// clusterSides are the sides in the order in which they take turns.
func (b *bench) clusterSides(ctx context.Context) []func() (side, error) {
	return []func() (side, error){
		func() (side, error) { return b.freshCluster(ctx) },
		func() (side, error) { return b.freshEtcd(ctx) },
	}
}

// clusterRun is one run of one side.
func (b *bench) clusterRun(ctx context.Context, s side, run int, sizes []int, results map[int]*clusterResult) error {
	ids := b.conversationIDs()
	if err := s.prepare(ctx, ids); err != nil {
		return err
	}
	for _, clients := range sizes {
		sized := *b
		sized.Clients = clients
		stopProfiles := func() error { return nil }
		if f, ok := s.(*fastpacaCluster); ok && b.ProfileDir != "" && run == 0 {
			stopProfiles = b.profile(ctx, f, filepath.Join(b.ProfileDir, fmt.Sprintf("cluster-%d", clients)))
		}
		shares := shareOf(s)
		measured, err := sized.measureAppends(ctx, s, ids)
		if err := errors.Join(err, stopProfiles()); err != nil {
			return err
		}
		if results[clients] == nil {
			results[clients] = &clusterResult{Side: s.name(), Clients: clients}
		}
		results[clients].Runs = append(results[clients].Runs, measured)
		b.progress("cluster %d/%d: %s, %d clients: %.0f/s, %.0f µs of server CPU each (%s), p99 %.1f ms",
			run+1, b.Runs, s.name(), clients, measured.PerSecond, measured.ServerMicros, shares(), measured.P99Milliseconds)
	}
	return nil
}

// shareOf begins to watch which process of a side uses how much; the function
// it returns tells.
func shareOf(s side) (tell func() string) {
	before := make([]time.Duration, len(s.roots()))
	for i, root := range s.roots() {
		before[i], _ = processorTime(root) // a process that is gone has no share
	}
	return func() string {
		used := make([]time.Duration, len(before))
		var sum time.Duration
		for i, root := range s.roots() {
			after, _ := processorTime(root)
			used[i] = after - before[i]
			sum += used[i]
		}
		var out []string
		for _, d := range used {
			out = append(out, fmt.Sprintf("%.0f%%", 100*float64(d)/max(1, float64(sum))))
		}
		return strings.Join(out, " ")
	}
}

func (b *bench) conversationIDs() []string {
	ids := make([]string, b.Conversations)
	for i := range ids {
		ids[i] = conversation(i)
	}
	return ids
}

// judgeCluster compares with the targets for a number of clients that has any.
func (b *bench) judgeCluster(ours, theirs *clusterResult) {
	wanted, ok := clusterTargets[ours.Clients]
	if !ok {
		return
	}
	rate := func(r appendRun) float64 { return r.PerSecond }
	b.report.atLeast(fmt.Sprintf("cluster, %d clients: appends/s over etcd's", ours.Clients),
		medianOf(ours.Runs, rate)/medianOf(theirs.Runs, rate), wanted.overEtcd, "×")
	b.report.atMost(fmt.Sprintf("cluster, %d clients: server CPU per append", ours.Clients),
		medianOf(ours.Runs, func(r appendRun) float64 { return r.ServerMicros }), wanted.micros, "µs")
}
