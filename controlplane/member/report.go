package member

import (
	"fmt"

	"github.com/fastpaca/fastpaca/controlplane/catalog"
	"github.com/fastpaca/fastpaca/controlplane/rpc"
)

// validateReport checks what the rest of the package relies on. What a node
// says of itself is checked again by the catalog, which decides.
func validateReport(report *rpc.Report) error {
	if report == nil {
		return fmt.Errorf("%w: there is none", rpc.ErrInvalid)
	}
	if report.Node.ID == "" || len(report.Node.ID) > catalog.MaxIDBytes {
		return fmt.Errorf("%w: node id of %d bytes", rpc.ErrInvalid, len(report.Node.ID))
	}
	if len(report.Groups) > catalog.Groups {
		return fmt.Errorf("%w: %d groups", rpc.ErrInvalid, len(report.Groups))
	}
	for i := range report.Groups {
		group := &report.Groups[i]
		if group.Group >= catalog.Groups {
			return fmt.Errorf("%w: group %d", rpc.ErrInvalid, group.Group)
		}
		if len(group.Replicas) > catalog.MaxReplicas {
			return fmt.Errorf("%w: group %d with %d replicas", rpc.ErrInvalid, group.Group, len(group.Replicas))
		}
	}
	return nil
}
