package mesh

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
)

const (
	// MaxGRPCMessageBytes bounds one gRPC message in both directions. The
	// largest are pages of messages: 16 MiB and one message, with room to spare.
	MaxGRPCMessageBytes = 32 << 20

	// A process pair shares one gRPC connection, so the windows are sized for
	// throughput and fixed: measuring the bandwidth costs pings.
	grpcStreamWindow = 1 << 20
	grpcConnWindow   = 8 << 20
	grpcReadBuffer   = 16 << 10
	grpcWriteBuffer  = 32 << 10
	grpcHeaderBytes  = 16 << 10
	grpcMaxStreams   = 16 << 10 // at a time on one connection

	// A client notices a silent server in about 15 s; 10 s is the least that
	// gRPC lets a client wait between pings. Servers tolerate half of it and ask
	// idle clients themselves more rarely.
	grpcClientPing    = 10 * time.Second
	grpcClientTimeout = 5 * time.Second
	grpcMinPing       = 5 * time.Second
	grpcServerPing    = 30 * time.Second
	grpcServerTimeout = 10 * time.Second

	grpcBackoffMin = 50 * time.Millisecond
	grpcBackoffMax = 2 * time.Second
)

// NewGRPCClient returns a gRPC client of the process at addr, over connections
// of d. When id is not empty only that node may answer. It does not connect
// until the first call; a connection that is lost comes back by itself, and the
// reasons of failed attempts are logged at a bounded rate. opts come last.
func NewGRPCClient(d *Dialer, id, addr string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	all := append(GRPCDialOptions(d), grpc.WithContextDialer(grpcDialer(d, id)))
	// The target is passed through to the dialer, past gRPC's own resolvers.
	conn, err := grpc.NewClient("passthrough:///"+addr, append(all, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("mesh: gRPC client of %s: %w", addr, err)
	}
	return conn, nil
}

// GRPCDialOptions are the options for grpc.NewClient over connections of d, for
// targets with the passthrough scheme.
func GRPCDialOptions(d *Dialer) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithContextDialer(grpcDialer(d, "")),
		grpc.WithTransportCredentials(transportCredentials{}),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		// What may be sent again is for the caller to know.
		grpc.WithDisableRetry(),
		grpc.WithIdleTimeout(0),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: grpcClientPing, Timeout: grpcClientTimeout, PermitWithoutStream: true,
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: grpcBackoffMin, Multiplier: 1.6, Jitter: 0.2, MaxDelay: grpcBackoffMax,
			},
			// Ends after the dialer's own limit, which knows the reason.
			MinConnectTimeout: d.limits.handshake + time.Second,
		}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(MaxGRPCMessageBytes), grpc.MaxCallSendMsgSize(MaxGRPCMessageBytes)),
		grpc.WithMaxHeaderListSize(grpcHeaderBytes),
		grpc.WithStaticStreamWindowSize(grpcStreamWindow),
		grpc.WithStaticConnWindowSize(grpcConnWindow),
		grpc.WithReadBufferSize(grpcReadBuffer),
		grpc.WithWriteBufferSize(grpcWriteBuffer),
	}
}

// GRPCServerOptions are the options for a gRPC server that serves
// Listener.Accept(KindGRPC). It refuses connections that are not the mesh's.
func GRPCServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(transportCredentials{}),
		grpc.ConnectionTimeout(limits{}.withDefaults().handshake),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: grpcServerPing, Timeout: grpcServerTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: grpcMinPing, PermitWithoutStream: true,
		}),
		grpc.MaxRecvMsgSize(MaxGRPCMessageBytes),
		grpc.MaxSendMsgSize(MaxGRPCMessageBytes),
		grpc.MaxHeaderListSize(grpcHeaderBytes),
		grpc.MaxConcurrentStreams(grpcMaxStreams),
		grpc.StaticStreamWindowSize(grpcStreamWindow),
		grpc.StaticConnWindowSize(grpcConnWindow),
		grpc.ReadBufferSize(grpcReadBuffer),
		grpc.WriteBufferSize(grpcWriteBuffer),
		grpc.WaitForHandlers(true),
	}
}

// PeerFromContext returns who called, in a gRPC handler, or who answered, on
// the side of a client that passed grpc.Peer.
func PeerFromContext(ctx context.Context) (Peer, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Peer{}, false
	}
	info, ok := p.AuthInfo.(AuthInfo)
	return info.Peer, ok
}

// AuthInfo is the credentials.AuthInfo of gRPC over the mesh.
type AuthInfo struct {
	credentials.CommonAuthInfo
	Peer Peer
}

// AuthType implements credentials.AuthInfo.
func (AuthInfo) AuthType() string { return grpcProtocol }

const grpcProtocol = "fastpaca-mesh"

// grpcDialer logs what goes wrong, because gRPC passes on no more than a text.
func grpcDialer(d *Dialer, id string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := d.DialNode(ctx, KindGRPC, 0, id, addr)
		if err != nil && ctx.Err() == nil {
			if suppressed, ok := d.failures.allow(addr); ok {
				args := []any{"node", id, "suppressed", suppressed, "error", err}
				level := slog.LevelInfo
				if Permanent(err) {
					level = slog.LevelError
				}
				if advice := Advice(err); advice != "" {
					args = append(args, "advice", advice)
				}
				d.conf.Logger.Log(ctx, level, "mesh: cannot connect", args...)
			}
		}
		return conn, err
	}
}

// transportCredentials tells gRPC who the mesh has authenticated below it.
type transportCredentials struct{}

// ClientHandshake implements credentials.TransportCredentials.
func (transportCredentials) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return authenticated(conn)
}

// ServerHandshake implements credentials.TransportCredentials.
func (transportCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return authenticated(conn)
}

func authenticated(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	p, ok := PeerOf(conn)
	if !ok {
		return nil, nil, fmt.Errorf("%w: a connection from %v reached gRPC without a handshake", ErrNotMesh, conn.RemoteAddr())
	}
	level := credentials.NoSecurity
	if p.TLS {
		level = credentials.PrivacyAndIntegrity
	}
	return conn, AuthInfo{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: level}, Peer: p}, nil
}

// Info implements credentials.TransportCredentials.
func (transportCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: grpcProtocol}
}

// Clone implements credentials.TransportCredentials.
func (c transportCredentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName implements credentials.TransportCredentials. Names are
// checked by the mesh.
func (transportCredentials) OverrideServerName(string) error { return nil }
