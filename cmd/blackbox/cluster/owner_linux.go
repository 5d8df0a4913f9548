package cluster

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// ownerOf returns the process, among the given ones, that has the socket with
// the local address, or 0.
func ownerOf(address net.Addr, pids []int) int {
	tcp, ok := address.(*net.TCPAddr)
	if !ok || tcp.IP.To4() == nil {
		return 0
	}
	inode := socketInode(tcp)
	if inode == "" {
		return 0
	}
	link := "socket:[" + inode + "]"
	for _, pid := range pids {
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // it has ended
		}
		for _, entry := range entries {
			if target, err := os.Readlink(filepath.Join(dir, entry.Name())); err == nil && target == link {
				return pid
			}
		}
	}
	return 0
}

// socketInode finds the socket bound to a local IPv4 address in the kernel's
// table, which prints addresses as hexadecimal in the machine's byte order.
func socketInode(local *net.TCPAddr) string {
	ip := local.IP.To4()
	want := fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], local.Port)
	file, err := os.Open("/proc/net/tcp")
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		// sl local_address rem_address st queues timer retrnsmt uid timeout inode
		fields := strings.Fields(lines.Text())
		if len(fields) > 9 && fields[1] == want {
			return fields[9]
		}
	}
	return ""
}
