package cluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// Ports are taken from below the range that the kernel gives to outgoing
// connections: a process that dials the port of a dead one on the same machine
// could else be given that very port, and connect to itself.
const (
	firstPort = 12_000
	lastPort  = 32_000
	portTries = 1000
)

var (
	portsMu   sync.Mutex // guards portsUsed
	portsUsed = map[int]bool{}
)

// freeAddress returns a loopback address whose port was free just now and that
// was not returned before.
func freeAddress() (string, error) {
	portsMu.Lock()
	defer portsMu.Unlock()
	for range portTries {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if portsUsed[port] {
			continue
		}
		address := fmt.Sprintf("127.0.0.1:%d", port)
		l, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		portsUsed[port] = true
		return address, l.Close()
	}
	return "", errors.New("find a free port: all that were tried are taken")
}

// freeAddresses returns n of them.
func freeAddresses(n int) ([]string, error) {
	out := make([]string, n)
	for i := range out {
		var err error
		if out[i], err = freeAddress(); err != nil {
			return nil, err
		}
	}
	return out, nil
}
