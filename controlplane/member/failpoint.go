//go:build failpoints && unix

package member

import (
	"os"
	"path/filepath"
	"syscall"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
)

// failpointsEnv names a directory. A member that reaches a fail point removes the
// file there that has the point's name, if there is one, and kills itself: a
// point that was armed once kills once, whichever member reaches it first.
//
// Only programs built with the tag failpoints know any of this.
const failpointsEnv = "FASTPACA_FAILPOINTS"

// Where a fail point lies: before a step is proposed, while it is on its way, so
// that it may be committed or not, and after it was committed.
const (
	beforeStep = "before"
	amidStep   = "amid"
	afterStep  = "after"
)

// reached kills this process if a fail point is armed for the command.
func reached(position string, command catalog.Command) {
	dir := os.Getenv(failpointsEnv)
	if dir == "" {
		return
	}
	for _, step := range stepsOf(command) {
		if os.Remove(filepath.Join(dir, position+"-"+step)) != nil {
			continue
		}
		if position == amidStep {
			go die()
			return
		}
		die()
	}
}

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // of oneself it does not fail
	select {}
}

// stepsOf names the steps that a command takes.
func stepsOf(command catalog.Command) []string {
	switch c := command.(type) {
	case *catalog.StartMoves:
		return []string{"start"}
	case *catalog.AbortMoves:
		return []string{"abort"}
	case *catalog.AdvanceMoves:
		var steps []string
		for _, step := range c.Steps {
			steps = append(steps, map[catalog.MovePhase]string{
				catalog.PhaseJoin: "promote", catalog.PhasePromote: "leave", catalog.PhaseLeave: "finish", catalog.PhaseWithdraw: "withdrawn",
			}[step.From])
		}
		return steps
	case *catalog.StartRebalance:
		return []string{"rebalance"}
	case *catalog.EndRebalance:
		return []string{"rebalanced"}
	case *catalog.SetNodeState:
		return []string{"node"}
	case *catalog.RemoveNode:
		return []string{"remove"}
	}
	return nil
}
