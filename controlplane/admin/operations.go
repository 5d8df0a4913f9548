package admin

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fastpaca/fastpaca/controlplane/member"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// Base is in front of the paths of all operations.
const Base = "/admin/v1"

type output[T any] struct{ Body T }

// NodeList answers GET /nodes.
type NodeList struct {
	Nodes []Node `json:"nodes" nullable:"false"`
}

// GroupList answers GET /groups.
type GroupList struct {
	Groups []Group `json:"groups" nullable:"false"`
}

// MoveList answers GET /moves.
type MoveList struct {
	Moves     []Move       `json:"moves" nullable:"false" doc:"Those under way, ascending by id."`
	Due       []Relocation `json:"due" nullable:"false" doc:"Planned and not started yet."`
	Rebalance *Rebalance   `json:"rebalance,omitempty" doc:"The rebalance under way."`
}

// LeaseList answers GET /leases.
type LeaseList struct {
	Leases []Lease `json:"leases" nullable:"false"`
}

// EventList answers GET /events.
type EventList struct {
	Events []Event `json:"events" nullable:"false" doc:"Ascending by id."`
}

// Done answers what needs no other answer.
type Done struct {
	Done bool `json:"done" doc:"False for a dry run."`
}

// Rebalanced answers POST /rebalance.
type Rebalanced struct {
	Started bool         `json:"started"`
	Plan    []Relocation `json:"plan" nullable:"false" doc:"By present knowledge."`
}

// Moved answers POST /groups/{group}/move.
type Moved struct {
	Move *Move `json:"move,omitempty" doc:"Absent for a dry run, and when it is over already."`
}

type (
	nodeInput struct {
		Node string `path:"node" maxLength:"128"`
	}
	dryRunBody struct {
		DryRun bool `json:"dry_run,omitempty" doc:"Only say whether it could be done, or what would be."`
	}
	drainInput struct {
		Node string      `path:"node" maxLength:"128"`
		Body *dryRunBody `required:"false"`
	}
	rebalanceInput struct {
		Body *dryRunBody `required:"false"`
	}
	moveInput struct {
		Group int `path:"group" minimum:"0" maximum:"65535"`
		Body  struct {
			From   string `json:"from" minLength:"1" maxLength:"128"`
			To     string `json:"to" minLength:"1" maxLength:"128"`
			DryRun bool   `json:"dry_run,omitempty"`
		}
	}
	transferInput struct {
		Group int `path:"group" minimum:"0" maximum:"65535"`
		Body  struct {
			To string `json:"to" minLength:"1" maxLength:"128"`
		}
	}
	weightInput struct {
		Node string `path:"node" maxLength:"128"`
		Body struct {
			Weight uint32 `json:"weight" minimum:"1" maximum:"10000" doc:"How much of the load it takes, beside the weights of the others."`
		}
	}
	abortInput struct {
		Move uint64 `path:"move"`
	}
	eventsInput struct {
		After uint64 `query:"after" doc:"Only events with a higher id."`
		Limit int    `query:"limit" default:"100" minimum:"1" maximum:"1024" doc:"The newest, or with after the oldest of those."`
	}
)

// register declares all operations.
func (h *Handler) register(api huma.API) {
	look(h, api, "getStatus", "/status", "The cluster on one screen", statusOf)
	look(h, api, "listNodes", "/nodes", "Data nodes", func(o *member.Overview) *NodeList { return &NodeList{nodesOf(o)} })
	look(h, api, "listGroups", "/groups", "Groups and their replicas", func(o *member.Overview) *GroupList { return &GroupList{groupsOf(o)} })
	look(h, api, "listMoves", "/moves", "Moves under way and due", func(o *member.Overview) *MoveList {
		return &MoveList{movesOf(o), relocationsOf(o.Due), rebalanceOf(o)}
	})
	look(h, api, "listLeases", "/leases", "Archiver leases", func(o *member.Overview) *LeaseList { return &LeaseList{leasesOf(o)} })
	handle(h, api, operation("listEvents", http.MethodGet, "/events", "What happened", ""), func(ctx context.Context, in *eventsInput) (*EventList, error) {
		o, err := h.plane.Overview(ctx)
		if err != nil {
			return nil, err
		}
		return &EventList{eventsOf(o, in.After, in.Limit)}, nil
	})
	h.registerNodes(api)
	h.registerMoves(api)
}

func (h *Handler) registerNodes(api huma.API) {
	handle(h, api, operation("drainNode", http.MethodPost, "/nodes/{node}/drain", "Move everything away from a node",
		"Returns when it has been ordered; moves do the rest. Draining a node that drains changes nothing."),
		func(ctx context.Context, in *drainInput) (*Done, error) {
			dryRun := in.Body != nil && in.Body.DryRun
			return &Done{!dryRun}, h.plane.Drain(ctx, rpc.NodeID(in.Node), dryRun)
		})
	handle(h, api, operation("undrainNode", http.MethodPost, "/nodes/{node}/undrain", "Let a node take replicas again",
		"Moves that have just begun are taken back, others finish."),
		func(ctx context.Context, in *nodeInput) (*Done, error) {
			return &Done{true}, h.plane.Undrain(ctx, rpc.NodeID(in.Node))
		})
	handle(h, api, operation("weighNode", http.MethodPost, "/nodes/{node}/weight", "Say how much of the load a node takes",
		"Every node weighs 100 until it is told otherwise. Leaders follow at once, replicas with the next rebalance."),
		func(ctx context.Context, in *weightInput) (*Done, error) {
			return &Done{true}, h.plane.SetWeight(ctx, rpc.NodeID(in.Node), in.Body.Weight)
		})
	handle(h, api, operation("removeNode", http.MethodDelete, "/nodes/{node}", "Take an empty node out of the cluster",
		"It can join again with another data directory only."),
		func(ctx context.Context, in *nodeInput) (*Done, error) {
			return &Done{true}, h.plane.Remove(ctx, rpc.NodeID(in.Node))
		})
}

func (h *Handler) registerMoves(api huma.API) {
	handle(h, api, operation("rebalance", http.MethodPost, "/rebalance", "Even replicas and leaders out",
		"Starts it; it goes on whoever leads the control plane, until nothing is left to do. It ends the pins of leaders."),
		func(ctx context.Context, in *rebalanceInput) (*Rebalanced, error) {
			dryRun := in.Body != nil && in.Body.DryRun
			plan, err := h.plane.Rebalance(ctx, dryRun)
			return &Rebalanced{!dryRun, relocationsOf(plan)}, err
		})
	handle(h, api, operation("cancelRebalance", http.MethodDelete, "/rebalance", "Start no more moves of a rebalance",
		"Moves under way finish. Without a rebalance it changes nothing."),
		func(ctx context.Context, _ *struct{}) (*Done, error) {
			return &Done{true}, h.plane.CancelRebalance(ctx)
		})
	handle(h, api, operation("moveReplica", http.MethodPost, "/groups/{group}/move", "Move a replica of a group to another node", ""),
		func(ctx context.Context, in *moveInput) (*Moved, error) {
			m, err := h.plane.Move(ctx, uint16(in.Group), rpc.NodeID(in.Body.From), rpc.NodeID(in.Body.To), in.Body.DryRun)
			if err != nil || m == nil {
				return &Moved{}, err
			}
			view := moveOf(uint16(in.Group), m)
			return &Moved{&view}, nil
		})
	handle(h, api, operation("transferLeader", http.MethodPost, "/groups/{group}/transfer-leader", "Choose who leads a group",
		"The choice holds until the next rebalance, or until the node gives up its replica. The group follows within seconds."),
		func(ctx context.Context, in *transferInput) (*Done, error) {
			return &Done{true}, h.plane.TransferLeader(ctx, uint16(in.Group), rpc.NodeID(in.Body.To))
		})
	handle(h, api, operation("abortMove", http.MethodDelete, "/moves/{move}", "Take a move back",
		"The newcomer leaves again. A move of a rebalance ends the rebalance."),
		func(ctx context.Context, in *abortInput) (*Done, error) {
			return &Done{true}, h.plane.AbortMove(ctx, in.Move)
		})
}

// look registers an operation that shows a part of the overview.
func look[T any](h *Handler, api huma.API, id, path, summary string, show func(*member.Overview) *T) {
	handle(h, api, operation(id, http.MethodGet, path, summary, ""), func(ctx context.Context, _ *struct{}) (*T, error) {
		o, err := h.plane.Overview(ctx)
		if err != nil {
			return nil, err
		}
		return show(o), nil
	})
}

// handle registers an operation. What it fails with becomes an Error.
func handle[I, O any](h *Handler, api huma.API, op huma.Operation, serve func(context.Context, *I) (*O, error)) {
	describeFailures(api, &op)
	huma.Register(api, op, func(ctx context.Context, in *I) (*output[*O], error) {
		out, err := serve(ctx, in)
		if err != nil {
			return nil, h.failure(ctx, pathOf(ctx), err)
		}
		return &output[*O]{out}, nil
	})
}

func operation(id, method, path, summary, description string) huma.Operation {
	tag := "look"
	if method != http.MethodGet {
		tag = "operate"
	}
	return huma.Operation{
		OperationID: id, Method: method, Path: Base + path, Summary: summary, Description: description, Tags: []string{tag},
		Middlewares: huma.Middlewares{rememberPath}, Security: []map[string][]string{{"token": {}}},
	}
}

type pathKey struct{}

// rememberPath keeps what was asked for, for a redirect.
func rememberPath(ctx huma.Context, next func(huma.Context)) {
	u := ctx.URL()
	next(huma.WithValue(ctx, pathKey{}, u.RequestURI()))
}

func pathOf(ctx context.Context) string {
	path, _ := ctx.Value(pathKey{}).(string)
	return path
}

// describeFailures adds the answers of failures to the document, one per status.
func describeFailures(api huma.API, op *huma.Operation) {
	codes := map[int][]string{
		http.StatusUnauthorized:       {"unauthorized"},
		http.StatusServiceUnavailable: {"control_unavailable", "not_leader"},
	}
	if op.Method != http.MethodGet {
		codes[http.StatusForbidden] = []string{"forbidden"}
		codes[http.StatusUnprocessableEntity] = []string{"invalid_request"}
		for _, r := range refusals {
			if !slices.Contains(codes[r.status], r.code) {
				codes[r.status] = append(codes[r.status], r.code)
			}
		}
	}
	schema := api.OpenAPI().Components.Schemas.Schema(errorType, true, "")
	op.Responses = make(map[string]*huma.Response)
	for _, status := range slices.SortedFunc(maps.Keys(codes), cmp.Compare[int]) {
		op.Responses[strconv.Itoa(status)] = &huma.Response{
			Description: http.StatusText(status) + ": `" + strings.Join(codes[status], "`, `") + "`.",
			Content:     map[string]*huma.MediaType{"application/json": {Schema: schema}},
		}
	}
}

var _ Plane = (*member.Server)(nil)
