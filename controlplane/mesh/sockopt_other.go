//go:build !linux

package mesh

import (
	"net"
	"time"
)

// setUserTimeout needs Linux; elsewhere the keep-alive probes have to do.
func setUserTimeout(*net.TCPConn, time.Duration) {}
