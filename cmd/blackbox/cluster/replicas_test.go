package cluster

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// verifyPause is the wait before replicas are compared again: those that lag
// are given time, those that differ will differ for ever.
const verifyPause = 500 * time.Millisecond

// verifyBound is how long replicas may take to be met at equal indexes.
const verifyBound = 3 * time.Minute

// sameReplicas makes sure that the replicas of every group have equal state.
// All processes must run; nobody needs to have stopped writing.
func sameReplicas(t *testing.T, c *Cluster) {
	t.Helper()
	began := time.Now()
	within(t, verifyBound, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), verifyBound)
		defer cancel()
		code, output, err := c.Run(ctx, "cluster", "verify", "--control", c.ControlAddresses())
		if err == nil && code != 0 {
			err = fmt.Errorf("exit code %d", code)
		}
		if err != nil {
			_ = pause(ctx, verifyPause)
			return fmt.Errorf("compare replicas: %w:\n%s", err, output)
		}
		return nil
	})
	t.Logf("all replicas are equal, which took %v to see", time.Since(began).Round(time.Millisecond))
}
