package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// etcdPackage is built in the module in etcd/, which pins its version: this
// module should not carry what etcd depends on.
const etcdPackage = "go.etcd.io/etcd/server/v3"

// etcdQuota is more than any run writes; etcd's own default would stop long
// ones.
const etcdQuota = 8 << 30

// findEtcd returns the server to compare with: the one that was named, else one
// built from the pinned source. Go's build cache makes that quick the next time.
func (b *bench) findEtcd(ctx context.Context) (string, error) {
	if b.Etcd != "" {
		return filepath.Abs(b.Etcd)
	}
	root, err := process.ModuleRoot()
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a place to build etcd: %w", err)
	}
	path := filepath.Join(cache, "fastpaca-bench", "etcd")
	b.progress("building etcd, which takes minutes the first time")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, etcdPackage)
	cmd.Dir = filepath.Join(root, "cmd", "fastpaca-bench", "etcd")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build etcd: %w\n%s", err, out)
	}
	b.Etcd = path
	return path, nil
}

// etcdCluster is a cluster of etcd members with default settings. Clients speak
// to the leader, which is what costs the members least.
type etcdCluster struct {
	members []*process.Server
	clients []string // addresses for clients, by member
	leader  string
	conns   *etcdConns
}

// freshEtcd starts a cluster on new directories and waits until it has a leader.
func (b *bench) freshEtcd(ctx context.Context) (*etcdCluster, error) {
	binary, err := b.findEtcd(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(b.dir, "etcd-")
	if err != nil {
		return nil, err
	}
	e := &etcdCluster{}
	if err := e.start(binary, dir); err != nil {
		e.stop()
		return nil, err
	}
	ready, cancel := context.WithTimeout(ctx, process.ReadyTimeout)
	defer cancel()
	if err := e.awaitLeader(ready); err != nil {
		e.stop()
		return nil, err
	}
	e.conns = newEtcdConns(e.leader)
	return e, nil
}

func (e *etcdCluster) start(binary, dir string) error {
	var peers, initial []string
	for i := range dataNodes {
		peer, err := process.FreeAddress()
		if err != nil {
			return err
		}
		client, err := process.FreeAddress()
		if err != nil {
			return err
		}
		peers, e.clients = append(peers, peer), append(e.clients, client)
		initial = append(initial, fmt.Sprintf("m%d=http://%s", i, peer))
	}
	for i := range dataNodes {
		peer, client := "http://"+peers[i], "http://"+e.clients[i]
		member, err := process.Start(process.Config{
			Listen: e.clients[i],
			Command: []string{binary, "--name", fmt.Sprintf("m%d", i), "--data-dir", filepath.Join(dir, fmt.Sprintf("m%d", i)),
				"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
				"--listen-client-urls", client, "--advertise-client-urls", client,
				"--initial-cluster", strings.Join(initial, ","), "--initial-cluster-state", "new",
				"--quota-backend-bytes", fmt.Sprint(int64(etcdQuota)), "--log-level", "error"},
		})
		if err != nil {
			return err
		}
		e.members = append(e.members, member)
	}
	return nil
}

// awaitLeader finds the member that says it leads.
func (e *etcdCluster) awaitLeader(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var last error
		for _, address := range e.clients {
			leads, err := etcdLeads(ctx, address)
			if leads {
				e.leader = address
				return nil
			}
			last = errors.Join(last, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("etcd has no leader: %w (%w):\n%s", ctx.Err(), last, e.members[0].Output())
		}
	}
}

func (e *etcdCluster) name() string { return nameEtcd }

func (e *etcdCluster) roots() []int {
	var pids []int
	for _, m := range e.members {
		pids = append(pids, m.PID())
	}
	return pids
}

func (e *etcdCluster) stop() {
	if e.conns != nil {
		e.conns.close()
	}
	for _, m := range e.members {
		m.Kill()
	}
}

// prepare does nothing: etcd has no conversations to make.
func (e *etcdCluster) prepare(context.Context, []string) error { return nil }

func (e *etcdCluster) connect(context.Context) (writer, error) { return e.conns.writer() }
