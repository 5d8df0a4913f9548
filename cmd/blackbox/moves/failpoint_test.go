package moves

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/cluster"
)

// points arms fail points of the control members of a cluster.
type points struct {
	*scene
	dir string
}

// startWithPoints starts a cluster of three control members with fail points and
// so many data nodes.
func startWithPoints(t *testing.T, data int) *points {
	t.Helper()
	binary, err := withFailpoints()
	require.NoError(t, err)
	dir := t.TempDir()
	return &points{start(t, cluster.Config{Binary: binary, Control: 3, Data: data, Env: []string{"FASTPACA_FAILPOINTS=" + dir}}), dir}
}

func (p *points) arm(point string) {
	require.NoError(p.t, os.WriteFile(filepath.Join(p.dir, point), nil, 0o600))
}

// fired waits until a member has killed itself at a point, and starts it again.
func (p *points) fired(point string) {
	p.t.Helper()
	p.eventually(point+" is reached", func() error {
		if _, err := os.Stat(filepath.Join(p.dir, point)); !errors.Is(err, fs.ErrNotExist) {
			return errors.New("nobody was there yet")
		}
		for _, n := range p.Control {
			if !n.Running() {
				return n.Restart()
			}
		}
		return errors.New("all control members run")
	})
}

// movable returns a move that can be made: a group, who holds it and who does not.
func (p *points) movable(groups []groupAnswer, number int) (group, from, to string) {
	g := groups[number]
	for _, n := range p.Data {
		if !slices.Contains(nodesOf(g), n.Name) {
			to = n.Name
		}
	}
	return strconv.Itoa(number), g.Leader, to // the leader, so that leadership moves as well
}

// TestControlLeaderDiesAtEveryStep kills the leader of the control plane before,
// amid and after every command of which a move consists. Those that follow it
// finish the move, or have never heard of it; and nobody who appends sees more
// than an error that a retry heals.
func TestControlLeaderDiesAtEveryStep(t *testing.T) {
	positions := []string{"before", "amid", "after"}
	if testing.Short() {
		positions = []string{"after"}
	}
	p := startWithPoints(t, 4)
	l := startLoad(t, p.scene)
	number := 0
	for _, position := range positions {
		for _, step := range []string{"start", "promote", "leave", "finish"} {
			point := position + "-" + step
			number += 7
			group, from, to := p.movable(p.rest(), number)
			finished := ask[clusterStatus](p.scene, "status").Moves.Finished
			p.arm(point)
			if step == "start" {
				_, _ = p.operate("move", group, "--from", from, "--to", to, "--yes") // it is not answered
			} else {
				p.order(group, from, to)
			}
			p.fired(point)
			groups := p.rest()
			moved := slices.Contains(nodesOf(groups[number]), to)
			status := ask[clusterStatus](p.scene, "status")
			switch {
			case point == "before-start":
				require.False(t, moved, "%s: a move that was never begun", point)
			case point != "amid-start":
				require.True(t, moved, "%s: the move was given up", point)
			}
			if moved {
				require.NotContains(t, nodesOf(groups[number]), from)
				require.Equal(t, finished+1, status.Moves.Finished, point)
			}
			require.Zero(t, status.Moves.Aborted, point)
		}
	}
	l.finish(t)
	p.equal()
	require.NoError(t, p.CheckRunning())
}

// TestControlLeaderDiesWhileAMoveIsTakenBack does the same to a move whose
// newcomer cannot arrive, as its process is stopped.
func TestControlLeaderDiesWhileAMoveIsTakenBack(t *testing.T) {
	points := []string{"after-abort", "before-withdrawn"}
	if !testing.Short() {
		points = []string{"before-abort", "amid-abort", "after-abort", "before-withdrawn", "amid-withdrawn", "after-withdrawn"}
	}
	p := startWithPoints(t, 4)
	l := startLoad(t, p.scene)
	for i, point := range points {
		number := 7 * (i + 1)
		group, from, to := p.movable(p.rest(), number)
		stuck := p.Data[slices.IndexFunc(p.Data, func(n *cluster.Node) bool { return n.Name == to })]
		move := p.stuckMove(group, from, stuck)
		p.arm(point)
		// Only a leader who lives is told, and each only once: what was ordered is
		// carried on by whoever follows.
		_, _ = p.operate("abort", strconv.FormatUint(move, 10), "--yes")
		p.fired(point)
		p.eventually("the move is taken back", func() error {
			if code, output := p.operate("abort", strconv.FormatUint(move, 10), "--yes"); code != 0 && code != exitUnknown {
				return fmt.Errorf("exit code %d: %s", code, output)
			}
			return nil
		})
		require.NoError(t, stuck.Continue())
		groups := p.rest()
		require.Contains(t, nodesOf(groups[number]), from, point)
		require.NotContains(t, nodesOf(groups[number]), to, point)
	}
	l.finish(t)
	p.up(p.Data...)
	p.equal()
	require.NoError(t, p.CheckRunning())
}

// order starts a move. That it was started already by an order that got no answer
// is as good.
func (p *points) order(group, from, to string) {
	p.t.Helper()
	code, output := p.answered("move", group, "--from", from, "--to", to, "--yes")
	require.Contains(p.t, []int{0, exitRefused}, code, output)
}

// stuckMove starts a move to a node that is stopped before it can take anything,
// and returns the move's id.
func (p *points) stuckMove(group, from string, to *cluster.Node) (id uint64) {
	p.t.Helper()
	p.eventually("a move that gets stuck", func() error {
		require.NoError(p.t, to.Pause())
		code, output := p.operate("move", group, "--from", from, "--to", to.Name, "--yes", "-o", "json")
		if code != 0 { // it may have been silent for too long by now
			require.NoError(p.t, to.Continue())
			p.up(to)
			return fmt.Errorf("exit code %d: %s", code, output)
		}
		var answer movedAnswer
		require.NoError(p.t, json.Unmarshal([]byte(output), &answer), output)
		id = answer.Move.ID
		return nil
	})
	return id
}
