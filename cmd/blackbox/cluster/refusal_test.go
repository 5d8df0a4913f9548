package cluster

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fastpaca/fastpaca/cmd/blackbox/client"
	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

const (
	token      = "the token of this cluster"
	otherToken = "the token of another one"
)

// says waits until a process has printed all of the words, running or not, and
// checks that it did not panic.
func says(t *testing.T, n *Node, words ...string) {
	t.Helper()
	for _, word := range words {
		eventually(t, n.Name+" says "+word, func() bool {
			return strings.Contains(strings.ToLower(n.Output()), strings.ToLower(word))
		})
	}
	require.NotContains(t, n.Output(), "goroutine ", "a stack trace is no error message")
}

// refuses waits until a process has exited by itself, with an error in words.
func refuses(t *testing.T, n *Node, words ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), process.ReadyTimeout)
	defer cancel()
	code, err := n.Server().Wait(ctx)
	require.NoError(t, err, n.Output())
	require.NotZero(t, code, n.Output())
	says(t, n, words...)
}

// stranger is a process of the same program that is started by hand.
func stranger(t *testing.T, c *Cluster, env []string, args ...string) *Node {
	t.Helper()
	free, err := freeAddresses(2)
	require.NoError(t, err)
	n := &Node{Name: "stranger " + args[0], binary: c.Binary, env: env, listen: free[0], ops: free[1]}
	n.args = append(args, "--listen", n.listen, "--ops-listen", n.ops)
	require.NoError(t, n.Start())
	t.Cleanup(func() {
		n.Kill()
		if t.Failed() {
			t.Logf("output of the %s:\n%s", n.Name, lastLines(n.Output(), *logLines))
		}
	})
	return n
}

// notReady checks that a process that runs does not claim to be ready.
func notReady(t *testing.T, n *Node) {
	t.Helper()
	probe := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	within(t, process.ReadyTimeout, func() error {
		reply, err := probe.Get("http://" + n.Ops() + "/health/ready")
		if err == nil {
			_ = reply.Body.Close()
			require.Equal(t, http.StatusServiceUnavailable, reply.StatusCode)
		}
		return err
	})
}

// TestStrangers lets everything that should not be there knock at a cluster with
// a token. Each is refused in words, and the cluster goes on as if nothing had
// been.
func TestStrangers(t *testing.T) {
	t.Parallel()
	c := start(t, Config{Token: token})
	l := startLoad(t, c, "strangers", 8, 100*time.Millisecond)
	l.awaitAppends(t)
	began := l.history.now()

	t.Run("garbage on the internal port", func(t *testing.T) { garbage(t, c) })
	t.Run("wrong token", func(t *testing.T) { wrongTokens(t, c) })
	t.Run("node id in use", func(t *testing.T) {
		n := stranger(t, c, []string{"FASTPACA_TOKEN=" + token},
			"data", "--id", "d1", "--data-dir", t.TempDir(), "--control", c.ControlAddresses())
		says(t, n, "another data directory", "d1")
		notReady(t, n)
	})
	t.Run("data directory of another node", func(t *testing.T) {
		c.Data[2].Kill()
		n := stranger(t, c, []string{"FASTPACA_TOKEN=" + token},
			"data", "--id", "d9", "--data-dir", c.Data[2].Dir, "--control", c.ControlAddresses())
		refuses(t, n, "d3", "d9", "another node")
		require.NoError(t, c.Data[2].Start())
		ready(t, c.Data[2])
	})
	t.Run("data directory in use", func(t *testing.T) {
		n := stranger(t, c, []string{"FASTPACA_TOKEN=" + token},
			"data", "--id", "d1", "--data-dir", c.Data[0].Dir, "--control", c.ControlAddresses())
		refuses(t, n, c.Data[0].Dir, "in use")
	})

	l.awaitAppends(t)
	for _, n := range c.Data[:2] {
		require.True(t, n.Running())
	}
	require.NoError(t, c.CheckRunning())
	t.Logf("%v of load went through meanwhile", l.history.now()-began)
	l.finish(t)
}

// garbage speaks everything but the internal protocol to the internal ports.
func garbage(t *testing.T, c *Cluster) {
	for _, n := range []*Node{c.Control[0], c.Data[0]} {
		for _, said := range []string{
			"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
			"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
			"\x16\x03\x01\x00\x05hello",
			"\xfbFPM\x01\x01\xff\xff" + strings.Repeat("\xff", 1<<16),
			strings.Repeat("\x00", 1<<20),
		} {
			conn, err := net.Dial("tcp", n.Address())
			require.NoError(t, err)
			require.NoError(t, conn.SetDeadline(time.Now().Add(process.ReadyTimeout)))
			// The other end may hang up before it has read all.
			_, _ = io.WriteString(conn, said)
			answer, _ := io.ReadAll(conn)
			require.Less(t, len(answer), 256, "at most a refusal: %q", answer)
			_ = conn.Close()
		}
		says(t, n, "reason=garbage")
	}
}

// wrongTokens starts a data node and routers with another token, and with none.
func wrongTokens(t *testing.T, c *Cluster) {
	for name, env := range map[string][]string{"another": {"FASTPACA_TOKEN=" + otherToken}, "none": nil} {
		n := stranger(t, c, env, "data", "--id", "d7", "--data-dir", t.TempDir(), "--control", c.ControlAddresses())
		says(t, n, "the tokens differ, or only one end has a token")
		notReady(t, n)
		r := stranger(t, c, env, "router", "--control", c.ControlAddresses())
		says(t, r, "the tokens differ, or only one end has a token")
		notReady(t, r)
		err := connect(t, r.URL()).Create(t.Context(), "stranger-"+name)
		status, _ := statusOf(err)
		require.Equal(t, http.StatusServiceUnavailable, status, "%v", err)
	}
}

// TestShortTokenIsRefused: a token that can be guessed is none.
func TestShortTokenIsRefused(t *testing.T) {
	t.Parallel()
	c := prepare(t, Config{Token: "guess me"})
	for _, n := range []*Node{c.Control[0], c.Data[0], c.Routers[0]} {
		require.NoError(t, n.Start())
		refuses(t, n, "token")
		require.NotContains(t, n.Output(), "guess me", "a secret is not to be logged")
	}
}

// TestOtherCluster takes a data directory from one cluster to another, and a
// control plane out from under its data nodes: neither may be taken over.
func TestOtherCluster(t *testing.T) {
	t.Parallel()
	ours, theirs := start(t, Config{Data: 1}), start(t, Config{Data: 1})
	router := connect(t, ours.Routers[0].URL())
	require.NoError(t, router.Create(t.Context(), "kept"))
	_, err := router.Append(t.Context(), "kept", client.TextBody("", "before"))
	require.NoError(t, err)

	// Our data node asks their control plane.
	ours.Data[0].Kill()
	n := stranger(t, ours, nil, "data", "--id", "d1", "--data-dir", ours.Data[0].Dir, "--control", theirs.ControlAddresses())
	says(t, n, "another cluster")
	n.Kill()
	// Our router's place is taken by one that follows them; our node is back.
	require.NoError(t, ours.Data[0].Start())
	ready(t, ours.Data[0])
	eventually(t, "an append as before", func() bool {
		_, err := router.Append(t.Context(), "kept", client.TextBody("after", "after"))
		return err == nil
	})

	// Our control plane loses its memory: the node must not follow a new one.
	ours.Control[0].Kill()
	require.NoError(t, ours.Control[0].Wipe())
	require.NoError(t, ours.Control[0].Start())
	says(t, ours.Data[0], "another cluster")
	_, log, err := router.Verified(t.Context(), "kept")
	require.NoError(t, err)
	require.Len(t, log, 2)
}

// TestUnknownMember starts a member of the control plane that the others do not
// name. It is refused, and they go on.
func TestUnknownMember(t *testing.T) {
	t.Parallel()
	c := start(t, Config{Control: 3, Data: 1})
	peers := "c9=127.0.0.1:1"
	for _, n := range c.Control[:2] {
		peers += "," + n.Name + "=" + n.Address()
	}
	n := stranger(t, c, nil, "control", "--id", "c9", "--data-dir", t.TempDir(), "--peers", peers)
	stay(t, 3*time.Second)
	notReady(t, n)
	require.NoError(t, connect(t, c.Routers[0].URL()).Create(t.Context(), "x"))

	// A member that is started with the directory of another one.
	c.Control[2].Kill()
	moved := stranger(t, c, nil, "control", "--id", "c9", "--data-dir", c.Control[2].Dir, "--peers", peers)
	refuses(t, moved, "c3", "c9")
	require.NoError(t, c.Control[2].Start())
	ready(t, c.Control[2])
}
