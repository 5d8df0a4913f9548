package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/controlplane/admin"
)

const clusterToken = "a-token-of-this-test-0123456789"

// startCluster runs a server that others can join and returns its internal
// address.
func startCluster(t *testing.T) string {
	t.Helper()
	addresses, err := freeAddresses(2)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan int, 1)
	var out bytes.Buffer
	dir := t.TempDir()
	go func() {
		done <- run(ctx, []string{"fastpaca", "serve", "--data-dir", dir, "--listen", addresses[0],
			"--internal-listen", addresses[1], "--token", clusterToken, "--log-level", "error"}, &out, &out)
	}()
	t.Cleanup(func() {
		cancel()
		require.Equal(t, exitOK, <-done, out.String())
	})
	waitReady(t, addresses[0])
	return addresses[1]
}

// cluster runs a verb of `fastpaca cluster`.
func cluster(t *testing.T, address string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	// Flags of connection come last: they may stand behind arguments.
	args = append(append([]string{"fastpaca", "cluster"}, args...), "--control", address, "--token", clusterToken)
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestClusterVerbs(t *testing.T) {
	address := startCluster(t)
	ask := func(answer any, args ...string) {
		t.Helper()
		code, stdout, stderr := cluster(t, address, append(args, "-o", "json")...)
		require.Equal(t, exitOK, code, stderr)
		require.NoError(t, json.Unmarshal([]byte(stdout), answer), stdout)
	}
	var status statusAnswer
	require.Eventually(t, func() bool {
		ask(&status, "status")
		return status.Healthy
	}, 30*time.Second, 50*time.Millisecond)
	require.Len(t, status.NodeList, 1)
	var nodes admin.NodeList
	ask(&nodes, "nodes")
	require.Equal(t, "up", nodes.Nodes[0].State)
	require.Equal(t, 256, nodes.Nodes[0].Replicas)
	var groups admin.GroupList
	ask(&groups, "groups")
	require.Len(t, groups.Groups, 256)
	var leases admin.LeaseList
	ask(&leases, "leases")
	require.Empty(t, leases.Leases, "nobody archives")
	var plan admin.Rebalanced
	ask(&plan, "rebalance", "--dry-run")
	require.Empty(t, plan.Plan)
	require.False(t, plan.Started)
	ask(&plan, "rebalance", "--yes", "--wait")
	require.True(t, plan.Started)
	var done admin.Done
	ask(&done, "transfer-leader", "7", "--to", "n1")
	require.True(t, done.Done)
	ask(&done, "undrain", "n1")
	ask(&done, "weight", "n1", "250")
	var events admin.EventList
	ask(&events, "events", "-n", "1000")
	var kinds []string
	for _, e := range events.Events {
		kinds = append(kinds, e.Kind)
	}
	require.Equal(t, []string{
		"cluster_created", "node_registered", "groups_placed", "rebalance_started", "rebalance_finished", "leader_pinned", "node_weighed",
	}, kinds)
	var moves admin.MoveList
	ask(&moves, "moves")
	require.Empty(t, moves.Moves)
	for verb, want := range map[string]string{
		"status": "healthy", "nodes": "REPLICAS", "groups": "QUORUM", "moves": "PHASE", "leases": "HOLDER", "events": "groups_placed",
	} {
		code, stdout, stderr := cluster(t, address, verb)
		require.Equal(t, exitOK, code, stderr)
		require.Contains(t, stdout, want)
	}
	refusedCalls(t, address)
}

// refusedCalls are those that a cluster of one must refuse, each with the exit
// code that tells a script why.
func refusedCalls(t *testing.T, address string) {
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"drain n1 --yes", exitRefused, "too few nodes"},
		{"drain n9 --yes", exitUnknown, "no such node"},
		{"remove n1 --yes", exitRefused, "Drain it first"},
		{"weight n9 7", exitUnknown, "no such node"},
		{"weight n1 0", exitUsage, "from 1 to 10000"},
		{"weight n1 heavy", exitUsage, "from 1 to 10000"},
		{"weight n1", exitUsage, "NODE WEIGHT"},
		{"move 3 --from n1 --to n1 --yes", exitRefused, "has a replica"},
		{"move 300 --from n1 --to n1 --yes", exitUnknown, "no such group"},
		{"move 3 --from n1 --yes", exitUsage, "--to is required"},
		{"move three --from n1 --to n2 --yes", exitUsage, "want a number"},
		{"abort 12 --yes", exitUnknown, "no such move"},
		{"abort", exitUsage, "MOVE"},
		{"transfer-leader 3 --to n9", exitUnknown, "no such node"},
		{"nodes extra", exitUsage, "takes 0 arguments"},
		{"nodes -o xml", exitUsage, "want table or json"},
		{"nodes --odd", exitUsage, "odd"},
		{"nodes --token another-token-0123456789", exitFailed, "FASTPACA_TOKEN"},
	} {
		args := strings.Fields(c.args)
		var out, errs bytes.Buffer
		all := append([]string{"fastpaca", "cluster", args[0], "--control", address, "--token", clusterToken}, args[1:]...)
		require.Equal(t, c.code, run(t.Context(), all, &out, &errs), "%s: %s", c.args, errs.String())
		require.Contains(t, errs.String(), c.want, c.args)
	}
}

// Whoever asks for help finds an example, and what exit codes mean.
func TestClusterHelp(t *testing.T) {
	t.Parallel()
	for _, cmd := range clusterCommand().Subcommands {
		require.Contains(t, cmd.Description, "Example:\n   fastpaca cluster "+cmd.Name, cmd.Name)
		require.Regexp(t, "(?i)exit(s| codes:) 0", cmd.Description, cmd.Name)
		require.NotEmpty(t, cmd.Usage, cmd.Name)
	}
}

// What scripts read of every answer is there under these names.
func TestClusterJSON(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]any{
		"nodes: id state alive zone address version weight replicas leaders preferred lost max_lag disk_used disk_free first_seen last_seen": admin.NodeList{Nodes: []admin.Node{{LastSeen: &time.Time{}}}},
		"groups: group leader term preferred pinned formed quorum applied replicas move":                                                     admin.GroupList{Groups: []admin.Group{{Move: 1}}},
		"moves: id group phase reason from to started_at":                                                                                    admin.MoveList{Moves: []admin.Move{{From: "a", To: []string{"b"}}}},
		"due: group from to reason":                        admin.MoveList{Due: []admin.Relocation{{}}},
		"leases: group epoch holder granted_at expires_at": admin.LeaseList{Leases: []admin.Lease{{GrantedAt: &time.Time{}, ExpiresAt: &time.Time{}}}},
		"events: id at kind node group move detail":        admin.EventList{Events: []admin.Event{{Node: "a", Group: new(uint16), Move: 1, Detail: "d"}}},
	} {
		list, keys, _ := strings.Cut(name, ": ")
		data, err := json.Marshal(value)
		require.NoError(t, err)
		var answer map[string]any
		require.NoError(t, json.Unmarshal(data, &answer))
		entry, ok := answer[list].([]any)[0].(map[string]any)
		require.True(t, ok, list)
		require.ElementsMatch(t, strings.Fields(keys), slices.Collect(maps.Keys(entry)), list)
	}
}

// A watch goes on while nobody leads the control plane, and ends by itself only
// when that cannot help.
func TestWatchWaitsForALeader(t *testing.T) {
	t.Parallel()
	var errs bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	o := &operator{ctx: ctx, stderr: &errs}
	looks := 0
	require.NoError(t, o.watch(func() error {
		if looks++; looks == 2 {
			cancel()
		}
		return admin.ErrUnreachable
	}))
	require.Equal(t, 2, looks)
	require.Equal(t, 1, strings.Count(errs.String(), "looking again"))
	o.ctx = t.Context()
	odd := errors.New("odd")
	require.ErrorIs(t, o.watch(func() error { return odd }), odd)
}

// What changes a cluster asks first.
func TestConfirmation(t *testing.T) {
	for answer, confirmed := range map[string]bool{"y\n": true, "YES\n": true, "yes": true, "n\n": false, "\n": false, "": false} {
		var errs bytes.Buffer
		o := &operator{stdin: strings.NewReader(answer), stderr: &errs}
		require.Equal(t, confirmed, o.confirm("Really?") == nil, "%q", answer)
		require.Contains(t, errs.String(), "Really? [y/N]")
	}
	require.NoError(t, (&operator{yes: true}).confirm("Really?"))
}

func TestProgress(t *testing.T) {
	var errs bytes.Buffer
	o := &operator{ctx: t.Context(), stderr: &errs}
	left := 3
	require.NoError(t, o.await(func() (int, int, error) {
		left--
		return left, 2, nil
	}))
	require.Equal(t, "0 of 2\n1 of 2\n2 of 2\n", errs.String())
}

func TestBytesText(t *testing.T) {
	for n, want := range map[uint64]string{0: "-", 1: "1 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1 << 30: "1.0 GiB", 1 << 63: "8.0 EiB"} {
		require.Equal(t, want, bytesText(n))
	}
}
