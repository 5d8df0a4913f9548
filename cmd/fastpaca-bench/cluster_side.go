package main

import (
	"context"
	"os"

	"github.com/fastpaca/fastpaca/cmd/blackbox/cluster"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// dataNodes is how many data nodes the cluster benchmarks run; etcd gets as
// many members.
const dataNodes = 3

// fastpacaCluster is one control member, three data nodes and one router, each
// a process of its own.
type fastpacaCluster struct{ *cluster.Cluster }

// freshCluster starts a cluster on new directories.
func (b *bench) freshCluster(ctx context.Context) (*fastpacaCluster, error) {
	return b.clusterOf(ctx, dataNodes)
}

// clusterOf starts a cluster with so many data nodes. Benchmarks of the router
// alone take one, to leave it more of the machine.
func (b *bench) clusterOf(ctx context.Context, data int) (*fastpacaCluster, error) {
	dir, err := os.MkdirTemp(b.dir, "cluster-")
	if err != nil {
		return nil, err
	}
	c, err := cluster.New(cluster.Config{Binary: b.Binary, Dir: dir, Data: data})
	if err != nil {
		return nil, err
	}
	ready, cancel := context.WithTimeout(ctx, process.ReadyTimeout)
	defer cancel()
	if err := c.Start(ready); err != nil {
		c.Close()
		return nil, err
	}
	return &fastpacaCluster{c}, nil
}

func (f *fastpacaCluster) name() string { return "fastpaca" }
func (f *fastpacaCluster) stop()        { f.Close() }

func (f *fastpacaCluster) roots() []int {
	var pids []int
	for _, n := range f.Nodes() {
		pids = append(pids, n.PID())
	}
	return pids
}

// address is where the router serves.
func (f *fastpacaCluster) address() string { return f.Routers[0].Address() }

func (f *fastpacaCluster) prepare(ctx context.Context, conversations []string) error {
	w, err := dialWire(ctx, f.address())
	if err != nil {
		return err
	}
	defer w.close()
	for _, id := range conversations {
		if _, err := w.must(200, "PUT", path(id), []byte("{}")); err != nil {
			return err
		}
	}
	return nil
}

// prepareMany is prepare over several connections.
func (f *fastpacaCluster) prepareMany(ctx context.Context, conversations []string) error {
	return inParallel(openers, func(worker int) error {
		var own []string
		for i := worker; i < len(conversations); i += openers {
			own = append(own, conversations[i])
		}
		return f.prepare(ctx, own)
	})
}

func (f *fastpacaCluster) connect(ctx context.Context) (writer, error) {
	w, err := dialWire(ctx, f.address())
	if err != nil {
		return nil, err
	}
	return &httpWriter{wire: w}, nil
}
