package remote

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
	"github.com/fastpaca/fastpaca/dataplane/rpc/remote/pb"
)

// Server answers the calls of Clients with those of a node. It trusts nothing
// that they send: what is no protocol ends the stream with INVALID_ARGUMENT,
// what breaks the bounds of package rpc is refused with ErrInvalidRequest, and
// neither reaches the node.
//
// Goroutines: those that gRPC starts; for each stream a reader and a
// writer; for each write worked on one of a pool.
type Server struct {
	pb.UnimplementedDataPlaneServer
	node      rpc.Node
	feed      rpc.Feed      // nil if the node is none
	inspector rpc.Inspector // nil if the node is none
	opts      ServerOptions
	workers   *workers
	// writeBytes are those of all writes worked on, reads the number of reads.
	writeBytes atomic.Int64
	reads      atomic.Int64
	// collapsed counts news whose messages were dropped for a slow client.
	collapsed atomic.Uint64
	// life ends when Close runs out of time, and takes the reads with it.
	life context.Context
	end  context.CancelFunc

	mu       sync.Mutex // guards what follows
	draining bool
	streams  map[closable]struct{}
	active   sync.WaitGroup // of streams and what they started; Add only with mu held and not draining
}

// closable is a stream of any kind.
type closable interface {
	drain() // ends it as its client likes it
	cut()   // ends it now
}

// NewServer returns a server for node. A node that is an rpc.Feed takes
// subscriptions, one that is an rpc.Inspector answers StateHash. Register puts
// the server on a *grpc.Server.
func NewServer(node rpc.Node, opts ServerOptions) *Server {
	life, end := context.WithCancel(context.Background())
	feed, _ := node.(rpc.Feed)
	inspector, _ := node.(rpc.Inspector)
	return &Server{
		feed:      feed,
		inspector: inspector,
		node:      node,
		opts:      opts.withDefaults(),
		workers:   newWorkers(),
		life:      life,
		end:       end,
		streams:   make(map[closable]struct{}),
	}
}

// Register adds the service to a gRPC server that takes messages of
// MaxRequestBytes, and that of operators (BackupService) if the node is an
// rpc.Backup.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	pb.RegisterDataPlaneServer(r, s)
	s.registerBackup(r)
}

// Close stops the server as its clients like it: they are told to send no more,
// and get the answers of what they have sent. When ctx ends first what is left is
// cut off. New streams and reads are refused from the start. The gRPC server is
// stopped after it.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		return errors.New("close data plane server: it is closed already")
	}
	s.draining = true
	for st := range s.streams {
		st.drain()
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.active.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		s.end()
		s.mu.Lock()
		for st := range s.streams {
			st.cut()
		}
		s.mu.Unlock()
		<-done
	}
	s.end()
	s.workers.close()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("close data plane server: %w", err)
	}
	return nil
}

// admit counts a stream or read in, unless the server drains.
func (s *Server) admit() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return statusOf(fmt.Errorf("data node: %w", rpc.ErrClosed))
	}
	s.active.Add(1)
	return nil
}

// malformed is the end of a stream whose peer breaks the protocol.
func malformed(err error) error {
	return status.Error(codes.InvalidArgument, err.Error())
}
