package cluster

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
)

const (
	// probeHold is how long a node is kept from answering to see what it leads.
	probeHold = 500 * time.Millisecond
	// probeTimeout bounds one read of a probe, which also waits out elections.
	probeTimeout = 20 * time.Second
)

// leadersOf finds out who leads the groups of conversations, from outside: for
// each data node in turn it holds what the first router and the node say to
// each other, and reads all conversations. Those that are answered meanwhile
// are led by others. It repeats itself until it has found exactly one leader
// for each. The cluster must be proxied and otherwise well.
func leadersOf(t *testing.T, c *Cluster, conversations []string) map[string]*Node {
	t.Helper()
	router := connect(t, c.Routers[0].URL())
	leaders := map[string]*Node{}
	within(t, recoverBound, func() error {
		clear(leaders)
		for _, n := range c.Data {
			late, err := lateWithout(t, c, router, n, conversations)
			if err != nil {
				return err
			}
			for _, id := range late {
				if leaders[id] != nil {
					return fmt.Errorf("%s seems to be led by %s and %s", id, leaders[id].Name, n.Name)
				}
				leaders[id] = n
			}
		}
		if len(leaders) != len(conversations) {
			return fmt.Errorf("found leaders of %d of %d conversations", len(leaders), len(conversations))
		}
		return nil
	})
	return leaders
}

// lateWithout returns the conversations that could not be read while a node was
// kept from answering.
func lateWithout(t *testing.T, c *Cluster, router *client.Client, n *Node, conversations []string) ([]string, error) {
	t.Helper()
	from := c.Routers[0].Name
	c.Network.Between(from, n.Name, Rule{Hold: true})
	defer c.Network.Between(from, n.Name, Rule{})
	ctx, cancel := context.WithTimeout(t.Context(), probeTimeout)
	defer cancel()
	var (
		reads  sync.WaitGroup
		mu     sync.Mutex // guards what follows
		early  = map[string]bool{}
		failed error
	)
	for _, id := range conversations {
		reads.Go(func() {
			reply, err := router.Do(ctx, http.MethodGet, client.Path(id), nil)
			mu.Lock()
			defer mu.Unlock()
			early[id] = true
			if err == nil && reply.Status != http.StatusOK {
				err = fmt.Errorf("read %s: %v", id, reply)
			}
			if err != nil {
				failed = err
			}
		})
	}
	require.NoError(t, pause(ctx, probeHold))
	var late []string
	mu.Lock()
	for _, id := range conversations {
		if !early[id] {
			late = append(late, id)
		}
	}
	mu.Unlock()
	c.Network.Between(from, n.Name, Rule{})
	reads.Wait()
	return late, failed
}

// leadsMost returns the data node that leads most of the conversations.
func leadsMost(t *testing.T, c *Cluster, leaders map[string]*Node) *Node {
	t.Helper()
	count := map[*Node]int{}
	most := c.Data[0]
	for _, n := range leaders {
		if count[n]++; count[n] > count[most] {
			most = n
		}
	}
	return most
}
