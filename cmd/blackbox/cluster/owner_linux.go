package cluster

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// ownerOf returns the process, among the given ones, that has the socket which is
// connected from local to remote, or 0. Both count: the kernel gives the same
// local port to connections that lead elsewhere.
func ownerOf(local, remote net.Addr, pids []int) int {
	from, to := printed(local), printed(remote)
	if from == "" || to == "" {
		return 0
	}
	inode := socketInode(from, to)
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

// printed is an IPv4 address as the kernel's table of sockets has it, in
// hexadecimal and in the machine's byte order; nothing for another address.
func printed(address net.Addr) string {
	tcp, ok := address.(*net.TCPAddr)
	if !ok || tcp.IP.To4() == nil {
		return ""
	}
	ip := tcp.IP.To4()
	return fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], tcp.Port)
}

// socketInode finds a connected socket in the kernel's table.
func socketInode(local, remote string) string {
	file, err := os.Open("/proc/net/tcp")
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		// sl local_address rem_address st queues timer retrnsmt uid timeout inode
		fields := strings.Fields(lines.Text())
		if len(fields) > 9 && fields[1] == local && fields[2] == remote {
			return fields[9]
		}
	}
	return ""
}
