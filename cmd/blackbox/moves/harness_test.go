package moves

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fastpaca/fastpaca/cmd/blackbox/cluster"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	// bound is how long anything is waited for. It is one against hanging for
	// ever.
	bound = 3 * time.Minute
	// look is how often something that is waited for is looked at.
	look = 50 * time.Millisecond
	// logLines is how much of the end of each process's output a failed test logs.
	logLines = 40
)

func skipShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes long: left out with -short")
	}
}

var failing struct {
	once sync.Once
	path string
	err  error
}

// withFailpoints returns a program that has fail points, built once.
func withFailpoints() (string, error) {
	failing.once.Do(func() { failing.path, failing.err = buildFailpoints() })
	return failing.path, failing.err
}

func buildFailpoints() (string, error) {
	root, err := process.ModuleRoot()
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "fastpaca-blackbox", "fastpaca-failpoints")
	// Replaced in one step, as others may run it.
	fresh := fmt.Sprintf("%s.%d", path, os.Getpid())
	cmd := exec.Command("go", "build", "-tags", "failpoints", "-o", fresh, "./cmd/fastpaca")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build fastpaca with fail points: %w\n%s", err, out)
	}
	return path, os.Rename(fresh, path)
}

// scene is a cluster and its operator.
type scene struct {
	*cluster.Cluster
	t *testing.T
}

// start starts a cluster that is gone when the test ends.
func start(t *testing.T, conf cluster.Config) *scene {
	t.Helper()
	conf.Dir = t.TempDir()
	c, err := cluster.New(conf)
	require.NoError(t, err)
	t.Cleanup(func() {
		c.Close()
		if t.Failed() {
			for _, n := range c.Nodes() {
				lines := strings.Split(n.Output(), "\n")
				t.Logf("end of the output of %s:\n%s", n.Name, strings.Join(lines[max(0, len(lines)-logLines):], "\n"))
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	require.NoError(t, c.Start(ctx))
	return &scene{c, t}
}

// operate runs a verb of `fastpaca cluster` and returns its exit code and what it
// printed.
func (s *scene) operate(args ...string) (int, string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), bound)
	defer cancel()
	code, output, err := s.Run(ctx, append(append([]string{"cluster"}, args...), "--control", s.ControlAddresses())...)
	require.NoError(s.t, err, "%s: %s", args, output)
	return code, output
}

// answered is operate for as long as the control plane has a leader again: on a
// busy machine it may be without one at any time.
func (s *scene) answered(args ...string) (code int, output string) {
	s.t.Helper()
	s.eventually(strings.Join(args, " "), func() error {
		if code, output = s.operate(args...); code == exitUnreachable {
			return errors.New(output)
		}
		return nil
	})
	return code, output
}

// must is answered of what has to succeed, and does no harm when it is asked for
// twice.
func (s *scene) must(args ...string) {
	s.t.Helper()
	code, output := s.answered(args...)
	require.Zero(s.t, code, "%s: %s", args, output)
}

// refused is answered of what has to be refused with a code, in words.
func (s *scene) refused(want int, word string, args ...string) {
	s.t.Helper()
	code, output := s.answered(args...)
	require.Equal(s.t, want, code, "%s: %s", args, output)
	require.Contains(s.t, output, word, args)
}

// ask reads what a verb prints as JSON. It waits while nobody leads the control
// plane, as a script would.
func ask[T any](s *scene, verb ...string) (answer T) {
	s.t.Helper()
	s.eventually(strings.Join(verb, " "), func() error {
		code, output := s.operate(append(verb, "-o", "json")...)
		if code != 0 {
			return fmt.Errorf("exit code %d: %s", code, output)
		}
		return json.Unmarshal([]byte(output), &answer)
	})
	return answer
}

// eventually waits until try returns nil.
func (s *scene) eventually(what string, try func() error) {
	s.t.Helper()
	deadline := time.NewTimer(bound)
	defer deadline.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-time.After(look):
		case <-deadline.C:
			s.t.Fatalf("never: %s: %v", what, err)
		}
	}
}

// add starts another data node and waits until it is up.
func (s *scene) add() *cluster.Node {
	s.t.Helper()
	n, err := s.AddData()
	require.NoError(s.t, err)
	require.NoError(s.t, n.Start())
	s.up(n)
	return n
}

// up waits until data nodes are in session.
func (s *scene) up(nodes ...*cluster.Node) {
	s.t.Helper()
	s.eventually("nodes are up", func() error {
		for _, n := range nodes {
			if node := s.node(n.Name); node.State != "up" {
				return fmt.Errorf("node %s is %q", n.Name, node.State)
			}
		}
		return nil
	})
}

// down waits until a data node that was killed is known to be gone.
func (s *scene) down(n *cluster.Node) {
	s.t.Helper()
	s.eventually(n.Name+" is down", func() error {
		if node := s.node(n.Name); node.State != "down" {
			return fmt.Errorf("it is %q", node.State)
		}
		return nil
	})
}

func (s *scene) node(id string) nodeAnswer {
	s.t.Helper()
	nodes := ask[nodeList](s, "nodes").Nodes
	if at := slices.IndexFunc(nodes, func(n nodeAnswer) bool { return n.ID == id }); at >= 0 {
		return nodes[at]
	}
	return nodeAnswer{}
}

// rest waits until nothing moves, and checks that every group has three voters
// then, with a leader.
func (s *scene) rest() []groupAnswer {
	s.t.Helper()
	var groups []groupAnswer
	s.eventually("everything is at rest", func() error {
		if moves := ask[moveList](s, "moves"); len(moves.Moves) > 0 || len(moves.Due) > 0 || moves.Rebalance != nil {
			return fmt.Errorf("%d moves under way, %d due", len(moves.Moves), len(moves.Due))
		}
		groups = ask[groupList](s, "groups").Groups
		for _, g := range groups {
			if len(g.Replicas) != 3 || g.Leader == "" || !g.Quorum {
				return fmt.Errorf("group %+v", g)
			}
			for _, r := range g.Replicas {
				if !r.Voter || r.Leaving || r.Lost {
					return fmt.Errorf("group %+v", g)
				}
			}
		}
		return nil
	})
	return groups
}

// equal checks that all replicas of every group are the same. All data nodes must
// run.
func (s *scene) equal() {
	s.t.Helper()
	s.eventually("replicas are equal", func() error {
		if code, output := s.operate("verify"); code != 0 {
			return fmt.Errorf("exit code %d: %s", code, output)
		}
		return nil
	})
}

// nodesOf are the nodes that hold a group.
func nodesOf(g groupAnswer) []string {
	var ids []string
	for _, r := range g.Replicas {
		ids = append(ids, r.Node)
	}
	return ids
}
