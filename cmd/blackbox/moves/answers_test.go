package moves

// What the verbs of `fastpaca cluster` print with -o json, as far as the suite
// reads it.

type nodeList struct {
	Nodes []nodeAnswer `json:"nodes"`
}

type nodeAnswer struct {
	ID       string `json:"id"`
	State    string `json:"state"`
	Weight   int    `json:"weight"`
	Replicas int    `json:"replicas"`
	Leaders  int    `json:"leaders"`
}

type groupList struct {
	Groups []groupAnswer `json:"groups"`
}

type groupAnswer struct {
	Leader   string          `json:"leader"`
	Quorum   bool            `json:"quorum"`
	Replicas []replicaAnswer `json:"replicas"`
}

type replicaAnswer struct {
	Node    string `json:"node"`
	Voter   bool   `json:"voter"`
	Leaving bool   `json:"leaving"`
	Lost    bool   `json:"lost"`
}

type moveList struct {
	Moves     []moveAnswer `json:"moves"`
	Due       []relocation `json:"due"`
	Rebalance *struct{}    `json:"rebalance"`
}

type moveAnswer struct {
	ID uint64 `json:"id"`
}

type relocation struct {
	Group int    `json:"group"`
	From  string `json:"from"`
	To    string `json:"to"`
}

type movedAnswer struct {
	Move moveAnswer `json:"move"`
}

type rebalancedAnswer struct {
	Started bool         `json:"started"`
	Plan    []relocation `json:"plan"`
}

type clusterStatus struct {
	Control struct {
		Leader string `json:"leader"`
	} `json:"control"`
	Moves moveCounts `json:"moves"`
}

type moveCounts struct {
	UnderWay int `json:"under_way"`
	Due      int `json:"due"`
	Finished int `json:"finished"`
	Aborted  int `json:"aborted"`
}

type eventList struct {
	Events []struct {
		ID   uint64 `json:"id"`
		Kind string `json:"kind"`
	} `json:"events"`
}
