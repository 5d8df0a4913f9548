package console

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"
)

// Cluster tells what the control plane knows.
type Cluster interface {
	// Look decodes into out the answer of the Admin API to GET of a path below
	// its base. The console calls it from one goroutine at a time.
	Look(ctx context.Context, path string, out any) error
}

// Latency tells how long appends took lately, wherever they were measured.
type Latency interface {
	// Recent returns nil, without an error, when nothing is known. The console
	// calls it from one goroutine at a time, and leaves the answer alone.
	Recent(ctx context.Context) (*Recent, error)
}

// Recent is where the time of acknowledged appends went, over a while that has
// just ended.
type Recent struct {
	Seconds   float64 `json:"seconds"`            // how long the while was
	Processes int     `json:"processes"`          // that measured
	LeftOut   int     `json:"left_out,omitempty"` // processes that cannot be added to the others
	Stages    []Stage `json:"stages"`             // in the order of an append, and "total"
}

// Stage is a stage of appends. Times are in seconds; quantiles are 0 where only
// the mean is known.
type Stage struct {
	Name  string  `json:"stage"`
	Count uint64  `json:"count"`
	P50   float64 `json:"p50,omitempty"`
	P99   float64 `json:"p99,omitempty"`
	Mean  float64 `json:"mean"`
}

// Operator carries out what somebody with the cluster's token asks for. Its
// method is called concurrently, at most maxOrders times.
type Operator interface {
	// Order makes a request of the Admin API with the authority of the token, and
	// none besides. It returns the JSON of the answer, ErrToken, ErrForbidden, a
	// *Refusal, or the reason why nobody answered. A nil body is none.
	Order(ctx context.Context, token, method, path string, body []byte) ([]byte, error)
}

var (
	// ErrToken: the token is not the cluster's.
	ErrToken = errors.New("not the cluster's token")
	// ErrForbidden: the cluster does not let this process speak for operators.
	ErrForbidden = errors.New("this process may not speak for operators")
)

// Refusal is the control plane's word why it does not do something. It is made
// for operators, and shown to them only.
type Refusal struct {
	Status  int // of HTTP
	Code    string
	Message string
}

// Error implements error.
func (r *Refusal) Error() string { return r.Code + ": " + r.Message }

// The parts of the Admin API's answers that the page shows. What is not named
// here, addresses above all, does not leave the router.

type overview struct {
	Status status  `json:"status"`
	Nodes  []node  `json:"nodes"`
	Groups []group `json:"groups"`
	moveList
	Leases []lease `json:"leases"`
	Events []event `json:"events"`
	// Appends is nil when nobody knows.
	Appends *Recent `json:"appends,omitempty"`
}

type status struct {
	ClusterID         string `json:"cluster_id"`
	ReplicationFactor int    `json:"replication_factor"`
	Healthy           bool   `json:"healthy"`
	Control           struct {
		Leader  string `json:"leader"`
		Term    uint64 `json:"term"`
		Members []struct {
			ID string `json:"id"`
		} `json:"members"`
	} `json:"control"`
	Groups struct {
		Placed   int      `json:"placed"`
		Formed   int      `json:"formed"`
		Led      int      `json:"led"`
		Short    int      `json:"short"`
		NoQuorum []uint16 `json:"no_quorum"`
	} `json:"groups"`
	Moves struct {
		UnderWay int    `json:"under_way"`
		Due      int    `json:"due"`
		Finished uint64 `json:"finished"`
		Aborted  uint64 `json:"aborted"`
	} `json:"moves"`
	Leases int `json:"leases"`
}

type node struct {
	ID        string     `json:"id"`
	State     string     `json:"state"`
	Alive     bool       `json:"alive"`
	Zone      string     `json:"zone"`
	Version   string     `json:"version"`
	Weight    uint32     `json:"weight"`
	Replicas  int        `json:"replicas"`
	Leaders   int        `json:"leaders"`
	Preferred int        `json:"preferred"`
	Lost      int        `json:"lost"`
	MaxLag    uint64     `json:"max_lag"`
	DiskUsed  uint64     `json:"disk_used"`
	DiskFree  uint64     `json:"disk_free"`
	LastSeen  *time.Time `json:"last_seen,omitempty"`
}

type group struct {
	Group     uint16    `json:"group"`
	Leader    string    `json:"leader"`
	Term      uint64    `json:"term"`
	Preferred string    `json:"preferred"`
	Pinned    bool      `json:"pinned,omitempty"`
	Formed    bool      `json:"formed"`
	Quorum    bool      `json:"quorum"`
	Applied   uint64    `json:"applied"`
	Replicas  []replica `json:"replicas"`
	Move      uint64    `json:"move,omitempty"`
}

type replica struct {
	Node    string  `json:"node"`
	Voter   bool    `json:"voter"`
	Leaving bool    `json:"leaving,omitempty"`
	Lost    bool    `json:"lost,omitempty"`
	Lag     *uint64 `json:"lag,omitempty"`
}

type moveList struct {
	Moves     []move       `json:"moves"`
	Due       []relocation `json:"due"`
	Rebalance *rebalance   `json:"rebalance,omitempty"`
}

type move struct {
	ID        uint64    `json:"id"`
	Group     uint16    `json:"group"`
	Phase     string    `json:"phase"`
	Reason    string    `json:"reason"`
	From      string    `json:"from,omitempty"`
	To        []string  `json:"to,omitempty"`
	StartedAt time.Time `json:"started_at"`
}

type relocation struct {
	Group  uint16 `json:"group"`
	From   string `json:"from"`
	To     string `json:"to"`
	Reason string `json:"reason"`
}

type rebalance struct {
	StartedAt time.Time `json:"started_at"`
	Planned   int       `json:"planned"`
	Remaining int       `json:"remaining"`
}

type lease struct {
	Group     uint16     `json:"group"`
	Epoch     uint64     `json:"epoch"`
	Holder    string     `json:"holder"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

type event struct {
	ID     uint64    `json:"id"`
	At     time.Time `json:"at"`
	Kind   string    `json:"kind"`
	Node   string    `json:"node,omitempty"`
	Group  *uint16   `json:"group,omitempty"`
	Move   uint64    `json:"move,omitempty"`
	Detail string    `json:"detail,omitempty"`
}

// maxEvents is how many of the newest events the page is given.
const maxEvents = 100

// lookAt asks for everything that the page shows. The answers are of moments that
// lie close together.
func lookAt(ctx context.Context, c Cluster) (*overview, error) {
	o := &overview{}
	for _, part := range []struct {
		path string
		out  any
	}{
		{"/status", &o.Status},
		{"/nodes", &struct {
			Nodes *[]node `json:"nodes"`
		}{&o.Nodes}},
		{"/groups", &struct {
			Groups *[]group `json:"groups"`
		}{&o.Groups}},
		{"/moves", &o.moveList},
		{"/leases", &struct {
			Leases *[]lease `json:"leases"`
		}{&o.Leases}},
		{"/events?limit=" + strconv.Itoa(maxEvents), &struct {
			Events *[]event `json:"events"`
		}{&o.Events}},
	} {
		if err := c.Look(ctx, part.path, part.out); err != nil {
			return nil, err
		}
	}
	for i := range o.Events {
		if e := &o.Events[i]; !slices.Contains(toldDetails, e.Kind) {
			e.Detail = ""
		}
	}
	return o, nil
}

// toldDetails are the kinds of events whose details are for everybody. Those of
// nodes are addresses.
var toldDetails = []string{
	"groups_placed", "move_started", "move_finished", "move_aborted", "move_withdrawn",
	"rebalance_started", "rebalance_finished", "rebalance_cancelled",
}
