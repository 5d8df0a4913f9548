package rpc

import (
	"errors"
	"fmt"
)

// ErrInvalid: the report or request breaks a rule, whatever the state of the
// cluster. Do not retry.
var ErrInvalid = errors.New("invalid report")

// ErrRemoved: an operator has removed the node from the cluster. It can join
// again with an empty data directory.
var ErrRemoved = errors.New("node was removed from the cluster")

// NotLeaderError reports that the member asked does not lead the control plane.
// Leader and Address are those of the member it believes does, or empty.
// errors.Is matches ErrUnavailable, for callers that cannot redirect.
type NotLeaderError struct {
	Leader  string
	Address string
}

func (e *NotLeaderError) Error() string {
	if e.Leader == "" {
		return ErrUnavailable.Error()
	}
	return fmt.Sprintf("control plane is led by %s at %s", e.Leader, e.Address)
}

// Is makes a NotLeaderError an ErrUnavailable.
func (e *NotLeaderError) Is(target error) bool { return target == ErrUnavailable }
