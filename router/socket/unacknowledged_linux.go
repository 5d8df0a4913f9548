package socket

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// maxUnacknowledged is how long sent bytes may go unacknowledged before the
// kernel gives a connection up. It finds clients of events that vanished, who
// are never asked for an answer. By itself it would take a quarter of an hour.
const maxUnacknowledged = time.Minute

func limitUnacknowledged(c *net.TCPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(maxUnacknowledged.Milliseconds()))
	})
}
