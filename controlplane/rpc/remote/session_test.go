package remote

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// An assignment travels once, and again as soon as anything in it is different,
// the version or not.
func TestUnchangedAssignmentStaysAtHome(t *testing.T) {
	t.Parallel()
	plane := newFakePlane()
	plane.assign = someAssignment()
	members := plane.start(t, 2, ServerOptions{})
	client := newClient(t, Options{Addresses: addresses(members)})
	first, err := client.Session(within10s(t), reportOf("d1"))
	require.NoError(t, err)
	again, err := client.Session(within10s(t), reportOf("d1"))
	require.NoError(t, err)
	require.Same(t, first, again)
	plane.lead(members[1].address)
	again, err = client.Session(within10s(t), reportOf("d1"))
	require.NoError(t, err)
	require.Same(t, first, again, "another leader says the same")

	changed := someAssignment()
	changed.Groups[0].Bootstrap = false
	plane.change(func() { plane.assign = changed })
	again, err = client.Session(within10s(t), reportOf("d1"))
	require.NoError(t, err)
	require.Equal(t, changed, again)
	other, err := client.Session(within10s(t), reportOf("d2"))
	require.NoError(t, err)
	require.NotSame(t, again, other, "what one node was told is not for another")
}

// The caller's context ends a session, and a silent leader is left for another
// member.
func TestSilentSession(t *testing.T) {
	t.Parallel()
	plane := newFakePlane()
	plane.stubborn = true
	members := plane.start(t, 1, ServerOptions{})
	client := newClient(t, Options{Addresses: addresses(members), AttemptTimeout: 20 * time.Millisecond, Patience: 100 * time.Millisecond})
	_, err := client.Session(context.Background(), reportOf("d1"))
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	patient := newClient(t, Options{Addresses: addresses(members), AttemptTimeout: time.Minute})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err = patient.Session(ctx, reportOf("d1"))
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestReportIsChecked(t *testing.T) {
	t.Parallel()
	client := newClient(t, Options{Addresses: []string{"127.0.0.1:1"}})
	long := strings.Repeat("x", maxText+1)
	for name, change := range map[string]func(*rpc.Report){
		"no id":        func(r *rpc.Report) { r.Node.ID = "" },
		"long address": func(r *rpc.Report) { r.Node.Address = long },
		"not UTF-8":    func(r *rpc.Report) { r.Node.Zone = "\xff" },
		"long replica": func(r *rpc.Report) { r.Groups[0].Replicas[0].Node = rpc.NodeID(long) },
		"no replica":   func(r *rpc.Report) { r.Groups[0].Replicas[0].Node = "" },
		"many":         func(r *rpc.Report) { r.Groups[0].Replicas = make([]rpc.Replica, maxReplicas+1) },
		"many groups":  func(r *rpc.Report) { r.Groups = make([]rpc.GroupReport, maxGroups+1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := someReport()
			change(r)
			_, err := client.Session(within10s(t), r)
			require.ErrorIs(t, err, rpc.ErrInvalid)
		})
	}
}
