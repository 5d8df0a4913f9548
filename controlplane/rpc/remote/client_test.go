package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

func someTable() *rpc.Table {
	t := &rpc.Table{ClusterID: "cluster-1", Version: 7, Nodes: map[rpc.NodeID]rpc.NodeInfo{
		"d1": {ID: "d1", Address: "h1:1", Zone: "a", Incarnation: "i1", Version: "v1"},
		"d2": {ID: "d2", Address: "h2:1"},
	}}
	for i := range 256 {
		t.Groups = append(t.Groups, rpc.Placement{
			Replicas:  []rpc.Replica{{Node: "d1", Voter: true}, {Node: "d2"}, {Node: "gone", Voter: i%2 == 0}},
			Leader:    "d1",
			Preferred: "d2",
		})
	}
	t.Groups[3] = rpc.Placement{}
	return t
}

func someAssignment() *rpc.Assignment {
	return &rpc.Assignment{
		ClusterID: "cluster-1", Version: 9,
		Groups: []rpc.GroupAssignment{
			{Group: 0, Replicas: []rpc.Replica{{Node: "d1", Voter: true}, {Node: "d2"}}, Preferred: "d1", Bootstrap: true},
			{Group: 255},
		},
		Addresses: map[rpc.NodeID]string{"d1": "h1:1", "d2": ""},
	}
}

func someReport() *rpc.Report {
	return &rpc.Report{
		Node:           rpc.NodeInfo{ID: "d1", Address: "h1:1", Zone: "a", Incarnation: "i1", Version: "v1"},
		HaveAssignment: 8,
		Groups: []rpc.GroupReport{
			{Group: 255, Leading: true, Term: 1, Applied: 2, LastIndex: 3, Replicas: []rpc.Replica{{Node: "d1", Voter: true}, {Node: "d9"}}},
			{Group: 0},
		},
	}
}

// Every field of every message arrives.
func TestEverythingArrives(t *testing.T) {
	t.Parallel()
	plane := newFakePlane()
	plane.table, plane.assign = someTable(), someAssignment()
	members := plane.start(t, 1, ServerOptions{})
	client := newClient(t, Options{Addresses: addresses(members), ClusterID: "cluster-1"})
	table, err := client.Table(within10s(t), 0)
	require.NoError(t, err)
	require.Equal(t, someTable(), table)
	assignment, err := client.Session(within10s(t), someReport())
	require.NoError(t, err)
	require.Equal(t, someAssignment(), assignment)
	require.Equal(t, []*rpc.Report{someReport()}, plane.reports)
}

// A table comes as soon as it is newer, and the same one again when the context
// ends first.
func TestTableWaitsForNews(t *testing.T) {
	t.Parallel()
	plane := newFakePlane()
	members := plane.start(t, 1, ServerOptions{})
	client := newClient(t, Options{Addresses: addresses(members)})
	table, err := client.Table(within10s(t), 0)
	require.NoError(t, err)
	require.EqualValues(t, 1, table.Version)

	got := make(chan *rpc.Table, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		table, err := client.Table(within10s(t), 1)
		if err != nil {
			t.Error(err)
		}
		got <- table
	})
	require.EqualValues(t, 2, plane.publish())
	require.EqualValues(t, 2, (<-got).Version)
	wg.Wait()

	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	table, err = client.Table(ctx, 2)
	require.NoError(t, err, "a poll that found nothing new is no error")
	require.EqualValues(t, 2, table.Version)
	table, err = client.Table(ctx, 1)
	require.NoError(t, err, "there is one, whatever the context")
	require.EqualValues(t, 2, table.Version)
}

// Changes that come faster than they are sent arrive as fewer tables, the last
// one always.
func TestBurstOfChangesEndsWithTheNewest(t *testing.T) {
	t.Parallel()
	plane := newFakePlane()
	members := plane.start(t, 1, ServerOptions{})
	client := newClient(t, Options{Addresses: addresses(members)})
	_, err := client.Table(within10s(t), 0)
	require.NoError(t, err)
	var last uint64
	for range 1000 {
		last = plane.publish()
	}
	table, err := client.Table(within10s(t), last-1)
	require.NoError(t, err)
	require.Equal(t, last, table.Version)
}

// Whoever leads is found, whichever member is asked first, and again when it
// changes.
func TestLeaderIsFound(t *testing.T) {
	t.Parallel()
	plane := newFakePlane()
	members := plane.start(t, 3, ServerOptions{})
	client := newClient(t, Options{Addresses: addresses(members)})
	for i := range 9 {
		leader := members[i%3].address
		plane.lead(leader)
		_, err := client.Session(within10s(t), reportOf("d1"))
		require.NoError(t, err)
		version := plane.publish()
		table, err := client.Table(within10s(t), version-1)
		require.NoError(t, err)
		require.Equal(t, version, table.Version)
		plane.change(func() { clear(plane.sessions) })
		for range 3 {
			_, err = client.Session(within10s(t), reportOf("d1"))
			require.NoError(t, err)
		}
		require.Equal(t, map[string]int{leader: 3}, plane.sessions, "it stays with the leader")
	}
}

// A leader that is not in the list is found by what the others say of it.
func TestLeaderOutsideTheList(t *testing.T) {
	t.Parallel()
	plane := newFakePlane()
	members := plane.start(t, 2, ServerOptions{})
	client := newClient(t, Options{Addresses: []string{members[1].address}})
	_, err := client.Session(within10s(t), reportOf("d1"))
	require.NoError(t, err)
	_, err = client.Table(within10s(t), 0)
	require.NoError(t, err)
}

// Members that are down, or accept connections and say nothing, are passed by.
func TestDeadMembersArePassedBy(t *testing.T) {
	t.Parallel()
	plane := newFakePlane()
	members := plane.start(t, 1, ServerOptions{})
	client := newClient(t, Options{
		Addresses: []string{freeAddress(t), sinkhole(t), members[0].address}, AttemptTimeout: 200 * time.Millisecond, Patience: patience,
	})
	table, err := client.Table(within10s(t), 0)
	require.NoError(t, err)
	require.EqualValues(t, 1, table.Version)
	_, err = client.Session(within10s(t), reportOf("d1"))
	require.NoError(t, err)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

// With all members down the table is served on and sessions fail as
// unavailable; when one returns both go on.
func TestAllMembersDown(t *testing.T) {
	t.Parallel()
	plane := newFakePlane()
	members := plane.start(t, 3, ServerOptions{})
	client := newClient(t, Options{Addresses: addresses(members), Patience: 100 * time.Millisecond})
	var table *rpc.Table
	require.Eventually(t, func() bool {
		var err error
		table, err = client.Table(within10s(t), 0)
		return err == nil
	}, patience, time.Millisecond)
	for range 2 {
		for _, m := range members {
			m.kill()
		}
		_, err := client.Session(within10s(t), reportOf("d1"))
		require.ErrorIs(t, err, rpc.ErrUnavailable)
		cached, err := client.Table(within10s(t), 0)
		require.NoError(t, err)
		require.Same(t, table, cached)

		plane.lead(members[2].address)
		version := plane.publish()
		members[2] = serve(t, members[2].address, plane.member, ServerOptions{})
		table, err = client.Table(within10s(t), version-1)
		require.NoError(t, err)
		require.Equal(t, version, table.Version)
		require.Eventually(t, func() bool {
			_, err := client.Session(within10s(t), reportOf("d1"))
			return err == nil
		}, patience, time.Millisecond)
	}
}

// Without any member, and without any table, calls end.
func TestNoMemberEver(t *testing.T) {
	t.Parallel()
	client := newClient(t, Options{Addresses: []string{freeAddress(t)}, Patience: 50 * time.Millisecond})
	_, err := client.Table(context.Background(), 0)
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	_, err = client.Session(context.Background(), reportOf("d1"))
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = client.Table(ctx, 0)
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	_, err = client.Session(ctx, reportOf("d1"))
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	require.ErrorIs(t, err, context.Canceled)
}

// Members without a leader are members that cannot answer.
func TestNoLeader(t *testing.T) {
	t.Parallel()
	plane := newFakePlane()
	plane.anyServes = true
	members := plane.start(t, 3, ServerOptions{Heartbeat: 10 * time.Millisecond})
	plane.lead("")
	client := newClient(t, Options{Addresses: addresses(members), Patience: 50 * time.Millisecond})
	_, err := client.Session(within10s(t), reportOf("d1"))
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	_, err = client.Table(within10s(t), 0)
	require.ErrorIs(t, err, rpc.ErrUnavailable, "a member that knows no leader may be cut off")
	plane.lead(members[1].address)
	require.Eventually(t, func() bool {
		_, err := client.Table(within10s(t), 0)
		return err == nil
	}, patience, time.Millisecond)
}

// Errors that no other member would answer otherwise are told at once, as what
// they are.
func TestFinalErrors(t *testing.T) {
	t.Parallel()
	for _, want := range []error{rpc.ErrWrongCluster, rpc.ErrNodeConflict, rpc.ErrInvalid} {
		t.Run(want.Error(), func(t *testing.T) {
			t.Parallel()
			plane := newFakePlane()
			plane.refusal = fmt.Errorf("deep inside: %w", want)
			members := plane.start(t, 2, ServerOptions{})
			client := newClient(t, Options{Addresses: addresses(members), Patience: patience})
			_, err := client.Session(within10s(t), reportOf("d1"))
			require.ErrorIs(t, err, want)
			require.NotErrorIs(t, err, rpc.ErrUnavailable)
			require.Contains(t, err.Error(), "deep inside")
			require.Len(t, plane.reports, 1)
		})
	}
}

// What a member says of the leader is told when nobody else could be asked.
func TestNotLeaderErrorSurvives(t *testing.T) {
	t.Parallel()
	plane := newFakePlane()
	members := plane.start(t, 1, ServerOptions{})
	elsewhere := freeAddress(t)
	plane.lead(elsewhere)
	client := newClient(t, Options{Addresses: addresses(members), Patience: 50 * time.Millisecond})
	require.Eventually(t, func() bool {
		_, err := client.Session(within10s(t), reportOf("d1"))
		require.ErrorIs(t, err, rpc.ErrUnavailable)
		hint, ok := errors.AsType[*rpc.NotLeaderError](err)
		return ok && hint.Leader == "c" && hint.Address == elsewhere
	}, patience, time.Millisecond)
}

// A member that breaks down inside is like one that is not there.
func TestUnclassifiedErrors(t *testing.T) {
	t.Parallel()
	plane := newFakePlane()
	plane.refusal = errors.New("strange \xff")
	members := plane.start(t, 1, ServerOptions{})
	client := newClient(t, Options{Addresses: addresses(members), Patience: 20 * time.Millisecond})
	_, err := client.Session(within10s(t), reportOf("d1"))
	require.ErrorIs(t, err, rpc.ErrUnavailable)
}

// A member of another cluster is passed by.
func TestWrongClusterIsPassedBy(t *testing.T) {
	t.Parallel()
	strange := newFakePlane()
	strange.table.ClusterID = "cluster-2"
	own := newFakePlane()
	list := append(addresses(strange.start(t, 1, ServerOptions{})), addresses(own.start(t, 1, ServerOptions{}))...)
	client := newClient(t, Options{Addresses: list, ClusterID: "cluster-1"})
	table, err := client.Table(within10s(t), 0)
	require.NoError(t, err)
	require.Equal(t, "cluster-1", table.ClusterID)

	// Without being told, the first cluster it meets is its own.
	client = newClient(t, Options{Addresses: list})
	table, err = client.Table(within10s(t), 0)
	require.NoError(t, err)
	require.Equal(t, "cluster-2", table.ClusterID)
	require.ErrorIs(t, client.take(&rpc.Table{ClusterID: "cluster-1", Version: 99}), rpc.ErrWrongCluster)
}

// Versions never go back, whatever a member that lags behind sends.
func TestVersionsNeverGoBack(t *testing.T) {
	t.Parallel()
	client := newClient(t, Options{Addresses: []string{"127.0.0.1:1"}})
	require.NoError(t, client.take(&rpc.Table{ClusterID: "c", Version: 5}))
	require.NoError(t, client.take(&rpc.Table{ClusterID: "c", Version: 4}))
	require.NoError(t, client.take(&rpc.Table{ClusterID: "c", Version: 5}))
	table, err := client.Table(within10s(t), 0)
	require.NoError(t, err)
	require.EqualValues(t, 5, table.Version)
}

// Close answers who waits.
func TestClose(t *testing.T) {
	t.Parallel()
	plane := newFakePlane()
	plane.stubborn = true
	members := plane.start(t, 1, ServerOptions{})
	client := newClient(t, Options{Addresses: addresses(members), AttemptTimeout: time.Minute})
	_, err := client.Table(within10s(t), 0)
	require.NoError(t, err)
	errs := make(chan error, 2)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := client.Table(context.Background(), 99)
		errs <- err
	})
	wg.Go(func() {
		_, err := client.Session(context.Background(), reportOf("d1"))
		errs <- err
	})
	require.Eventually(t, func() bool {
		plane.mu.Lock()
		defer plane.mu.Unlock()
		return len(plane.reports) == 1
	}, patience, time.Millisecond)
	require.NoError(t, client.Close())
	require.ErrorIs(t, <-errs, rpc.ErrClosed)
	require.ErrorIs(t, <-errs, rpc.ErrClosed)
	wg.Wait()
	_, err = client.Table(context.Background(), 0)
	require.ErrorIs(t, err, rpc.ErrClosed)
	_, err = client.Session(context.Background(), reportOf("d1"))
	require.ErrorIs(t, err, rpc.ErrClosed)
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	for _, opts := range []Options{
		{}, {Addresses: []string{"a"}}, {Dial: dialMember}, {Addresses: make([]string, maxMembers+1), Dial: dialMember},
		{Addresses: []string{"a"}, Dial: dialMember, Patience: -1}, {Addresses: []string{"a"}, Dial: dialMember, BackoffMin: time.Hour},
	} {
		_, err := NewClient(opts)
		require.Error(t, err)
	}
}

// An address that cannot be dialled is a member that is down.
func TestDialFails(t *testing.T) {
	t.Parallel()
	plane := newFakePlane()
	members := plane.start(t, 1, ServerOptions{})
	client := newClient(t, Options{
		Addresses: []string{"bad", members[0].address},
		Dial: func(address string) (Conn, error) {
			if address == "bad" {
				return nil, errors.New("no such address")
			}
			return dialMember(address)
		},
	})
	_, err := client.Session(within10s(t), reportOf("d1"))
	require.NoError(t, err)
	_, err = client.Table(within10s(t), 0)
	require.NoError(t, err)
}
