package mesh

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// healthServer serves the gRPC health service on a mesh listener and records
// who calls.
type healthServer struct {
	*grpc.Server
	mu      sync.Mutex // guards callers
	callers []Peer
}

func (s *healthServer) record(ctx context.Context) {
	caller, ok := PeerFromContext(ctx)
	if !ok {
		caller.ID = "unknown"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.callers = append(s.callers, caller)
}

func serveHealth(t *testing.T, ln net.Listener) *healthServer {
	t.Helper()
	s := &healthServer{}
	s.Server = grpc.NewServer(append(GRPCServerOptions(),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			s.record(ctx)
			return h(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			s.record(stream.Context())
			return h(srv, stream)
		}))...)
	healthpb.RegisterHealthServer(s, health.NewServer())
	var task sync.WaitGroup
	task.Go(func() { _ = s.Serve(ln) })
	t.Cleanup(func() {
		s.Stop()
		task.Wait()
	})
	return s
}

func mustClient(t *testing.T, d *Dialer, id, addr string) healthpb.HealthClient {
	t.Helper()
	conn, err := NewGRPCClient(d, id, addr)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return healthpb.NewHealthClient(conn)
}

func TestGRPCRoundTrip(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1") // must not matter
	withTLS := newAuthority(t).credentials(t, leaf{})
	withTLS.Token = tokenA
	for name, creds := range map[string]Credentials{"bare": {}, "token": {Token: tokenA}, "TLS and token": withTLS} {
		t.Run(name, func(t *testing.T) {
			conf := node("d1", creds)
			conf.ClusterID = "c"
			l := mustListen(t, conf)
			s := serveHealth(t, l.Accept(KindGRPC))
			router := Config{Role: RoleRouter, ID: "r1", ClusterID: "c", Credentials: creds, Logger: conf.Logger}
			client := mustClient(t, mustDialer(t, router), "d1", l.Addr().String())

			var answered peer.Peer
			reply, err := client.Check(testContext(t), &healthpb.HealthCheckRequest{}, grpc.Peer(&answered))
			require.NoError(t, err)
			require.Equal(t, healthpb.HealthCheckResponse_SERVING, reply.Status)
			stream, err := client.Watch(testContext(t), &healthpb.HealthCheckRequest{})
			require.NoError(t, err)
			reply, err = stream.Recv()
			require.NoError(t, err)
			require.Equal(t, healthpb.HealthCheckResponse_SERVING, reply.Status)

			want := Peer{Role: RoleRouter, ID: "r1", ClusterID: "c", Kind: KindGRPC, Token: creds.Token != "", TLS: creds.tls()}
			s.mu.Lock()
			require.Equal(t, []Peer{want, want}, s.callers)
			s.mu.Unlock()
			got, ok := PeerFromContext(peer.NewContext(context.Background(), &answered))
			require.True(t, ok)
			require.Equal(t, "d1", got.ID)
			level := credentials.NoSecurity
			if creds.tls() {
				level = credentials.PrivacyAndIntegrity
			}
			require.Equal(t, level, answered.AuthInfo.(AuthInfo).SecurityLevel)
			require.EqualValues(t, 1, l.Stats().Accepted) // one connection for all calls
		})
	}
}

func TestGRPCMessageSizes(t *testing.T) {
	t.Parallel()
	l := mustListen(t, node("d1", Credentials{}))
	serveHealth(t, l.Accept(KindGRPC))
	client := mustClient(t, mustDialer(t, node("d2", Credentials{})), "", l.Addr().String())
	_, err := client.Check(testContext(t), &healthpb.HealthCheckRequest{Service: strings.Repeat("x", 20<<20)})
	require.Equal(t, codes.NotFound, status.Code(err)) // it arrived
	_, err = client.Check(testContext(t), &healthpb.HealthCheckRequest{Service: strings.Repeat("x", MaxGRPCMessageBytes)})
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
}

// A process that is misconfigured says why in its log: gRPC gives it only a
// text to return.
func TestGRPCReportsWhyItCannotConnect(t *testing.T) {
	t.Parallel()
	l := mustListen(t, node("d1", Credentials{Token: tokenA}))
	serveHealth(t, l.Accept(KindGRPC))
	tests := map[string]struct {
		token Token
		id    string
		want  error
	}{
		"wrong node":  {tokenA, "d9", ErrWrongNode},
		"wrong token": {tokenB, "d1", ErrUnauthorized},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var logs logRecorder
			conf := node("d2", Credentials{Token: test.token})
			conf.Logger = logs.logger(slog.LevelInfo)
			client := mustClient(t, mustDialer(t, conf), test.id, l.Addr().String())
			_, err := client.Check(testContext(t), &healthpb.HealthCheckRequest{})
			require.Equal(t, codes.Unavailable, status.Code(err))
			require.ErrorContains(t, err, test.want.Error())
			require.NotEmpty(t, logs.find("level=ERROR", "cannot connect", test.want.Error(), "node="+test.id, Advice(test.want)))
		})
	}
}

// A gRPC server of the mesh serves nobody who came another way.
func TestGRPCRefusesForeignConnections(t *testing.T) {
	t.Parallel()
	plain, err := net.Listen("tcp", local)
	require.NoError(t, err)
	serveHealth(t, plain)
	conn, err := grpc.NewClient(plain.Addr().String(), grpc.WithTransportCredentials(foreignCredentials{}))
	require.NoError(t, err)
	defer conn.Close()
	_, err = healthpb.NewHealthClient(conn).Check(testContext(t), &healthpb.HealthCheckRequest{})
	require.Equal(t, codes.Unavailable, status.Code(err))

	_, ok := PeerFromContext(context.Background())
	require.False(t, ok)
	_, ok = PeerFromContext(peer.NewContext(context.Background(), &peer.Peer{}))
	require.False(t, ok)
}

// foreignCredentials are those of a client outside the mesh.
type foreignCredentials struct{ transportCredentials }

func (foreignCredentials) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return conn, AuthInfo{}, nil
}

func (c foreignCredentials) Clone() credentials.TransportCredentials { return c }

// A client finds its server again after a restart on the same address.
func TestGRPCReconnects(t *testing.T) {
	t.Parallel()
	conf := node("d1", Credentials{Token: tokenA})
	l, err := Listen(local, conf)
	require.NoError(t, err)
	s := serveHealth(t, l.Accept(KindGRPC))
	client := mustClient(t, mustDialer(t, node("d2", Credentials{Token: tokenA})), "d1", l.Addr().String())
	_, err = client.Check(testContext(t), &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	s.Stop()
	require.NoError(t, l.Close())
	_, err = client.Check(testContext(t), &healthpb.HealthCheckRequest{})
	require.Equal(t, codes.Unavailable, status.Code(err))

	again, err := Listen(l.Addr().String(), conf)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, again.Close()) })
	serveHealth(t, again.Accept(KindGRPC))
	_, err = client.Check(testContext(t), &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
	require.NoError(t, err)
}
