package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fastpaca/fastpaca/controlplane/mesh"
	controlrpc "github.com/fastpaca/fastpaca/controlplane/rpc"
	controlremote "github.com/fastpaca/fastpaca/controlplane/rpc/remote"
	"github.com/fastpaca/fastpaca/dataplane/backup"
	"github.com/fastpaca/fastpaca/dataplane/rpc"
	dataremote "github.com/fastpaca/fastpaca/dataplane/rpc/remote"
)

// leaders finds the leaders of groups for a backup or a restore. It implements
// backup.Cluster.
type leaders struct {
	in      *internal
	control *controlremote.Client

	mu    sync.Mutex // guards what follows
	table *controlrpc.Table
	asked time.Time // when table was asked for
	open  map[controlrpc.NodeID]*grpc.ClientConn
}

// leadersInterval is how old a table may be that sends a caller astray.
const leadersInterval = 500 * time.Millisecond

func (o *operator) leaders() (*leaders, error) {
	addresses, err := addressList("control", o.conf.Control)
	if err != nil {
		return nil, err
	}
	in, err := openInternal(o.conf.Credentials.mesh(mesh.RoleAdmin, "", slog.New(slog.DiscardHandler)), "")
	if err != nil {
		return nil, err
	}
	control, err := in.dialControl(addresses)
	if err != nil {
		return nil, err
	}
	return &leaders{in: in, control: control, open: map[controlrpc.NodeID]*grpc.ClientConn{}}, nil
}

// Leader implements backup.Cluster.
func (l *leaders) Leader(ctx context.Context, group rpc.Group, hint string) (backup.Node, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.table == nil || time.Since(l.asked) > leadersInterval {
		table, err := currentTable(ctx, l.control)
		if err != nil {
			return nil, fmt.Errorf("placement table: %w: %w", rpc.ErrUnavailable, err)
		}
		l.table, l.asked = table, time.Now()
	}
	if int(group) >= len(l.table.Groups) {
		return nil, fmt.Errorf("group %d is not placed: %w", group, rpc.ErrUnavailable)
	}
	id := controlrpc.NodeID(hint)
	if _, known := l.table.Nodes[id]; !known {
		placed := &l.table.Groups[group]
		if id = placed.Leader; id == "" {
			id = placed.Preferred
		}
	}
	info, known := l.table.Nodes[id]
	if !known {
		return nil, fmt.Errorf("group %d has no leader: %w", group, rpc.ErrUnavailable)
	}
	conn := l.open[id]
	if conn == nil {
		var err error
		if conn, err = mesh.NewGRPCClient(l.in.dialer, string(id), info.Address); err != nil {
			return nil, fmt.Errorf("connect to node %s: %w", id, err)
		}
		l.open[id] = conn
	}
	return dataremote.NewOperator(conn), nil
}

func (l *leaders) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.open {
		_ = conn.Close() // every call on it has been answered
	}
	_ = l.control.Close()
	_ = l.in.Close()
}

// errNotOperator: a peer that is none called what is for operators.
var errNotOperator = errors.New("only operators may read or fill whole groups")

// operatorsOnly keeps everybody but operators from reading and filling whole
// groups.
func operatorsOnly() []grpc.ServerOption {
	allow := func(ctx context.Context, method string) error {
		if !strings.HasPrefix(method, "/"+dataremote.BackupService+"/") {
			return nil
		}
		if peer, ok := mesh.PeerFromContext(ctx); !ok || peer.Role != mesh.RoleAdmin {
			return status.Error(codes.PermissionDenied, errNotOperator.Error())
		}
		return nil
	}
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			if err := allow(ctx, info.FullMethod); err != nil {
				return nil, err
			}
			return handle(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			if err := allow(stream.Context(), info.FullMethod); err != nil {
				return err
			}
			return handle(srv, stream)
		}),
	}
}
