package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/fastpaca/fastpaca/controlplane/admin"
	"github.com/fastpaca/fastpaca/dataplane/backup"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

func clusterBackupCommands() []*cli.Command {
	return []*cli.Command{clusterBackupCommand(), clusterRestoreCommand()}
}

func clusterBackupCommand() *cli.Command {
	c := &operateConfig{}
	return c.command("backup", "DIR", "copy all conversations of a cluster to files",
		"Copies every group as its leader has it at one moment, and what the control plane knows, to DIR,\n"+
			"which must be empty or not exist. Writes go on meanwhile; each conversation is whole and as it\n"+
			"was at one moment, but two of them may be of different moments. DIR appears when all of it is\n"+
			"complete, checked and on disk. Messages that are in the archive only stay there: back up the\n"+
			"database beside it.",
		"fastpaca cluster backup /backups/monday --control 127.0.0.1:7401\n   (cd /backups/monday && sha256sum --check --quiet SHA256SUMS)",
		[]string{"DIR"}, c.backup)
}

func clusterRestoreCommand() *cli.Command {
	c := &operateConfig{}
	return c.command("restore", "DIR", "fill an empty cluster from a backup",
		"Reads and checks all of DIR, then writes every conversation of it as it was: sequences, versions,\n"+
			"ids, times, hashes. The cluster may have another size than the one of the backup; its nodes,\n"+
			"placement and leases stay as they are. It must hold no conversation. Until a group is filled it\n"+
			"refuses other writes. When this returns, everything is on disk at a quorum and was compared.\n"+
			"After a failure call it again: it goes on.",
		"fastpaca cluster restore /backups/monday --control 127.0.0.1:7401 --yes",
		[]string{"DIR"}, c.restore, c.dryRunFlag(), c.yesFlag())
}

// controlSettings is what a backup keeps of the control plane.
type controlSettings struct {
	Status admin.Status    `json:"status"`
	Nodes  admin.NodeList  `json:"nodes"`
	Groups admin.GroupList `json:"groups"`
	Moves  admin.MoveList  `json:"moves"`
	Leases admin.LeaseList `json:"leases"`
}

func (o *operator) settings() (*controlSettings, error) {
	var s controlSettings
	for path, out := range map[string]any{"/status": &s.Status, "/nodes": &s.Nodes, "/groups": &s.Groups, "/moves": &s.Moves, "/leases": &s.Leases} {
		if err := o.get(path, out); err != nil {
			return nil, err
		}
	}
	if s.Status.Groups.Placed != rpc.Groups {
		return nil, exitError{errors.New("the cluster has no groups yet: it waits for data nodes"), exitRefused}
	}
	return &s, nil
}

func (c *operateConfig) backup(o *operator) error {
	settings, err := o.settings()
	if err != nil {
		return err
	}
	control, err := json.MarshalIndent(settings, "", "  ")
	if err != nil {
		return err
	}
	leaders, err := o.leaders()
	if err != nil {
		return err
	}
	defer leaders.close()
	p := o.progress("copied")
	began := time.Now()
	m, err := backup.Take(o.ctx, o.args[0], backup.Source{
		Cluster: leaders, ClusterID: settings.Status.ClusterID, Version: version(), Control: control,
	}, backup.Options{Progress: p.add})
	p.end()
	if err != nil {
		return o.backupError(err, "nothing is left of the backup")
	}
	return o.print(m, func() {
		fmt.Fprintf(o.out, "Backed up %d conversations, %d messages, %s, in %v to %s.\n",
			m.Totals.Conversations, m.Totals.Messages, sizeText(m.Totals.Bytes), time.Since(began).Round(100*time.Millisecond), o.args[0])
		if m.Totals.Archived > 0 {
			fmt.Fprintf(o.out, "%d older messages are in the archive only: back up its database too.\n", m.Totals.Archived)
		}
	})
}

func sizeText(n uint64) string {
	if n == 0 {
		return "0 B"
	}
	return bytesText(n)
}

func (c *operateConfig) restore(o *operator) error {
	p := o.progress("checked")
	b, err := backup.Open(o.ctx, o.args[0], backup.Options{Progress: p.add})
	p.end()
	if err != nil {
		return o.backupError(err, "the cluster was not touched")
	}
	settings, err := o.settings()
	if err != nil {
		return err
	}
	if err := sameVersions(settings.Nodes.Nodes); err != nil {
		return exitError{err, exitRefused}
	}
	leaders, err := o.leaders()
	if err != nil {
		return err
	}
	defer leaders.close()
	target, err := b.Inspect(o.ctx, leaders, backup.Options{})
	if err != nil {
		return o.backupError(err, "nothing was changed")
	}
	what := fmt.Sprintf("%d conversations of cluster %s as of %s", b.Totals.Conversations, b.ClusterID, b.Began.Local().Format(time.DateTime))
	if c.DryRun {
		return o.print(&b.Manifest, func() { fmt.Fprintf(o.out, "The backup is undamaged; %s could be restored.\n", what) })
	}
	if target.Begun {
		fmt.Fprintln(o.stderr, "A restore has begun before; this one goes on with it.")
	}
	if err := o.confirm(fmt.Sprintf("Restore %s into cluster %s?", what, settings.Status.ClusterID)); err != nil {
		return err
	}
	p = o.progress("restored")
	began := time.Now()
	result, err := b.Restore(o.ctx, leaders, target, backup.Options{Progress: p.add})
	p.end()
	if err != nil {
		return o.backupError(err, "the restore is incomplete. Call it again to go on")
	}
	return o.print(result, func() {
		fmt.Fprintf(o.out, "Restored %d conversations, %d messages, in %v; %d of %d groups compared equal.\n",
			b.Totals.Conversations, b.Totals.Messages, time.Since(began).Round(100*time.Millisecond), result.Equal, result.Groups)
		if result.Moved > 0 {
			fmt.Fprintf(o.out, "%d groups were written to before they could be compared.\n", result.Moved)
		}
		if b.Totals.Archived > 0 {
			fmt.Fprintf(o.out, "%d older messages are in the archive of the old cluster only.\n", b.Totals.Archived)
		}
	})
}

// sameVersions refuses a restore while a node may not know what it writes.
func sameVersions(nodes []admin.Node) error {
	var versions []string
	for _, n := range nodes {
		if n.State != "removed" && !slices.Contains(versions, n.Version) {
			versions = append(versions, n.Version)
		}
	}
	if len(versions) > 1 {
		return fmt.Errorf("data nodes run different versions (%s); bring all to the same first", strings.Join(versions, ", "))
	}
	return nil
}

// backupError adds its exit code to the failure of a backup or restore.
func (o *operator) backupError(err error, left string) error {
	switch {
	case o.ctx.Err() != nil:
		return exitError{fmt.Errorf("interrupted; %s", left), exitInterrupted}
	case errors.Is(err, backup.ErrNotEmpty):
		return exitError{err, exitRefused}
	case errors.Is(err, os.ErrNotExist):
		return usageError{err}
	}
	return exitError{fmt.Errorf("%w; %s", err, left), exitFailed}
}

// copyProgress shows how far a backup or restore is, from many goroutines.
type copyProgress struct {
	o      *operator
	verb   string
	ctx    context.Context
	cancel context.CancelFunc
	shown  sync.WaitGroup

	mu     sync.Mutex // guards what follows
	groups int
	bytes  int64
}

// progress begins to show; end ends it.
func (o *operator) progress(verb string) *copyProgress {
	p := &copyProgress{o: o, verb: verb}
	p.ctx, p.cancel = context.WithCancel(o.ctx)
	p.shown.Go(func() {
		for pause(p.ctx, progressInterval) {
			p.show()
		}
	})
	return p
}

func (p *copyProgress) add(groups int, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.groups += groups
	p.bytes += bytes
}

func (p *copyProgress) show() {
	p.mu.Lock()
	defer p.mu.Unlock()
	line := fmt.Sprintf("%s %d of %d groups, %s", p.verb, p.groups, rpc.Groups, sizeText(uint64(max(p.bytes, 0))))
	if isTerminal(p.o.stderr) {
		fmt.Fprintf(p.o.stderr, "\r\x1b[K%s", line)
	} else {
		fmt.Fprintln(p.o.stderr, line)
	}
}

func (p *copyProgress) end() {
	p.cancel()
	p.shown.Wait()
	p.show()
	if isTerminal(p.o.stderr) {
		fmt.Fprintln(p.o.stderr)
	}
}
