package latency

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fastpaca/fastpaca/controlplane/latency/pb"
)

// Register puts the board on a gRPC server. allow, when not nil, says whether the
// caller may report; everybody who gets there may look.
func (b *Board) Register(r grpc.ServiceRegistrar, allow func(context.Context) bool) {
	pb.RegisterLatencyServer(r, &server{board: b, allow: allow})
}

type server struct {
	pb.UnimplementedLatencyServer
	board *Board
	allow func(context.Context) bool
}

// Report implements pb.LatencyServer.
func (s *server) Report(ctx context.Context, p *pb.Summary) (*pb.ReportReply, error) {
	if s.allow != nil && !s.allow(ctx) {
		return nil, status.Error(codes.PermissionDenied, "only processes that serve appends report latencies")
	}
	summary := Summary{
		Process: p.GetProcess(), Window: time.Duration(p.GetWindowNanos()), Bounds: durations(p.GetBoundsNanos()),
		Stages: stagesFromWire(p.GetStages()), Failed: p.GetFailed(),
	}
	err := s.board.Report(ctx, &summary)
	switch {
	case errors.Is(err, ErrInvalid):
		return nil, status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, ErrFull):
		return nil, status.Error(codes.ResourceExhausted, err.Error())
	}
	return &pb.ReportReply{}, err
}

// Recent implements pb.LatencyServer.
func (s *server) Recent(context.Context, *pb.RecentRequest) (*pb.RecentReply, error) {
	r := s.board.Recent()
	return &pb.RecentReply{
		Processes: uint32(r.Processes), LeftOut: uint32(r.LeftOut), PerSecond: r.PerSecond, Failed: r.Failed,
		WindowNanos: int64(r.Window), BoundsNanos: nanos(r.Bounds), Stages: stagesToWire(r.Stages),
	}, nil
}

// Client speaks to the board of one member. Methods may be called from any
// goroutine.
type Client struct{ of pb.LatencyClient }

// NewClient returns a client over conn, which stays the caller's.
func NewClient(conn grpc.ClientConnInterface) *Client { return &Client{pb.NewLatencyClient(conn)} }

// Report tells the member what this process has measured. Errors are of gRPC.
func (c *Client) Report(ctx context.Context, s *Summary) error {
	_, err := c.of.Report(ctx, &pb.Summary{
		Process: s.Process, WindowNanos: int64(s.Window), BoundsNanos: nanos(s.Bounds), Stages: stagesToWire(s.Stages), Failed: s.Failed,
	})
	if err != nil {
		return fmt.Errorf("report latencies: %w", err)
	}
	return nil
}

// Recent asks the member what it has been told lately. Errors are of gRPC, or
// ErrInvalid.
func (c *Client) Recent(ctx context.Context) (*Recent, error) {
	p, err := c.of.Recent(ctx, &pb.RecentRequest{})
	if err != nil {
		return nil, fmt.Errorf("recent latencies: %w", err)
	}
	r := &Recent{
		Processes: int(p.GetProcesses()), LeftOut: int(p.GetLeftOut()), PerSecond: p.GetPerSecond(), Failed: p.GetFailed(),
		Window: time.Duration(p.GetWindowNanos()), Bounds: durations(p.GetBoundsNanos()), Stages: stagesFromWire(p.GetStages()),
	}
	for i := range r.Stages {
		if len(r.Stages[i].Counts) != len(r.Bounds)+bucketsBeyond {
			return nil, fmt.Errorf("recent latencies: %w: stage %q", ErrInvalid, r.Stages[i].Name)
		}
	}
	return r, nil
}

func nanos(bounds []time.Duration) []int64 {
	out := make([]int64, len(bounds))
	for i, b := range bounds {
		out[i] = int64(b)
	}
	return out
}

func durations(nanos []int64) []time.Duration {
	out := make([]time.Duration, len(nanos))
	for i, n := range nanos {
		out[i] = time.Duration(n)
	}
	return out
}

func stagesToWire(stages []Stage) []*pb.Stage {
	out := make([]*pb.Stage, len(stages))
	for i := range stages {
		out[i] = &pb.Stage{Name: stages[i].Name, Counts: stages[i].Counts, SumNanos: int64(stages[i].Sum)}
	}
	return out
}

func stagesFromWire(stages []*pb.Stage) []Stage {
	out := make([]Stage, len(stages))
	for i, s := range stages {
		out[i] = Stage{Name: s.GetName(), Counts: s.GetCounts(), Sum: time.Duration(s.GetSumNanos())}
	}
	return out
}
