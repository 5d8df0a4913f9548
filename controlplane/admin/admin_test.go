package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/member"
	"github.com/fastpaca/fastpaca/controlplane/mesh"
	"github.com/fastpaca/fastpaca/controlplane/reconcile"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "0123456789abcdef0123456789abcdef"

// double is a plane that remembers what it was asked for.
type double struct {
	asked    []string
	err      error
	overview *member.Overview
}

func (d *double) ask(format string, args ...any) error {
	d.asked = append(d.asked, fmt.Sprintf(format, args...))
	return d.err
}

func (d *double) Overview(context.Context) (*member.Overview, error) { return d.overview, d.err }
func (d *double) Drain(_ context.Context, node rpc.NodeID, dryRun bool) error {
	return d.ask("drain %s %t", node, dryRun)
}
func (d *double) Undrain(_ context.Context, node rpc.NodeID) error { return d.ask("undrain %s", node) }
func (d *double) Remove(_ context.Context, node rpc.NodeID) error  { return d.ask("remove %s", node) }
func (d *double) SetWeight(_ context.Context, node rpc.NodeID, weight uint32) error {
	return d.ask("weigh %s %d", node, weight)
}
func (d *double) CancelRebalance(context.Context) error        { return d.ask("cancel") }
func (d *double) AbortMove(_ context.Context, id uint64) error { return d.ask("abort %d", id) }
func (d *double) Rebalance(_ context.Context, dryRun bool) ([]reconcile.Relocation, error) {
	return []reconcile.Relocation{{Group: 3, From: "d1", To: "d4", Reason: "rebalance"}}, d.ask("rebalance %t", dryRun)
}

func (d *double) Move(_ context.Context, group uint16, from, to rpc.NodeID, dryRun bool) (*catalog.Move, error) {
	return &catalog.Move{ID: 9, Phase: "join", Leave: from, Join: []rpc.NodeID{to}}, d.ask("move %d %s %s %t", group, from, to, dryRun)
}

func (d *double) TransferLeader(_ context.Context, group uint16, to rpc.NodeID) error {
	return d.ask("transfer %d %s", group, to)
}

// someOverview is three groups on three nodes, one of them down and one wiped.
func someOverview(t *testing.T) *member.Overview {
	state := &catalog.State{}
	apply := func(command catalog.Command) {
		data, err := catalog.Encode(command)
		require.NoError(t, err)
		next, result, err := catalog.Apply(state, state.Index+1, data)
		require.NoError(t, errors.Join(err, result.Err))
		state = next
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	apply(&catalog.CreateCluster{ClusterID: "x", ReplicationFactor: 3, At: at})
	o := &member.Overview{}
	place := &catalog.PlaceGroups{}
	for _, id := range []rpc.NodeID{"d1", "d2", "d3"} {
		apply(&catalog.RegisterNode{ID: id, Address: "a:1", Incarnation: "i", At: at})
		o.Status.Nodes = append(o.Status.Nodes, member.NodeStatus{NodeInfo: rpc.NodeInfo{ID: id}, State: catalog.NodeActive, Liveness: "alive", Replicas: 3, Leads: 1})
	}
	o.Status.Nodes[1].Liveness = "silent"
	for number := range uint16(3) {
		place.Groups = append(place.Groups, catalog.GroupPlacement{Group: number, Voters: []rpc.NodeID{"d1", "d2", "d3"}, Preferred: "d1", Bootstrap: "d1"})
	}
	apply(place)
	apply(&catalog.FormGroups{Groups: []uint16{0, 1, 2}})
	apply(&catalog.RegisterNode{ID: "d4", Address: "a:4", Incarnation: "i", At: at})
	apply(&catalog.StartRebalance{Planned: 1, At: at})
	apply(&catalog.StartMoves{At: at, Moves: []catalog.MoveStart{{Group: 1, Join: []rpc.NodeID{"d4"}, Leave: "d2", Reason: catalog.ReasonRebalance}}})
	apply(&catalog.GrantLeases{At: at, Grants: []catalog.LeaseGrant{{Group: 2, Node: "d1", Incarnation: "i"}}})
	o.State = state
	o.Status.Groups.Placed = 3
	o.Groups = make([]reconcile.Health, catalog.Groups)
	o.LeaseUntil = make([]time.Time, catalog.Groups)
	o.Groups[0] = reconcile.Health{Leader: "d1", Term: 2, Quorum: true, Applied: 7, Lags: map[rpc.NodeID]uint64{"d1": 0, "d3": 2}}
	o.LeaseUntil[2] = time.Now().Add(time.Hour)
	o.Due = []reconcile.Relocation{{Group: 0, From: "d2", To: "d4", Reason: catalog.ReasonRebalance}}
	return o
}

func request(t *testing.T, plane Plane, method, path, body string) (*http.Response, string) {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	NewHandler(plane, Options{Token: token, Logger: slog.New(slog.DiscardHandler)}).ServeHTTP(w, r)
	answer, err := io.ReadAll(w.Result().Body)
	require.NoError(t, err)
	return w.Result(), string(answer)
}

func TestLooking(t *testing.T) {
	t.Parallel()
	plane := &double{overview: someOverview(t)}
	get := func(path string) map[string]any {
		response, body := request(t, plane, http.MethodGet, Base+path, "")
		require.Equal(t, http.StatusOK, response.StatusCode, body)
		require.Equal(t, "no-store", response.Header.Get("Cache-Control"))
		var answer map[string]any
		require.NoError(t, json.Unmarshal([]byte(body), &answer))
		return answer
	}
	status := get("/status")
	require.Equal(t, map[string]any{"up": 2., "down": 1., "draining": 0., "removed": 0.}, status["nodes"])
	require.Equal(t, []any{1., 2.}, status["groups"].(map[string]any)["no_quorum"])
	require.Equal(t, 1., status["leases"])
	require.Equal(t, false, status["healthy"])
	nodes := get("/nodes")["nodes"].([]any)
	require.Len(t, nodes, 3)
	require.Equal(t, "down", nodes[1].(map[string]any)["state"])
	require.Equal(t, 0., nodes[1].(map[string]any)["leaders"], "one that is down leads nothing")
	groups := get("/groups")["groups"].([]any)
	require.Len(t, groups, catalog.Groups)
	require.Equal(t, map[string]any{"node": "d3", "voter": true, "lag": 2.}, groups[0].(map[string]any)["replicas"].([]any)[2])
	moves := get("/moves")
	require.Equal(t, map[string]any{
		"id": 1., "group": 1., "phase": "join", "reason": "rebalance", "from": "d2", "to": []any{"d4"}, "started_at": "2026-01-02T03:04:05Z",
	}, moves["moves"].([]any)[0])
	require.Equal(t, 2., moves["rebalance"].(map[string]any)["remaining"])
	require.Equal(t, "d1", get("/leases")["leases"].([]any)[2].(map[string]any)["holder"])

	events := get("/events")["events"].([]any)
	require.NotEmpty(t, events)
	last := events[len(events)-1].(map[string]any)
	require.Equal(t, "move_started", last["kind"])
	require.Len(t, get("/events?limit=2")["events"].([]any), 2)
	require.Equal(t, last, get("/events?limit=1")["events"].([]any)[0], "the newest")
	require.Equal(t, 2., get("/events?after=1&limit=1")["events"].([]any)[0].(map[string]any)["id"], "the next one")
	require.Empty(t, get("/events?after=1000")["events"])
}

func TestOperating(t *testing.T) {
	t.Parallel()
	plane := &double{}
	for _, test := range []struct{ method, path, body, asked string }{
		{"POST", "/nodes/d1/drain", "", "drain d1 false"},
		{"POST", "/nodes/d1/drain", `{"dry_run":true}`, "drain d1 true"},
		{"POST", "/nodes/a%2Fb/undrain", "", "undrain a/b"},
		{"POST", "/nodes/d1/weight", `{"weight":250}`, "weigh d1 250"},
		{"DELETE", "/nodes/d1", "", "remove d1"},
		{"POST", "/rebalance", `{"dry_run":true}`, "rebalance true"},
		{"POST", "/rebalance", "", "rebalance false"},
		{"DELETE", "/rebalance", "", "cancel"},
		{"POST", "/groups/7/move", `{"from":"d1","to":"d2"}`, "move 7 d1 d2 false"},
		{"POST", "/groups/7/transfer-leader", `{"to":"d2"}`, "transfer 7 d2"},
		{"DELETE", "/moves/12", "", "abort 12"},
	} {
		plane.asked = nil
		response, body := request(t, plane, test.method, Base+test.path, test.body)
		require.Equal(t, http.StatusOK, response.StatusCode, "%s: %s", test.path, body)
		require.Equal(t, []string{test.asked}, plane.asked)
	}
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		method, path, body, code string
		status                   int
	}{
		{"POST", "/groups/x/move", `{"from":"a","to":"b"}`, "invalid_request", 422},
		{"POST", "/groups/70000/move", `{"from":"a","to":"b"}`, "invalid_request", 422},
		{"POST", "/groups/1/move", `{"from":"a"}`, "invalid_request", 422},
		{"POST", "/groups/1/move", `{"from":"a","to":"b","extra":1}`, "invalid_request", 422},
		{"POST", "/groups/1/move", `{`, "invalid_request", 400},
		{"POST", "/groups/1/move", ``, "invalid_request", 400},
		{"POST", "/nodes/d1/weight", `{"weight":0}`, "invalid_request", 422},
		{"POST", "/nodes/d1/weight", `{"weight":10001}`, "invalid_request", 422},
		{"DELETE", "/moves/-1", "", "invalid_request", 422},
		{"GET", "/events?limit=0", "", "invalid_request", 422},
		{"GET", "/nothing", "", "not_found", 404},
	} {
		plane := &double{}
		response, body := request(t, plane, test.method, Base+test.path, test.body)
		require.Equal(t, test.status, response.StatusCode, "%s: %s", test.path, body)
		var e Error
		require.NoError(t, json.Unmarshal([]byte(body), &e), body)
		require.Equal(t, test.code, e.Code)
		require.NotEmpty(t, e.Message)
		require.Equal(t, "application/json", response.Header.Get("Content-Type"))
		require.Empty(t, plane.asked)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	codes := map[string]bool{}
	for _, r := range refusals {
		require.False(t, codes[r.code], "%s stands for two refusals", r.code)
		codes[r.code] = true
		response, body := request(t, &double{err: fmt.Errorf("drain: %w: d1", r.err)}, http.MethodPost, Base+"/nodes/d1/drain", "")
		require.Equal(t, r.status, response.StatusCode)
		require.Contains(t, body, `"error":"`+r.code+`"`)
		require.Contains(t, body, r.advice[:8])
	}
	for _, test := range []struct {
		err    error
		code   string
		status int
	}{
		{&rpc.NotLeaderError{Leader: "c2", Address: "h:1"}, "not_leader", 503},
		{&rpc.NotLeaderError{}, "control_unavailable", 503},
		{rpc.ErrClosed, "control_unavailable", 503},
		{errors.New("odd"), "internal", 500},
	} {
		response, body := request(t, &double{err: test.err}, http.MethodGet, Base+"/status", "")
		require.Equal(t, test.status, response.StatusCode)
		require.Contains(t, body, `"error":"`+test.code+`"`)
	}
}

func TestWhoIsLetIn(t *testing.T) {
	t.Parallel()
	ask := func(opts Options, peer *mesh.Peer, method string, header ...string) int {
		r := httptest.NewRequest(method, Base+"/rebalance", nil)
		if method == http.MethodGet {
			r = httptest.NewRequest(method, Base+"/status", nil)
		}
		if peer != nil {
			r = r.WithContext(context.WithValue(r.Context(), peerKey{}, *peer))
		}
		for _, value := range header {
			r.Header.Set("Authorization", value)
		}
		opts.Logger = slog.New(slog.DiscardHandler)
		w := httptest.NewRecorder()
		NewHandler(&double{overview: someOverview(t)}, opts).ServeHTTP(w, r)
		return w.Code
	}
	with, without := Options{Token: token}, Options{}
	require.Equal(t, 401, ask(with, nil, "DELETE"))
	require.Equal(t, 401, ask(with, nil, "GET"))
	require.Equal(t, 401, ask(with, nil, "GET", "Bearer "+token+"x"))
	require.Equal(t, 401, ask(with, nil, "GET", token))
	require.Equal(t, 401, ask(without, nil, "GET", "Bearer "))
	require.Equal(t, 200, ask(with, nil, "DELETE", "Bearer "+token))
	require.Equal(t, 200, ask(without, &mesh.Peer{Role: mesh.RoleAdmin}, "DELETE"))
	require.Equal(t, 200, ask(with, &mesh.Peer{Role: mesh.RoleRouter}, "GET"))
	require.Equal(t, 403, ask(with, &mesh.Peer{Role: mesh.RoleRouter}, "DELETE", "Bearer "+token))
}

// What the document promises is what there is.
func TestDocument(t *testing.T) {
	t.Parallel()
	for _, format := range []string{FormatYAML, FormatJSON} {
		one, err := Document(format)
		require.NoError(t, err)
		other, err := Document(format)
		require.NoError(t, err)
		require.Equal(t, string(one), string(other))
		require.Contains(t, string(one), "listNodes")
		require.NotContains(t, string(one), "ErrorModel")
	}
	_, err := Document("odd")
	require.Error(t, err)
}
