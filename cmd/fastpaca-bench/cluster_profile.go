package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fastpaca/fastpaca/cmd/blackbox/cluster"
)

// profileSlack is how long a server may take to hand over a profile.
const profileSlack = 20 * time.Second

// profile records CPU profiles of one data node, the router and the control
// member while a load is measured, into files that begin with a prefix. The
// function it returns waits for them. Profiling costs a few percent, so figures
// of such runs are for orientation.
func (b *bench) profile(ctx context.Context, f *fastpacaCluster, prefix string) (finish func() error) {
	var (
		wg       sync.WaitGroup
		targets  = map[string]string{"data": f.Data[0].Ops(), "router": f.Routers[0].Ops(), "control": f.Control[0].Ops()}
		failures = make(chan error, len(targets))
	)
	for name, ops := range targets {
		wg.Go(func() {
			pause(ctx, b.Warmup)
			failures <- fetchProfile(ctx, ops, b.Duration, prefix+"-"+name+".pprof")
		})
	}
	return func() error {
		wg.Wait()
		close(failures)
		var errs []error
		for err := range failures {
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
}

// keepHeap keeps a profile of a router's heap.
func (b *bench) keepHeap(ctx context.Context, n *cluster.Node, name string) error {
	profile, err := fetch(ctx, "http://"+n.Ops()+"/debug/pprof/heap?gc=1")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(b.ProfileDir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.ProfileDir, name+"-heap.pprof"), profile, 0o644)
}

// fetchProfile has a server profile itself for a while, and keeps the result.
func fetchProfile(ctx context.Context, ops string, d time.Duration, path string) error {
	ctx, cancel := context.WithTimeout(ctx, d+profileSlack)
	defer cancel()
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", ops, max(1, int(d.Seconds())))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	reply, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	defer func() { _ = reply.Body.Close() }()
	content, err := io.ReadAll(reply.Body)
	switch {
	case err != nil:
		return fmt.Errorf("profile: %w", err)
	case reply.StatusCode != http.StatusOK:
		return fmt.Errorf("profile: %s answered %d %.200s", url, reply.StatusCode, content)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o644)
}
