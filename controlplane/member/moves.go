package member

import (
	"slices"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// moveReplicas takes the step that is due for moves and leaders, if any. What
// the step changes wakes the reconcile loop for the next one.
func (s *Server) moveReplicas(t *tenure, state *catalog.State) error {
	command := t.decide(state, s.cfg.BootstrapExpect)
	if command == nil {
		return nil
	}
	if err := s.take("move replicas", command); err != nil {
		return err
	}
	s.logMoves(command, state)
	return nil
}

// logMoves tells which moves a command has started, aborted or ended. before is
// the state that it was decided from.
func (s *Server) logMoves(command catalog.Command, before *catalog.State) {
	switch c := command.(type) {
	case *catalog.StartMoves:
		after := s.catalog.State()
		for _, start := range c.Moves {
			if move := after.Placed[start.Group].Move; move != nil {
				s.logger.Info("move started", "move", move.ID, "group", start.Group, "reason", move.Reason, "join", move.Join, "leave", move.Leave)
			}
		}
	case *catalog.AdvanceMoves:
		for _, step := range c.Steps {
			move := before.Placed[step.Group].Move
			log := s.logger.With("move", step.Move, "group", step.Group)
			switch {
			case step.From == catalog.PhaseWithdraw:
				log.Info("move withdrawn", "join", move.Join)
			case step.From == catalog.PhaseLeave, step.From == catalog.PhasePromote && move.Leave == "":
				log.Info("move finished", "reason", move.Reason, "join", move.Join, "leave", move.Leave)
			default:
				log.Debug("move goes on", "after", step.From)
			}
		}
	case *catalog.AbortMoves:
		for _, abort := range c.Moves {
			s.logger.Warn("move aborted", "move", abort.Move, "group", abort.Group, "reason", abort.Reason)
		}
	case *catalog.PreferLeaders:
		s.logger.Debug("leaders rebalanced", "groups", len(c.Groups))
	}
}

// health counts groups that need a hand.
type health struct {
	lost     int // formed, and no replica has kept its data
	noQuorum int // formed, and those that have are no majority of the voters
}

// healthOf judges by lost data alone, not by who is alive.
func healthOf(state *catalog.State) health {
	var h health
	for number := range state.Placed {
		group := &state.Placed[number]
		if !group.Formed {
			continue
		}
		intact, voters := 0, 0
		for _, replica := range group.Replicas {
			if replica.Voter {
				voters++
				if state.Intact(replica) {
					intact++
				}
			}
		}
		switch {
		case intact == 0:
			h.lost++
		case intact <= voters/2:
			h.noQuorum++
		}
	}
	return h
}

// watchHealth logs when groups were lost beyond what moves can repair, once per
// change.
func (s *Server) watchHealth(t *tenure, state *catalog.State) {
	now := healthOf(state)
	if now == t.health {
		return
	}
	if now.lost > t.health.lost || now.noQuorum > t.health.noQuorum {
		s.logger.Error("groups have lost their data or their quorum and will not be formed anew",
			"lost", now.lost, "without_quorum", now.noQuorum, "wiped_nodes", wipedNodes(state))
	}
	t.health = now
}

// wipedNodes returns the nodes that are to have replicas whose data they lost.
func wipedNodes(state *catalog.State) []rpc.NodeID {
	var wiped []rpc.NodeID
	for number := range state.Placed {
		for _, replica := range state.Placed[number].Replicas {
			if !state.Intact(replica) && !slices.Contains(wiped, replica.Node) {
				wiped = append(wiped, replica.Node)
			}
		}
	}
	slices.Sort(wiped)
	return wiped
}
