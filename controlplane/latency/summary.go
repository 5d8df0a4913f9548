package latency

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Bounds of a Summary that is taken from outside.
const (
	maxStages     = 16
	maxBounds     = 64
	maxNameBytes  = 64
	maxWindow     = time.Hour
	bucketsBeyond = 1 // of what is above the last bound
)

// ErrInvalid: a summary that no process makes.
var ErrInvalid = errors.New("invalid summary of latencies")

// Stage is a histogram of one stage of the appends that succeeded.
type Stage struct {
	Name string
	// Counts has one element for each bound, and one for what is above the last.
	Counts []uint64
	Sum    time.Duration
}

// Count is how many appends passed the stage.
func (s *Stage) Count() uint64 {
	var n uint64
	for _, c := range s.Counts {
		n += c
	}
	return n
}

// Mean is 0 without appends.
func (s *Stage) Mean() time.Duration {
	n := s.Count()
	if n == 0 {
		return 0
	}
	return time.Duration(float64(s.Sum) / float64(n))
}

// Quantile estimates a quantile, 0 < q < 1, as if values were spread evenly
// within a bucket. Of values above the last bound it is that bound.
func (s *Stage) Quantile(q float64, bounds []time.Duration) time.Duration {
	total := s.Count()
	if total == 0 || len(bounds) == 0 || len(s.Counts) != len(bounds)+bucketsBeyond {
		return 0
	}
	rank, below, lower := q*float64(total), 0.0, time.Duration(0)
	for i, bound := range bounds {
		in := float64(s.Counts[i])
		if in > 0 && below+in >= rank {
			return lower + time.Duration(float64(bound-lower)*(rank-below)/in)
		}
		below, lower = below+in, bound
	}
	return bounds[len(bounds)-1]
}

// Summary is what one process measured in its window, which has just ended.
type Summary struct {
	Process string // random, made anew whenever the process starts
	Window  time.Duration
	Bounds  []time.Duration // ascending, of all stages
	Stages  []Stage         // in the order in which they are shown
	Failed  uint64          // appends that did not succeed, the client's mistakes left out
}

// validate wraps ErrInvalid.
func (s *Summary) validate() error {
	switch {
	case s.Process == "" || len(s.Process) > maxNameBytes:
		return fmt.Errorf("%w: no process", ErrInvalid)
	case s.Window <= 0 || s.Window > maxWindow:
		return fmt.Errorf("%w: window %s", ErrInvalid, s.Window)
	case len(s.Bounds) == 0 || len(s.Bounds) > maxBounds || !ascending(s.Bounds):
		return fmt.Errorf("%w: bounds", ErrInvalid)
	case len(s.Stages) > maxStages:
		return fmt.Errorf("%w: %d stages", ErrInvalid, len(s.Stages))
	}
	for i := range s.Stages {
		stage := &s.Stages[i]
		if stage.Name == "" || len(stage.Name) > maxNameBytes || stage.Sum < 0 || len(stage.Counts) != len(s.Bounds)+bucketsBeyond {
			return fmt.Errorf("%w: stage %q", ErrInvalid, stage.Name)
		}
		if slices.ContainsFunc(s.Stages[:i], func(other Stage) bool { return other.Name == stage.Name }) {
			return fmt.Errorf("%w: stage %q comes twice", ErrInvalid, stage.Name)
		}
	}
	return nil
}

func ascending(bounds []time.Duration) bool {
	for i, b := range bounds {
		if b <= 0 || i > 0 && b <= bounds[i-1] {
			return false
		}
	}
	return true
}

// Recent is what all processes of a cluster measured lately.
type Recent struct {
	// Processes have reported; LeftOut of them measure by other bounds, being of
	// another version, and are not in the rest.
	Processes, LeftOut int
	PerSecond          float64 // appends that succeeded, of the first stage
	Failed             uint64
	Window             time.Duration // the longest
	Bounds             []time.Duration
	Stages             []Stage
}
