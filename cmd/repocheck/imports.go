package main

import "fmt"

// confined are packages that only some directories may import.
var confined = []struct {
	packages []string // with everything below them
	in       []string // the trees that may
	reason   string
}{
	{
		packages: []string{"github.com/hashicorp/raft"},
		in:       []string{"dataplane/group", "dataplane/raftlog", "dataplane/transport", "controlplane/consensus", "controlplane/mesh"},
		reason:   "Raft is run in few places, so that its traps are handled in few places and it could be replaced behind them",
	},
	{
		packages: []string{"github.com/hashicorp/raft-boltdb", "go.etcd.io/bbolt"},
		in:       []string{"controlplane/consensus"},
		reason:   "a file per Raft group is right where there is one group; data nodes keep everything in one Pebble",
	},
	{
		packages: []string{"github.com/cockroachdb/pebble"},
		in:       []string{"dataplane/group", "dataplane/node", "dataplane/raftlog", "dataplane/state", "dataplane/storage"},
		reason:   "the storage engine stays behind the border of the data plane",
	},
	{
		packages: []string{"github.com/jackc/pgx"},
		in:       []string{"dataplane/archive", "cmd/fastpaca-bench"},
		reason:   "Postgres is the archive's business; nothing else may come to depend on it being there",
	},
	{
		packages: []string{"github.com/danielgtaylor/huma"},
		in:       []string{"router/api", "controlplane/admin"},
		reason:   "HTTP operations are described where they are served; nothing behind them knows HTTP",
	},
	{
		packages: []string{"github.com/urfave/cli"},
		in:       []string{"cmd"},
		reason:   "flags are parsed by commands; packages take configuration as values",
	},
	{
		packages: []string{"github.com/stretchr/testify/assert"},
		reason:   "require stops a test where it failed; assert lets it go on with what is known to be wrong",
	},
	{
		packages: []string{"github.com/pkg/errors", "golang.org/x/exp", "io/ioutil"},
		reason:   "the standard library has it",
	},
}

// layers say which of this module's directories a tree may import.
var layers = []struct {
	tree string
	of   string   // imports of this tree
	only []string // must be of these trees
	why  string
}{
	{"router", "dataplane", []string{"dataplane/rpc"}, "a router speaks to data nodes over the border, in one process as over a network"},
	{"router", "controlplane", []string{"controlplane/rpc"}, "a router speaks to the control plane over the border"},
	{"dataplane", "controlplane", []string{"controlplane/rpc"}, "a data node speaks to the control plane over the border"},
	{"dataplane", "router", nil, "the data plane does not know who asks"},
	{"controlplane", "dataplane", []string{"dataplane/rpc", "dataplane/raftslog"}, "the control plane knows groups by number and nodes by report, not how they work; both planes tame Raft's log alike"},
	{"controlplane", "router", nil, "the control plane does not know who asks"},
	{"dataplane", "sdk", nil, "the server does not call itself as a client"},
	{"controlplane", "sdk", nil, "the server does not call itself as a client"},
	{"router", "sdk", nil, "the server does not call itself as a client"},
	{"sdk", "", []string{"sdk"}, "a client is a module of its own: it knows the contract and nothing of the server"},
	{"cmd/blackbox", "", []string{"cmd/blackbox"}, "a suite that shares code with the server shares its mistakes"},
	{"cmd/fastpaca-bench", "", []string{"cmd/blackbox", "cmd/fastpaca-bench"}, "what measures whole processes needs nothing of their insides"},
	{"cmd/repocheck", "", []string{"cmd/repocheck"}, "the checker must build when what it checks does not"},
}

// confinement makes a rule of each entry of confined.
func confinement() []rule {
	var out []rule
	for _, c := range confined {
		out = append(out, rule{
			name:   "imports of " + c.packages[0],
			reason: c.reason,
			check: func(repo repository) []violation {
				return importsWhere(repo, func(s source, i imported) bool {
					return inTrees(i.path, c.packages) && !inTrees(s.dir, c.in)
				})
			},
		})
	}
	return out
}

// layering makes a rule of each entry of layers.
func layering() []rule {
	var out []rule
	for _, l := range layers {
		name := fmt.Sprintf("imports from %s", l.tree)
		if l.of != "" {
			name += " of " + l.of
		}
		out = append(out, rule{
			name:   name,
			reason: l.why,
			check: func(repo repository) []violation {
				return importsWhere(repo, func(s source, i imported) bool {
					dir, local := i.local()
					return local && inTree(s.dir, l.tree) && (l.of == "" || inTree(dir, l.of)) && !inTrees(dir, l.only)
				})
			},
		})
	}
	return out
}

// commandsAreLeaves keeps commands at the edge.
var commandsAreLeaves = rule{
	name:   "imports of cmd",
	reason: "a command is the outermost layer: what others need is a package of a plane",
	check: func(repo repository) []violation {
		return importsWhere(repo, func(s source, i imported) bool {
			dir, local := i.local()
			return local && inTree(dir, "cmd") && !inTree(s.dir, "cmd")
		})
	},
}

func importsWhere(repo repository, wrong func(source, imported) bool) []violation {
	var out []violation
	for _, s := range repo.code {
		for _, i := range s.imports() {
			if wrong(s, i) {
				out = append(out, violation{s.path, i.line, "imports " + i.path})
			}
		}
	}
	return out
}
