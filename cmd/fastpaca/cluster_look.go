package main

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/fastpaca/fastpaca/controlplane/admin"
)

// watchInterval is how often --watch looks again.
const watchInterval = time.Second

func clusterLookCommands() []*cli.Command {
	return []*cli.Command{
		clusterLookCommand("status", "the cluster on one screen", "", "   fastpaca cluster status --control 127.0.0.1:7401", (*operator).status),
		clusterLookCommand("nodes", "list data nodes", "", "   fastpaca cluster nodes -o json", (*operator).nodes),
		clusterLookCommand("groups", "list groups and their replicas", "", "   fastpaca cluster groups", (*operator).groups),
		clusterLookCommand("moves", "list moves of replicas, under way and due", "", "   fastpaca cluster moves --watch", (*operator).moves),
		clusterLookCommand("leases", "list archiver leases", "", "   fastpaca cluster leases", (*operator).leases),
		clusterEventsCommand(),
	}
}

func clusterLookCommand(name, usage, more, example string, look func(*operator) error) *cli.Command {
	var conf clusterConfig
	var watch bool
	return &cli.Command{
		Name: name, Usage: usage,
		Description: more + clusterExitCodes + "\n\nExample:\n" + example,
		Flags: append(conf.flags(), &cli.BoolFlag{Name: "watch", Aliases: []string{"w"},
			Usage: "show it again every second", Destination: &watch}),
		Action: conf.action(nil, nil, func(o *operator) error {
			if !watch {
				return look(o)
			}
			return o.watch(func() error {
				if isTerminal(o.out) {
					fmt.Fprint(o.out, "\x1b[H\x1b[2J")
				}
				return look(o)
			})
		}),
	}
}

// watch looks again and again until it is interrupted. A control plane without a
// leader is waited for, and said once.
func (o *operator) watch(look func() error) error {
	said := false
	for {
		switch err := look(); {
		case err == nil:
			said = false
		case o.ctx.Err() != nil:
			return nil
		case !transient(err):
			return err
		case !said:
			fmt.Fprintf(o.stderr, "%v; looking again\n", err)
			said = true
		}
		if !pause(o.ctx, watchInterval) {
			return nil
		}
	}
}

func (o *operator) get(path string, out any) error {
	return o.client.Do(o.ctx, http.MethodGet, path, nil, out)
}

// table writes rows in columns.
func (o *operator) table(header string, rows func(row func(...any))) {
	w := tabwriter.NewWriter(o.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, header)
	rows(func(cells ...any) {
		for i, cell := range cells {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, cell)
		}
		fmt.Fprintln(w)
	})
	_ = w.Flush() // errors of the output show at the next write
}

// statusAnswer is what `cluster status -o json` prints.
type statusAnswer struct {
	admin.Status
	NodeList []admin.Node `json:"node_list"`
	MoveList []admin.Move `json:"move_list"`
	// AppendLatency is left out when no control member knows it.
	AppendLatency *latencyAnswer `json:"append_latency,omitempty"`
}

func (o *operator) status() error {
	var answer statusAnswer
	var nodes admin.NodeList
	var moves admin.MoveList
	for path, out := range map[string]any{"/status": &answer.Status, "/nodes": &nodes, "/moves": &moves} {
		if err := o.get(path, out); err != nil {
			return err
		}
	}
	answer.NodeList, answer.MoveList, answer.AppendLatency = nodes.Nodes, moves.Moves, o.latency()
	return o.print(&answer, func() {
		s := &answer.Status
		health := "healthy"
		if !s.Healthy {
			health = "needs attention"
		}
		fmt.Fprintf(o.out, "Cluster    %s, %s\n", s.ClusterID, health)
		fmt.Fprintf(o.out, "Control    %s\n", members(s))
		fmt.Fprintf(o.out, "Groups     %d placed, %d led, %d short of %d replicas, %d without quorum%s\n",
			s.Groups.Placed, s.Groups.Led, s.Groups.Short, s.ReplicationFactor, len(s.Groups.NoQuorum), numbers(s.Groups.NoQuorum))
		fmt.Fprintf(o.out, "Moves      %d under way, %d due, %d finished, %d aborted\n", s.Moves.UnderWay, s.Moves.Due, s.Moves.Finished, s.Moves.Aborted)
		if r := moves.Rebalance; r != nil {
			fmt.Fprintf(o.out, "Rebalance  since %s, %d of %d to go\n", clock(r.StartedAt), r.Remaining, r.Planned)
		}
		fmt.Fprintf(o.out, "Leases     %d of %d groups are being archived\n", s.Leases, s.Groups.Placed)
		o.latencyTable(answer.AppendLatency)
		fmt.Fprintln(o.out)
		o.nodeTable(nodes.Nodes)
		if len(moves.Moves) > 0 {
			fmt.Fprintln(o.out)
			o.moveTable(moves.Moves)
		}
	})
}

func members(s *admin.Status) string {
	var names []string
	for _, m := range s.Control.Members {
		name := m.ID
		if m.ID == s.Control.Leader {
			name += " (leads)"
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// numbers lists a few groups.
func numbers(groups []uint16) string {
	if len(groups) == 0 {
		return ""
	}
	text := fmt.Sprint(groups[:min(len(groups), maxNamed)])
	if len(groups) > maxNamed {
		text += "…"
	}
	return " " + text
}

func (o *operator) nodes() error {
	var answer admin.NodeList
	if err := o.get("/nodes", &answer); err != nil {
		return err
	}
	return o.print(&answer, func() { o.nodeTable(answer.Nodes) })
}

func (o *operator) nodeTable(nodes []admin.Node) {
	o.table("NODE\tSTATE\tZONE\tADDRESS\tWEIGHT\tREPLICAS\tLEADERS\tLAG\tDISK USED\tDISK FREE\tLAST SEEN", func(row func(...any)) {
		for i := range nodes {
			n := &nodes[i]
			seen := "-"
			if n.LastSeen != nil {
				seen = fmt.Sprint(max(0, time.Since(*n.LastSeen).Round(time.Second)), " ago")
			}
			state := n.State
			if n.State == "draining" && !n.Alive {
				state += ", down"
			}
			row(n.ID, state, cmp.Or(n.Zone, "-"), n.Address, n.Weight, n.Replicas, n.Leaders, n.MaxLag, bytesText(n.DiskUsed), bytesText(n.DiskFree), seen)
		}
	})
}

// bytesText is a number of bytes as people say it.
func bytesText(n uint64) string {
	const units = "KMGTPE"
	switch {
	case n == 0:
		return "-"
	case n < 1024:
		return fmt.Sprint(n, " B")
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}

func (o *operator) groups() error {
	var answer admin.GroupList
	if err := o.get("/groups", &answer); err != nil {
		return err
	}
	return o.print(&answer, func() {
		o.table("GROUP\tLEADER\tTERM\tAPPLIED\tQUORUM\tREPLICAS", func(row func(...any)) {
			for i := range answer.Groups {
				g := &answer.Groups[i]
				quorum := "yes"
				if !g.Quorum {
					quorum = "NO"
				}
				leader := cmp.Or(g.Leader, "-")
				if g.Leader != g.Preferred && g.Preferred != "" {
					leader += " (should be " + g.Preferred + ")"
				}
				row(g.Group, leader, g.Term, g.Applied, quorum, replicasText(g))
			}
		})
	})
}

func replicasText(g *admin.Group) string {
	var names []string
	for _, r := range g.Replicas {
		name := r.Node
		switch {
		case r.Lost:
			name += " (lost its data)"
		case r.Leaving:
			name += " (leaves)"
		case !r.Voter:
			name += " (joins)"
		}
		if r.Lag != nil && *r.Lag > 0 {
			name += fmt.Sprintf(" -%d", *r.Lag)
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

func (o *operator) moves() error {
	var answer admin.MoveList
	if err := o.get("/moves", &answer); err != nil {
		return err
	}
	return o.print(&answer, func() {
		if r := answer.Rebalance; r != nil {
			fmt.Fprintf(o.out, "A rebalance is under way since %s: %d of %d to go.\n", clock(r.StartedAt), r.Remaining, r.Planned)
		}
		o.moveTable(answer.Moves)
		if len(answer.Due) > 0 {
			fmt.Fprintf(o.out, "\n%d more to be started:\n", len(answer.Due))
			o.relocationTable(answer.Due)
		}
	})
}

func (o *operator) moveTable(moves []admin.Move) {
	o.table("MOVE\tGROUP\tPHASE\tREASON\tFROM\tTO\tFOR", func(row func(...any)) {
		for _, m := range moves {
			row(m.ID, m.Group, m.Phase, m.Reason, cmp.Or(m.From, "-"), cmp.Or(strings.Join(m.To, ", "), "-"), time.Since(m.StartedAt).Round(time.Second))
		}
	})
}

func (o *operator) relocationTable(due []admin.Relocation) {
	o.table("GROUP\tFROM\tTO\tREASON", func(row func(...any)) {
		for _, r := range due {
			row(r.Group, r.From, r.To, r.Reason)
		}
	})
}

func (o *operator) leases() error {
	var answer admin.LeaseList
	if err := o.get("/leases", &answer); err != nil {
		return err
	}
	return o.print(&answer, func() {
		o.table("GROUP\tHOLDER\tEPOCH\tEXPIRES IN", func(row func(...any)) {
			for _, l := range answer.Leases {
				left := "-"
				if l.ExpiresAt != nil {
					left = fmt.Sprint(max(0, time.Until(*l.ExpiresAt).Round(100*time.Millisecond)))
				}
				row(l.Group, cmp.Or(l.Holder, "-"), l.Epoch, left)
			}
		})
	})
}

func clusterEventsCommand() *cli.Command {
	var conf clusterConfig
	var watch bool
	limit := 50
	return &cli.Command{
		Name: "events", Usage: "list what has happened",
		Description: clusterExitCodes + "\n\nExample:\n   fastpaca cluster events --watch",
		Flags: append(conf.flags(),
			&cli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "go on with new ones as they happen", Destination: &watch},
			&cli.IntFlag{Name: "limit", Aliases: []string{"n"}, Value: limit, Usage: "the newest `N`, 1 to 1024", Destination: &limit}),
		Action: conf.action(nil, nil, func(o *operator) error { return o.events(limit, watch) }),
	}
}

func (o *operator) events(limit int, watch bool) error {
	path := fmt.Sprintf("/events?limit=%d", limit)
	look := func() error {
		var answer admin.EventList
		if err := o.get(path, &answer); err != nil {
			return err
		}
		if n := len(answer.Events); n > 0 {
			path = fmt.Sprintf("/events?limit=1024&after=%d", answer.Events[n-1].ID)
		} else if watch {
			return nil
		}
		return o.print(&answer, func() { o.eventLines(answer.Events) })
	}
	if !watch {
		return look()
	}
	return o.watch(look)
}

func (o *operator) eventLines(events []admin.Event) {
	for _, e := range events {
		line := []string{clock(e.At), pad(e.Kind, 20)}
		if e.Move != 0 {
			line = append(line, fmt.Sprint("move ", e.Move))
		}
		if e.Group != nil {
			line = append(line, fmt.Sprint("group ", *e.Group))
		}
		if e.Node != "" {
			line = append(line, "node "+e.Node)
		}
		if e.Detail != "" {
			line = append(line, "("+printable(e.Detail)+")")
		}
		fmt.Fprintln(o.out, strings.TrimRight(strings.Join(line, "  "), " "))
	}
}
