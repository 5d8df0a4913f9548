package admin

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/member"
	"github.com/fastpaca/fastpaca/controlplane/mesh"
	"github.com/fastpaca/fastpaca/controlplane/reconcile"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// Bounds of a server of the API.
const (
	readTimeout  = 10 * time.Second
	writeTimeout = 30 * time.Second
	idleTimeout  = 2 * time.Minute
	maxHeader    = 16 << 10
	maxBody      = 64 << 10
)

// Plane is a member of the control plane as the API needs it; *member.Server is
// one. Its methods return a *rpc.NotLeaderError where it does not lead.
type Plane interface {
	Overview(ctx context.Context) (*member.Overview, error)
	Drain(ctx context.Context, node rpc.NodeID, dryRun bool) error
	Undrain(ctx context.Context, node rpc.NodeID) error
	Remove(ctx context.Context, node rpc.NodeID) error
	SetWeight(ctx context.Context, node rpc.NodeID, weight uint32) error
	Rebalance(ctx context.Context, dryRun bool) ([]reconcile.Relocation, error)
	CancelRebalance(ctx context.Context) error
	Move(ctx context.Context, group uint16, from, to rpc.NodeID, dryRun bool) (*catalog.Move, error)
	TransferLeader(ctx context.Context, group uint16, to rpc.NodeID) error
	AbortMove(ctx context.Context, id uint64) error
}

// Options configure a Handler.
type Options struct {
	// Token lets requests in that do not come over the internal network, as a
	// bearer token. Without one there are none.
	Token mesh.Token
	// Logger receives failures that are nobody's wish. Required.
	Logger *slog.Logger
}

// Handler serves the API. It starts no goroutine.
type Handler struct {
	plane Plane
	opts  Options
	mux   *http.ServeMux
	spec  *huma.OpenAPI
}

// NewHandler returns the API of a member.
func NewHandler(plane Plane, opts Options) *Handler {
	h := &Handler{plane: plane, opts: opts, mux: http.NewServeMux()}
	api := humago.New(h.mux, specification())
	h.register(api)
	h.spec = api.OpenAPI()
	describeInvalid(h.spec)
	h.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, &Error{status: http.StatusNotFound, Code: "not_found", Message: "There is nothing at this path."})
	})
	return h
}

// ServeHTTP answers one request of somebody who may ask.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if refusal := h.admit(r); refusal != nil {
		if refusal.status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Bearer realm="fastpaca admin"`)
		}
		writeError(w, refusal)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	w.Header().Set("Cache-Control", "no-store")
	h.mux.ServeHTTP(plainWriter{w}, r)
}

// plainWriter sends what Huma refuses by itself as the JSON that plainErrors
// makes of it.
type plainWriter struct{ http.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w plainWriter) WriteHeader(status int) {
	if strings.HasPrefix(w.Header().Get("Content-Type"), "application/problem") {
		w.Header().Set("Content-Type", "application/json")
	}
	w.ResponseWriter.WriteHeader(status)
}

// admit returns why a request is not served, or nil. A peer of the internal
// network has proven to belong to the cluster; a router may look only, because
// it faces the public.
func (h *Handler) admit(r *http.Request) *Error {
	if peer, ok := r.Context().Value(peerKey{}).(mesh.Peer); ok {
		if peer.Role == mesh.RoleRouter && r.Method != http.MethodGet && r.Method != http.MethodHead {
			return &Error{status: http.StatusForbidden, Code: "forbidden", Message: "A router may look at the cluster, not change it."}
		}
		return nil
	}
	given, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if h.opts.Token == "" || !bearer || subtle.ConstantTimeCompare([]byte(given), []byte(h.opts.Token)) != 1 {
		return &Error{status: http.StatusUnauthorized, Code: "unauthorized", Message: "This needs the cluster's token as bearer token."}
	}
	return nil
}

type peerKey struct{}

// NewServer returns a server for the API on a listener of the internal network,
// the mesh's for mesh.KindAdmin.
func (h *Handler) NewServer() *http.Server {
	return &http.Server{
		Handler: h, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(h.opts.Logger.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			if peer, ok := mesh.PeerOf(conn); ok {
				return context.WithValue(ctx, peerKey{}, peer)
			}
			return ctx
		},
	}
}

// Error is every failure of the API.
type Error struct {
	Code    string `json:"error" doc:"What went wrong, for programs; it never changes meaning."`
	Message string `json:"message" doc:"What went wrong and what to do, for people."`
	// Leader is where the leader of the control plane is, if it is another one.
	Leader string `json:"leader,omitempty" doc:"The address of the member that can answer, if known."`

	status  int
	headers http.Header
}

// Error implements error.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// GetStatus implements huma.StatusError.
func (e *Error) GetStatus() int { return e.status }

// GetHeaders implements huma.HeadersError.
func (e *Error) GetHeaders() http.Header { return e.headers }

func writeError(w http.ResponseWriter, e *Error) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(e.status)
	_ = json.NewEncoder(w).Encode(e) // the client is gone; there is nobody to tell
}

// refusals are the codes of what the control plane refuses. The first that an
// error is counts.
var refusals = []struct {
	err    error
	status int
	code   string
	advice string
}{
	{catalog.ErrUnknownNode, http.StatusNotFound, "node_not_found", "`fastpaca cluster nodes` lists the nodes."},
	{catalog.ErrUnknownGroup, http.StatusNotFound, "group_not_found", "Groups are numbered from 0 to 255."},
	{catalog.ErrUnknownMove, http.StatusNotFound, "move_not_found", "`fastpaca cluster moves` lists what is under way."},
	{catalog.ErrDrainUnderWay, http.StatusConflict, "drain_under_way", "Wait until it is empty, or undrain it first."},
	{catalog.ErrTooFewNodes, http.StatusConflict, "too_few_nodes", "Add a node first."},
	{catalog.ErrHoldsReplicas, http.StatusConflict, "node_holds_replicas", "Drain it first."},
	{catalog.ErrNotActive, http.StatusConflict, "node_not_active", "Choose another node, or undrain it."},
	{catalog.ErrNoReplica, http.StatusConflict, "no_replica", "`fastpaca cluster groups` shows which nodes hold what."},
	{catalog.ErrHasReplica, http.StatusConflict, "has_replica", "Choose a node without a replica of the group."},
	{catalog.ErrMoving, http.StatusConflict, "group_moving", "Wait until it is over, or abort it."},
	{catalog.ErrRebalancing, http.StatusConflict, "rebalance_under_way", "Wait until it is over, or cancel it."},
	{catalog.ErrRemoved, http.StatusConflict, "node_removed", "It can join again with an empty data directory."},
	{reconcile.ErrNodeDown, http.StatusConflict, "node_down", "Choose a node that is up."},
	{reconcile.ErrUnsafe, http.StatusConflict, "would_lose_quorum", "Let more replicas of the group come up first."},
	{reconcile.ErrTooLate, http.StatusConflict, "too_late", "It finishes by itself; move the replica back afterwards."},
	{reconcile.ErrBelongsToDrain, http.StatusConflict, "belongs_to_drain", "Undrain the node instead."},
	{catalog.ErrStale, http.StatusConflict, "changed_meanwhile", "Look again."},
	{reconcile.ErrNoLeader, http.StatusServiceUnavailable, "group_unavailable", "Try again when the group has a leader."},
	{rpc.ErrWrongCluster, http.StatusServiceUnavailable, "wrong_cluster", "This member is configured for another cluster."},
}

// failure makes the answer of an error of the plane. A member that does not lead
// sends its callers to the one that does.
func (h *Handler) failure(ctx context.Context, path string, err error) error {
	for _, r := range refusals {
		if errors.Is(err, r.err) {
			return &Error{status: r.status, Code: r.code, Message: err.Error() + ". " + r.advice}
		}
	}
	if leader, ok := errors.AsType[*rpc.NotLeaderError](err); ok && leader.Address != "" {
		e := &Error{status: http.StatusServiceUnavailable, Code: "not_leader", Message: err.Error() + ".", Leader: leader.Address}
		if _, internal := ctx.Value(peerKey{}).(mesh.Peer); internal {
			e.status = http.StatusTemporaryRedirect
			e.headers = http.Header{"Location": {"http://" + leader.Address + path}}
		}
		return e
	}
	if errors.Is(err, rpc.ErrUnavailable) || errors.Is(err, rpc.ErrClosed) {
		return &Error{
			status: http.StatusServiceUnavailable, Code: "control_unavailable", headers: http.Header{"Retry-After": {"1"}},
			Message: "The control plane has no leader: " + err.Error() + ". Most of its members must be up; messages are served without it.",
		}
	}
	h.opts.Logger.Error("admin request failed", "error", err)
	return &Error{status: http.StatusInternalServerError, Code: "internal", Message: "The request failed; the log of the member says why."}
}
