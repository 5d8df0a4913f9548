package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/fastpaca/fastpaca/controlplane/latency"
	"github.com/fastpaca/fastpaca/controlplane/member"
	"github.com/fastpaca/fastpaca/controlplane/mesh"
	controlrpc "github.com/fastpaca/fastpaca/controlplane/rpc"
	controlremote "github.com/fastpaca/fastpaca/controlplane/rpc/remote"
	"github.com/fastpaca/fastpaca/dataplane/node"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	dataremote "github.com/fastpaca/fastpaca/dataplane/rpc/remote"
	"github.com/fastpaca/fastpaca/dataplane/transport"
)

// internal is a process's end of the cluster's own network: what it dials with
// and, unless it is a router, the one listener for everything internal.
type internal struct {
	dialer    *mesh.Dialer
	listener  *mesh.Listener // nil in a router
	log       *slog.Logger
	telemetry *telemetry     // nil in a command that only calls
	latency   *latency.Board // nil in a process that is no control member
}

func openInternal(conf mesh.Config, listen string) (*internal, error) {
	conf.Logger = conf.Logger.With("component", "network")
	dialer, err := mesh.NewDialer(conf)
	if err != nil {
		return nil, err
	}
	in := &internal{dialer: dialer, log: conf.Logger}
	if listen == "" {
		return in, nil
	}
	if in.listener, err = mesh.Listen(listen, conf); err != nil {
		return nil, err
	}
	return in, nil
}

// joined tells the network which cluster this process belongs to. From then on
// processes of another one are refused.
func (in *internal) joined(clusterID string) error {
	err := in.dialer.SetClusterID(clusterID)
	if in.listener != nil {
		err = errors.Join(err, in.listener.SetClusterID(clusterID))
	}
	return err
}

// follow tells the network which cluster it belongs to once the control plane
// has made it.
func (in *internal) follow(control *member.Server, p *parts) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		id, err := control.ClusterID(ctx)
		if err == nil {
			err = in.joined(id)
		}
		if err != nil && ctx.Err() == nil {
			in.log.Error("cluster id", "error", err)
		}
	}()
	p.add("cluster id", func(context.Context) error { cancel(); <-done; return nil })
}

// Close closes the listener, and with it every connection it accepted.
func (in *internal) Close() error {
	if in.listener == nil {
		return nil
	}
	return in.listener.Close()
}

// dialRaft is the transport's way to other data nodes.
func (in *internal) dialRaft(ctx context.Context, nodeID, address string, lane transport.Lane) (net.Conn, error) {
	return in.dialer.DialNode(ctx, mesh.KindRaft, mesh.Lane(lane), nodeID, address)
}

// serveRaft hands what other data nodes dial to the node, until the listener
// closes. wait returns once every connection has ended.
func (in *internal) serveRaft(n *node.Node) (wait func()) {
	listener := in.listener.Accept(mesh.KindRaft)
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			peer, ok := mesh.PeerOf(conn)
			if !ok || (peer.Role != mesh.RoleData && peer.Role != mesh.RoleServer) {
				in.log.Warn("connection to the Raft transport refused: not a data node", "remote", conn.RemoteAddr())
				_ = conn.Close()
				continue
			}
			conns.Go(func() { n.ServeRaft(conn, transport.Lane(peer.Lane), peer.ID) })
		}
	})
	return conns.Wait
}

// controlStream is the control members' way to each other.
type controlStream struct {
	net.Listener
	dialer  *mesh.Dialer
	members map[string]string // by id; nobody else has a say
	log     *slog.Logger
	logged  time.Time // owned by the goroutine that accepts
}

func (in *internal) controlStream(members map[string]string) *controlStream {
	return &controlStream{
		Listener: in.listener.Accept(mesh.KindControlRaft), dialer: in.dialer, members: members, log: in.log,
	}
}

// strangersLogEvery is how often a refused stranger is logged; it comes back with
// every election that it attempts.
const strangersLogEvery = 10 * time.Second

// Accept returns the next connection of a member and hangs up on others: Raft
// itself would take entries from whoever claims to lead in a newer term.
func (s *controlStream) Accept() (net.Conn, error) {
	for {
		conn, err := s.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer, ok := mesh.PeerOf(conn)
		if _, member := s.members[peer.ID]; ok && member {
			return conn, nil
		}
		if now := time.Now(); now.Sub(s.logged) >= strangersLogEvery {
			s.logged = now
			s.log.Warn("connection to the control plane's Raft refused: --peers does not name that member",
				"member", peer.ID, "remote", conn.RemoteAddr())
		}
		_ = conn.Close()
	}
}

// Dial implements consensus.Stream.
func (s *controlStream) Dial(ctx context.Context, id, address string) (net.Conn, error) {
	return s.dialer.DialNode(ctx, mesh.KindControlRaft, 0, id, address)
}

// controlBackend is a member that knows where it can be reached.
type controlBackend struct {
	*member.Server
	address string
}

// LeaderHint implements remote.Backend.
func (b controlBackend) LeaderHint() string { return b.LeaderAddress(b.address) }

// serveGRPC serves the planes this process has. Either may be nil.
func (in *internal) serveGRPC(control *member.Server, data *node.Node, p *parts) {
	server := grpc.NewServer(slices.Concat(mesh.GRPCServerOptions(), operatorsOnly(), []grpc.ServerOption{in.telemetry.serverOption()})...)
	if in.latency != nil {
		in.latency.Register(server, mayReport)
	}
	if control != nil {
		service := controlremote.NewServer(controlBackend{control, in.listener.Addr().String()}, controlremote.ServerOptions{})
		service.Register(server)
		defer p.addCloser("control service", service)
	}
	if data != nil {
		// Stopped first: while leadership is handed over, clients are still told
		// to whom.
		defer p.add("leadership", func(ctx context.Context) error { data.Drain(ctx); return nil })
		service := dataremote.NewServer(data, dataremote.ServerOptions{Logger: in.log})
		service.Register(server)
		defer p.add("data service", service.Close)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(in.listener.Accept(mesh.KindGRPC)) }()
	p.add("internal server", func(context.Context) error {
		stopFlushed(server)
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
}

// flushBound is how long clients may take to receive the last answers of a
// server that stops.
const flushBound = time.Second

// stopFlushed stops a server whose services have ended. Their last answers may
// still be on their way out, and an append whose answer is lost has an unknown
// outcome.
func stopFlushed(server *grpc.Server) {
	timer := time.AfterFunc(flushBound, server.Stop)
	defer timer.Stop()
	server.GracefulStop()
}

// dialControl returns the control plane at the given addresses.
func (in *internal) dialControl(addresses []string) (*controlremote.Client, error) {
	return controlremote.NewClient(controlremote.Options{
		Addresses: addresses, Logger: in.log,
		Dial: func(address string) (controlremote.Conn, error) {
			return mesh.NewGRPCClient(in.dialer, "", address, in.telemetry.dialOption())
		},
	})
}

// remoteNode is a data node in another process.
type remoteNode struct {
	*dataremote.Client
	conn *grpc.ClientConn
}

// Close ends the client and its connection.
func (n remoteNode) Close() error { return errors.Join(n.Client.Close(), n.conn.Close()) }

// connect returns the data node with the given id.
func (in *internal) connect(id controlrpc.NodeID, address string) (rpc.Node, error) {
	conn, err := mesh.NewGRPCClient(in.dialer, string(id), address, in.telemetry.dialOption())
	if err != nil {
		return nil, fmt.Errorf("connect to node %s: %w", id, err)
	}
	client, err := dataremote.Dial(conn, dataremote.Options{Logger: in.log})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to node %s: %w", id, err), conn.Close())
	}
	return remoteNode{client, conn}, nil
}
