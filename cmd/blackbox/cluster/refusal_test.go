package cluster

import (
	"context"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
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

// The program's exit codes: what could not be done, and a call that is wrong in
// itself.
const (
	exitFailed = 1
	exitUsage  = 2
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

// refuses waits until a process has exited by itself, because it could not do
// what it was asked, with an error in words.
func refuses(t *testing.T, n *Node, words ...string) {
	t.Helper()
	exits(t, n, exitFailed, words...)
}

// exits waits until a process has exited by itself with a code, and an error in
// words.
func exits(t *testing.T, n *Node, want int, words ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), process.ReadyTimeout)
	defer cancel()
	code, err := n.Server().Wait(ctx)
	require.NoError(t, err, n.Output())
	require.Equal(t, want, code, n.Output())
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
	c := start(t, Config{Control: 3, Token: token})
	l := startLoad(t, c, "strangers", 8, 100*time.Millisecond)
	l.awaitAppends(t)
	watch := watchMachine(t)
	began := l.history.now()

	t.Run("garbage on the internal port", func(t *testing.T) { garbage(t, c) })
	silent := silence(t, c)
	t.Run("wrong token", func(t *testing.T) { wrongTokens(t, c) })
	t.Run("node id in use", func(t *testing.T) {
		n := stranger(t, c, []string{"FASTPACA_TOKEN=" + token},
			"data", "--id", "d1", "--data-dir", t.TempDir(), "--control", c.ControlAddresses())
		says(t, n, "another data directory", "d1", "start this node with an id of its own", "has not joined a cluster yet")
		notReady(t, n)
	})
	t.Run("a data node taken for the control plane", func(t *testing.T) {
		r := stranger(t, c, []string{"FASTPACA_TOKEN=" + token}, "router", "--control", c.Data[0].Address())
		says(t, r, "no member of the control plane", "unknown service")
		notReady(t, r)
	})

	t.Run("connections that say nothing", func(t *testing.T) { hungUp(t, silent) })

	l.awaitAppends(t)
	if troubles := l.history.troubles(began); len(troubles) > 0 {
		watch.blame(t, "%d operations failed, such as %s", len(troubles), troubles[0])
	}
	l.finish(t)
	sameReplicas(t, c)
	require.NoError(t, c.CheckRunning())
}

// garbage speaks everything but the internal protocol to the internal ports.
func garbage(t *testing.T, c *Cluster) {
	random := make([]byte, 1<<16)
	_, _ = rand.NewChaCha8([32]byte{}).Read(random) // never fails
	for _, n := range []*Node{c.Control[0], c.Data[0]} {
		for _, said := range []string{
			string(random), "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
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
		// A whole TLS client; the cluster uses none.
		conn, err := net.Dial("tcp", n.Address())
		require.NoError(t, err)
		require.NoError(t, conn.SetDeadline(time.Now().Add(process.ReadyTimeout)))
		require.Error(t, tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(t.Context()))
		_ = conn.Close()
	}
}

// silence opens more connections than a process has room for in handshakes, and
// says nothing on them, or half of a greeting. A router that starts meanwhile is
// served all the same.
func silence(t *testing.T, c *Cluster) (silent []net.Conn) {
	t.Helper()
	const many = 200
	t.Cleanup(func() {
		for _, conn := range silent {
			_ = conn.Close()
		}
	})
	for _, n := range []*Node{c.Control[0], c.Control[1], c.Control[2], c.Data[0]} {
		for i := range many {
			conn, err := net.Dial("tcp", n.Address())
			require.NoError(t, err)
			silent = append(silent, conn)
			_, _ = io.WriteString(conn, "\xfbFPM\x01"[:i%6])
		}
	}
	n := stranger(t, c, c.environment(), "router", "--control", c.ControlAddresses())
	ready(t, n)
	return silent
}

// hungUp waits until the other end of each connection has closed it.
func hungUp(t *testing.T, silent []net.Conn) {
	for _, conn := range silent {
		require.NoError(t, conn.SetDeadline(time.Now().Add(process.ReadyTimeout)))
		_, err := io.Copy(io.Discard, conn)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "a connection that says nothing is kept for ever")
	}
}

// wrongTokens starts a process of each role with another token, and with none.
func wrongTokens(t *testing.T, c *Cluster) {
	for name, env := range map[string][]string{"another": {"FASTPACA_TOKEN=" + otherToken}, "none": nil} {
		n := stranger(t, c, env, "data", "--id", "d7", "--data-dir", t.TempDir(), "--control", c.ControlAddresses())
		says(t, n, "the tokens differ, or only one end has a token", "give both ends the same token", "has not joined a cluster yet")
		notReady(t, n)
		m := stranger(t, c, env, "control", "--id", "c9", "--data-dir", t.TempDir(), "--peers", c.peersWith("c9"))
		says(t, m, "the tokens differ, or only one end has a token")
		notReady(t, m)
		r := stranger(t, c, env, "router", "--control", c.ControlAddresses())
		says(t, r, "the tokens differ, or only one end has a token")
		notReady(t, r)
		err := connect(t, r.URL()).Create(t.Context(), "stranger-"+name)
		status, _ := statusOf(err)
		require.Equal(t, http.StatusServiceUnavailable, status, "%v", err)
	}
	says(t, c.Control[0], "reason=unauthorized", "claimed_id=d7", "claimed_role=router") // the other end says so too
}

// TestShortTokenIsRefused: a token that can be guessed is none.
func TestShortTokenIsRefused(t *testing.T) {
	t.Parallel()
	c := prepare(t, Config{Token: "guess me"})
	for _, n := range []*Node{c.Control[0], c.Data[0], c.Routers[0]} {
		require.NoError(t, n.Start())
		exits(t, n, exitUsage, "token is shorter than")
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
	says(t, n, "another cluster", "point this process at the control plane of its own cluster")
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
	n := stranger(t, c, nil, "control", "--id", "c9", "--data-dir", t.TempDir(), "--peers", c.peersWith("c9"))
	stay(t, 3*time.Second)
	notReady(t, n)
	for _, member := range c.Control[:2] { // whom it knows
		says(t, member, "--peers does not name that member", "member=c9")
	}
	require.NoError(t, connect(t, c.Routers[0].URL()).Create(t.Context(), "x"))
	ready(t, c.Nodes()...)
}
