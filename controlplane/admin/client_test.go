package admin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/mesh"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

func config(role mesh.Role, id, token string) mesh.Config {
	return mesh.Config{Role: role, ID: id, Credentials: mesh.Credentials{Token: mesh.Token(token)}, Logger: slog.New(slog.DiscardHandler)}
}

// serve serves a plane on an internal listener and returns its address.
func serve(t *testing.T, plane Plane) string {
	t.Helper()
	listener, err := mesh.Listen("127.0.0.1:0", config(mesh.RoleControl, "c1", token))
	require.NoError(t, err)
	server := NewHandler(plane, Options{Logger: slog.New(slog.DiscardHandler)}).NewServer()
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener.Accept(mesh.KindAdmin)) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
		_ = listener.Close()
	})
	return listener.Addr().String()
}

func client(t *testing.T, role mesh.Role, token string, addresses ...string) *Client {
	t.Helper()
	dialer, err := mesh.NewDialer(config(role, "", token))
	require.NoError(t, err)
	c := NewClient(addresses, func(ctx context.Context, address string) (net.Conn, error) {
		return dialer.Dial(ctx, mesh.KindAdmin, 0, address)
	})
	c.patience = time.Second
	t.Cleanup(c.Close)
	return c
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// A follower sends its callers to the leader, with what they asked for.
func TestRedirectToTheLeader(t *testing.T) {
	t.Parallel()
	leader := &double{overview: someOverview(t)}
	address := serve(t, leader)
	follower := serve(t, &double{err: &rpc.NotLeaderError{Leader: "c2", Address: address}})
	c := client(t, mesh.RoleAdmin, token, follower)
	var list NodeList
	require.NoError(t, c.Do(within(t), http.MethodGet, "/nodes", nil, &list))
	require.Len(t, list.Nodes, 3)
	var events EventList
	require.NoError(t, c.Do(within(t), http.MethodGet, "/events?limit=1&after=2", nil, &events))
	require.EqualValues(t, 3, events.Events[0].ID, "the query goes with it")
	require.NoError(t, c.Do(within(t), http.MethodPost, "/groups/3/move", map[string]string{"from": "d1", "to": "d2"}, nil))
	require.Equal(t, []string{"move 3 d1 d2 false"}, leader.asked)
}

func TestClientLooksForAMemberThatAnswers(t *testing.T) {
	t.Parallel()
	leader := &double{}
	address := serve(t, leader)
	lost := serve(t, &double{err: rpc.ErrUnavailable})
	c := client(t, mesh.RoleAdmin, token, "127.0.0.1:1", lost, address)
	require.NoError(t, c.Do(within(t), http.MethodDelete, "/rebalance", nil, nil))
	require.Equal(t, []string{"cancel"}, leader.asked)
	require.Equal(t, address, c.addresses[0], "the next call begins there")

	alone := client(t, mesh.RoleAdmin, token, lost)
	var refused *Error
	require.ErrorAs(t, alone.Do(within(t), http.MethodGet, "/status", nil, nil), &refused)
	require.Equal(t, "control_unavailable", refused.Code)
	require.ErrorIs(t, client(t, mesh.RoleAdmin, token, "127.0.0.1:1").Do(within(t), http.MethodGet, "/status", nil, nil), ErrUnreachable)
}

func TestRefusalsReachTheCaller(t *testing.T) {
	t.Parallel()
	plane := &double{err: catalog.ErrDrainUnderWay}
	address := serve(t, plane)
	var refused *Error
	require.ErrorAs(t, client(t, mesh.RoleAdmin, token, address).Do(within(t), http.MethodPost, "/nodes/d1/drain", nil, nil), &refused)
	require.Equal(t, "drain_under_way", refused.Code)
	require.Equal(t, http.StatusConflict, refused.GetStatus())
	require.Len(t, plane.asked, 1, "a refusal is an answer")

	err := client(t, mesh.RoleRouter, token, address).Do(within(t), http.MethodPost, "/nodes/d1/drain", nil, nil)
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "forbidden", refused.Code)
	err = client(t, mesh.RoleAdmin, "another-token-another-token", address).Do(within(t), http.MethodGet, "/status", nil, nil)
	require.ErrorIs(t, err, mesh.ErrUnauthorized)
	require.Len(t, plane.asked, 1)
}

func TestWhatMayBeAskedAgain(t *testing.T) {
	t.Parallel()
	unsent, cut := &dialError{errors.New("refused")}, errors.New("connection reset")
	require.True(t, again(http.MethodPost, unsent))
	require.True(t, again(http.MethodGet, cut))
	require.False(t, again(http.MethodPost, cut), "it may have been heard")
	require.True(t, again(http.MethodPost, &Error{Code: "not_leader"}))
	require.False(t, again(http.MethodGet, &Error{Code: "internal"}))
}
