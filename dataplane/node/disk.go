package node

import "time"

// diskInterval is how often the node looks what its disk holds. Reports go out
// more often and repeat it.
const diskInterval = 5 * time.Second

// disk is what the node last saw of its disk. Owned by runSession.
type disk struct {
	seen       time.Time
	used, free uint64
}

// lookAtDisk returns what the data takes and what is left, in bytes, at most
// diskInterval old.
func (n *Node) lookAtDisk(now time.Time) (used, free uint64) {
	if d := &n.disk; d.seen.IsZero() || now.Sub(d.seen) >= diskInterval {
		s := n.engine.Stats()
		*d = disk{seen: now, used: s.UsedBytes, free: s.DiskFree}
	}
	return n.disk.used, n.disk.free
}
