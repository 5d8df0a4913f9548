package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/fastpaca/fastpaca/controlplane/admin"
	"github.com/fastpaca/fastpaca/controlplane/catalog"
)

// progressInterval is how often --wait looks how far things are.
const progressInterval = 500 * time.Millisecond

// operateConfig is what verbs that change a cluster can be told.
type operateConfig struct {
	Cluster clusterConfig
	Yes     bool
	Wait    bool
	DryRun  bool
	From    string
	To      string
}

func (c *operateConfig) yesFlag() cli.Flag {
	return &cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask", Destination: &c.Yes}
}

func (c *operateConfig) waitFlag() cli.Flag {
	return &cli.BoolFlag{Name: "wait", Usage: "return when it is over, and show how far it is; it goes on when you interrupt this", Destination: &c.Wait}
}

func (c *operateConfig) dryRunFlag() cli.Flag {
	return &cli.BoolFlag{Name: "dry-run", Usage: "only say what would be done, or why it cannot be", Destination: &c.DryRun}
}

func (c *operateConfig) command(name, arguments, usage, more, example string, names []string, do func(*operator) error, flags ...cli.Flag) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, ArgsUsage: arguments,
		Description: more + "\n\n" + clusterExitCodes + "\n\nExample:\n   " + example,
		Flags:       append(flags, c.Cluster.flags()...),
		Action:      c.Cluster.action(names, &c.Yes, do),
	}
}

func clusterOperateCommands() []*cli.Command {
	return []*cli.Command{
		rebalanceCommand(), drainCommand(), undrainCommand(), removeCommand(), weightCommand(), moveCommand(), transferCommand(), abortCommand(),
	}
}

func rebalanceCommand() *cli.Command {
	c := &operateConfig{}
	var cancel bool
	return c.command("rebalance", "", "even replicas and leaders out over the nodes",
		"Prints the plan and starts it. The control plane carries it out, a few moves at a time, whatever\n"+
			"becomes of this command; called again it shows the one under way. It ends pins of leaders.",
		"fastpaca cluster rebalance --dry-run\n   fastpaca cluster rebalance --yes --wait", nil,
		func(o *operator) error { return c.rebalance(o, cancel) }, c.dryRunFlag(), c.waitFlag(), c.yesFlag(),
		&cli.BoolFlag{Name: "cancel", Usage: "start no more moves of the one under way", Destination: &cancel})
}

func (c *operateConfig) rebalance(o *operator, cancel bool) error {
	if cancel {
		return o.order(http.MethodDelete, "/rebalance", nil, "No more moves are started; those under way finish.")
	}
	var before admin.MoveList
	if err := o.get("/moves", &before); err != nil {
		return err
	}
	if before.Rebalance != nil && !c.DryRun {
		fmt.Fprintf(o.stderr, "A rebalance is under way since %s.\n", clock(before.Rebalance.StartedAt))
		if c.Wait {
			if err := o.waitRebalance(before.Rebalance.Planned); err != nil {
				return err
			}
			return o.print(&admin.Rebalanced{Plan: before.Due}, func() { fmt.Fprintln(o.out, "The rebalance is over.") })
		}
		return exitError{errors.New("a rebalance is under way. --wait follows it, --cancel ends it"), exitRefused}
	}
	var plan admin.Rebalanced
	if err := o.client.Do(o.ctx, http.MethodPost, "/rebalance", map[string]bool{"dry_run": true}, &plan); err != nil {
		return err
	}
	if c.DryRun {
		return o.print(&plan, func() { o.showPlan(plan.Plan) })
	}
	if o.conf.Output != outputJSON {
		o.showPlan(plan.Plan)
	}
	if err := o.confirm(fmt.Sprintf("Move %d replicas?", len(plan.Plan))); err != nil {
		return err
	}
	if err := o.client.Do(o.ctx, http.MethodPost, "/rebalance", nil, &plan); err != nil {
		return err
	}
	if c.Wait {
		if err := o.waitRebalance(len(plan.Plan)); err != nil {
			return err
		}
	}
	return o.print(&plan, func() {
		if c.Wait {
			fmt.Fprintln(o.out, "The rebalance is over.")
		} else {
			fmt.Fprintln(o.out, "Started. `fastpaca cluster rebalance --wait` follows it.")
		}
	})
}

func (o *operator) showPlan(plan []admin.Relocation) {
	if len(plan) == 0 {
		fmt.Fprintln(o.out, "Replicas are even; only leaders may change.")
		return
	}
	o.relocationTable(plan)
	fmt.Fprintf(o.out, "%d moves\n", len(plan))
}

// waitRebalance shows how far a rebalance is until it is over.
func (o *operator) waitRebalance(planned int) error {
	return o.await(func() (left, total int, err error) {
		var moves admin.MoveList
		if err := o.get("/moves", &moves); err != nil || moves.Rebalance == nil {
			return 0, planned, err
		}
		return max(1, moves.Rebalance.Remaining), planned, nil
	})
}

// await shows how far something is until nothing is left. A control plane without
// a leader is waited for.
func (o *operator) await(look func() (left, total int, err error)) error {
	shown := -1
	for {
		left, total, err := look()
		switch {
		case err == nil:
			if total = max(total, left); left != shown || left == 0 {
				o.bar(total-left, total)
				shown = left
			}
			if left == 0 {
				return nil
			}
		case o.ctx.Err() != nil || !transient(err):
			return err
		}
		if !pause(o.ctx, progressInterval) {
			return o.ctx.Err()
		}
	}
}

func transient(err error) bool {
	refused, ok := errors.AsType[*admin.Error](err)
	return ok && refused.GetStatus() == http.StatusServiceUnavailable || errors.Is(err, admin.ErrUnreachable)
}

// barWidth is how many columns a progress bar takes.
const barWidth = 30

// bar draws over its last drawing on a terminal, and prints a line elsewhere.
func (o *operator) bar(done, total int) {
	full := barWidth
	if total > 0 {
		full = barWidth * done / total
	}
	text := make([]rune, barWidth)
	for i := range text {
		if text[i] = '░'; i < full {
			text[i] = '█'
		}
	}
	line := fmt.Sprintf("%s %d of %d", string(text), done, total)
	switch {
	case !isTerminal(o.stderr):
		fmt.Fprintf(o.stderr, "%d of %d\n", done, total)
	case done == total:
		fmt.Fprintf(o.stderr, "\r\x1b[K%s\n", line)
	default:
		fmt.Fprintf(o.stderr, "\r\x1b[K%s", line)
	}
}

// order asks for something that needs no answer but that it was done.
func (o *operator) order(method, path string, in any, said string) error {
	var done admin.Done
	if err := o.client.Do(o.ctx, method, path, in, &done); err != nil {
		return err
	}
	return o.print(&done, func() { fmt.Fprintln(o.out, said) })
}

func nodePath(id string) string { return "/nodes/" + url.PathEscape(id) }

func drainCommand() *cli.Command {
	c := &operateConfig{}
	return c.command("drain", "NODE", "move everything away from a node",
		"Leaders first, then replicas, one group at a time and never below a quorum. The node goes on\n"+
			"serving meanwhile. Afterwards it holds nothing and can be removed.",
		"fastpaca cluster drain d1 --yes --wait && fastpaca cluster remove d1 --yes", []string{"NODE"}, c.drain,
		c.dryRunFlag(), c.waitFlag(), c.yesFlag())
}

func (c *operateConfig) drain(o *operator) error {
	id := o.args[0]
	path := nodePath(id) + "/drain"
	if err := o.client.Do(o.ctx, http.MethodPost, path, map[string]bool{"dry_run": true}, nil); err != nil {
		return err
	}
	replicas, err := o.replicasOn(id)
	if err != nil {
		return err
	}
	if c.DryRun {
		return o.print(&admin.Done{}, func() { fmt.Fprintf(o.out, "Node %s can be drained; %d replicas would move.\n", id, replicas) })
	}
	if err := o.confirm(fmt.Sprintf("Move all %d replicas away from node %s?", replicas, id)); err != nil {
		return err
	}
	if err := o.client.Do(o.ctx, http.MethodPost, path, nil, nil); err != nil {
		return err
	}
	said := fmt.Sprintf("Node %s is being drained.", id)
	if c.Wait {
		err = o.await(func() (int, int, error) {
			left, err := o.replicasOn(id)
			return left, replicas, err
		})
		if err != nil {
			return err
		}
		said = fmt.Sprintf("Node %s is empty.", id)
	}
	return o.print(&admin.Done{Done: true}, func() { fmt.Fprintln(o.out, said) })
}

func (o *operator) replicasOn(id string) (int, error) {
	var list admin.NodeList
	if err := o.get("/nodes", &list); err != nil {
		return 0, err
	}
	for _, n := range list.Nodes {
		if n.ID == id {
			return n.Replicas, nil
		}
	}
	return 0, exitError{fmt.Errorf("no such node: %q", id), exitUnknown}
}

func undrainCommand() *cli.Command {
	c := &operateConfig{}
	return c.command("undrain", "NODE", "let a node take replicas again",
		"Moves that have just begun are taken back, others finish. A rebalance gives it its part again.",
		"fastpaca cluster undrain d1", []string{"NODE"}, func(o *operator) error {
			return o.order(http.MethodPost, nodePath(o.args[0])+"/undrain", nil, fmt.Sprintf("Node %s takes replicas again.", o.args[0]))
		})
}

func removeCommand() *cli.Command {
	c := &operateConfig{}
	return c.command("remove", "NODE", "take an empty node out of the cluster",
		"The node must be drained. It is refused from then on, unless it comes with an empty data directory.",
		"fastpaca cluster remove d1 --yes", []string{"NODE"}, func(o *operator) error {
			if err := o.confirm(fmt.Sprintf("Remove node %s for good?", o.args[0])); err != nil {
				return err
			}
			return o.order(http.MethodDelete, nodePath(o.args[0]), nil, fmt.Sprintf("Node %s is removed. Its process can be stopped.", o.args[0]))
		}, c.yesFlag())
}

func weightCommand() *cli.Command {
	c := &operateConfig{}
	return c.command("weight", "NODE WEIGHT", "say how much of the load a node takes",
		"Every node weighs 100 until it is told otherwise; one of 200 takes twice as much as one of 100.\n"+
			"Leaders follow at once, replicas with the next rebalance. 1 to 10000.",
		"fastpaca cluster weight d4 200 && fastpaca cluster rebalance --yes --wait", []string{"NODE", "WEIGHT"}, func(o *operator) error {
			weight, err := strconv.ParseUint(o.args[1], 10, 32)
			if err != nil || weight < 1 || weight > catalog.MaxWeight {
				return usageError{fmt.Errorf("weight %q: want a number from 1 to %d", o.args[1], catalog.MaxWeight)}
			}
			return o.order(http.MethodPost, nodePath(o.args[0])+"/weight", map[string]uint64{"weight": weight},
				fmt.Sprintf("Node %s weighs %d; `fastpaca cluster rebalance` moves replicas accordingly.", o.args[0], weight))
		})
}

func groupPath(arg, verb string) (string, error) {
	group, err := strconv.ParseUint(arg, 10, 16)
	if err != nil {
		return "", usageError{fmt.Errorf("group %q: want a number", arg)}
	}
	return fmt.Sprintf("/groups/%d/%s", group, verb), nil
}

func moveCommand() *cli.Command {
	c := &operateConfig{}
	return c.command("move", "GROUP --from NODE --to NODE", "move one replica of a group to another node",
		"The newcomer joins without a vote, catches up and votes before the other one leaves.",
		"fastpaca cluster move 17 --from d1 --to d4 --yes --wait", []string{"GROUP"}, c.move,
		&cli.StringFlag{Name: "from", Usage: "`NODE` that gives its replica up", Destination: &c.From},
		&cli.StringFlag{Name: "to", Usage: "`NODE` that gets one", Destination: &c.To},
		c.dryRunFlag(), c.waitFlag(), c.yesFlag())
}

func (c *operateConfig) move(o *operator) error {
	path, err := groupPath(o.args[0], "move")
	if err = errors.Join(err, required("from", c.From), required("to", c.To)); err != nil {
		return usageError{err}
	}
	wish := map[string]any{"from": c.From, "to": c.To, "dry_run": true}
	var moved admin.Moved
	if err := o.client.Do(o.ctx, http.MethodPost, path, wish, &moved); err != nil {
		return err
	}
	if c.DryRun {
		return o.print(&moved, func() { fmt.Fprintln(o.out, "It could be moved.") })
	}
	if err := o.confirm(fmt.Sprintf("Move the replica of group %s from %s to %s?", o.args[0], c.From, c.To)); err != nil {
		return err
	}
	wish["dry_run"] = false
	if err := o.client.Do(o.ctx, http.MethodPost, path, wish, &moved); err != nil {
		return err
	}
	if c.Wait && moved.Move != nil {
		err := o.await(func() (int, int, error) {
			var moves admin.MoveList
			err := o.get("/moves", &moves)
			for _, m := range moves.Moves {
				if m.ID == moved.Move.ID {
					return 1, 1, err
				}
			}
			return 0, 1, err
		})
		if err != nil {
			return err
		}
		return o.print(&moved, func() {
			fmt.Fprintf(o.out, "Move %d is over; `fastpaca cluster groups` shows the result.\n", moved.Move.ID)
		})
	}
	return o.print(&moved, func() {
		if moved.Move != nil {
			fmt.Fprintf(o.out, "Move %d has started.\n", moved.Move.ID)
		}
	})
}

func transferCommand() *cli.Command {
	c := &operateConfig{}
	return c.command("transfer-leader", "GROUP --to NODE", "choose which node leads a group",
		"The choice holds until the next rebalance. The group follows within seconds.",
		"fastpaca cluster transfer-leader 17 --to d2", []string{"GROUP"}, func(o *operator) error {
			path, err := groupPath(o.args[0], "transfer-leader")
			if err = errors.Join(err, required("to", c.To)); err != nil {
				return usageError{err}
			}
			return o.order(http.MethodPost, path, map[string]string{"to": c.To}, fmt.Sprintf("Group %s is to be led by %s.", o.args[0], c.To))
		}, &cli.StringFlag{Name: "to", Usage: "`NODE` that is to lead", Destination: &c.To})
}

func abortCommand() *cli.Command {
	c := &operateConfig{}
	return c.command("abort", "MOVE", "take a move back",
		"The newcomer leaves again. A move of a rebalance ends the rebalance; one of a drain cannot be\n"+
			"aborted, undrain the node instead.",
		"fastpaca cluster abort 12 --yes", []string{"MOVE"}, func(o *operator) error {
			id, err := strconv.ParseUint(o.args[0], 10, 64)
			if err != nil {
				return usageError{fmt.Errorf("move %q: want a number", o.args[0])}
			}
			if err := o.confirm(fmt.Sprintf("Take move %d back?", id)); err != nil {
				return err
			}
			return o.order(http.MethodDelete, fmt.Sprint("/moves/", id), nil, fmt.Sprintf("Move %d is being taken back.", id))
		}, c.yesFlag())
}
