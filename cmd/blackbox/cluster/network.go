package cluster

import (
	"sync"
	"time"
)

// Rule says what happens to bytes on their way from one process to another.
type Rule struct {
	// Cut breaks connections and refuses new ones, as a firewall that answers.
	Cut bool
	// Hold lets nothing through and keeps it for later, as a network that has
	// failed does: TCP delivers once it is back, or gives up.
	Hold bool
	// Delay is how much later everything arrives.
	Delay time.Duration
}

// direction is from one process to another, by name.
type direction struct{ from, to string }

// Network is the network between the processes of a cluster: rules for pairs,
// which the proxies obey at once. Safe for concurrent use.
type Network struct {
	mu      sync.Mutex // guards the below
	rules   map[direction]Rule
	changed chan struct{} // closed and replaced with every change
}

func newNetwork() *Network {
	return &Network{rules: map[direction]Rule{}, changed: make(chan struct{})}
}

// Set sets the rule for one direction; the zero Rule lets everything pass.
func (n *Network) Set(from, to string, r Rule) {
	n.update(func() { n.rules[direction{from, to}] = r })
}

// Between sets the rule for both directions.
func (n *Network) Between(a, b string, r Rule) {
	n.update(func() {
		n.rules[direction{a, b}] = r
		n.rules[direction{b, a}] = r
	})
}

// Heal lifts all rules.
func (n *Network) Heal() {
	n.update(func() { clear(n.rules) })
}

func (n *Network) update(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
	close(n.changed)
	n.changed = make(chan struct{})
}

// rule returns the rule in force and a channel that is closed when any changes.
func (n *Network) rule(d direction) (Rule, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rules[d], n.changed
}
