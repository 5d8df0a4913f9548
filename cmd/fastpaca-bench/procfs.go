package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of processor time in /proc/PID/stat: 1/USER_HZ, which is
// 100 on every architecture that Go runs Linux on.
const tick = 10 * time.Millisecond

// processStat is what we read of /proc/PID/stat.
type processStat struct {
	parent int
	// own and reaped are user and system time: of the process itself, and of
	// its children that have ended and been waited for.
	own, reaped time.Duration
}

// parseStat reads the text of /proc/PID/stat. The second field is the name in
// parentheses, which may hold anything, so fields are counted from the last
// closing one.
func parseStat(text []byte) (processStat, error) {
	end := bytes.LastIndexByte(text, ')')
	if end < 0 {
		return processStat{}, fmt.Errorf("stat without a name: %q", text)
	}
	fields := strings.Fields(string(text[end+1:]))
	// From field 3 on: state ppid ... utime(14) stime(15) cutime(16) cstime(17).
	if len(fields) < 15 {
		return processStat{}, fmt.Errorf("stat has %d fields", len(fields)+2)
	}
	var numbers [5]int64
	for i, field := range []int{1, 11, 12, 13, 14} {
		n, err := strconv.ParseInt(fields[field], 10, 64)
		if err != nil {
			return processStat{}, fmt.Errorf("stat: %w", err)
		}
		numbers[i] = n
	}
	return processStat{
		parent: int(numbers[0]),
		own:    time.Duration(numbers[1]+numbers[2]) * tick,
		reaped: time.Duration(numbers[3]+numbers[4]) * tick,
	}, nil
}

// tree returns the processes of a root and its descendants.
func tree(root int) (map[int]processStat, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	all := map[int]processStat{}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		text, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		if all[pid], err = parseStat(text); err != nil {
			return nil, err
		}
	}
	if _, ok := all[root]; !ok {
		return nil, fmt.Errorf("process %d is gone", root)
	}
	members := map[int]processStat{root: all[root]}
	for grown := true; grown; {
		grown = false
		for pid, stat := range all {
			_, known := members[pid]
			if _, child := members[stat.parent]; child && !known {
				members[pid] = stat
				grown = true
			}
		}
	}
	return members, nil
}

// processorTime returns what a process and all its descendants have used, with
// those that have ended.
func processorTime(root int) (time.Duration, error) {
	members, err := tree(root)
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, stat := range members {
		sum += stat.own + stat.reaped
	}
	return sum, nil
}

// ownProcessorTime returns what this process has used.
func ownProcessorTime() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// resident returns the memory of a process and its descendants, in bytes, with
// pages that several share counted once.
func resident(root int) (int64, error) {
	members, err := tree(root)
	if err != nil {
		return 0, err
	}
	if len(members) == 1 {
		return memoryField(fmt.Sprintf("/proc/%d/status", root), "VmRSS")
	}
	var sum int64
	for pid := range members {
		// An error means that it has ended since.
		share, _ := memoryField(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss")
		sum += share
	}
	return sum, nil
}

// memoryField reads a field "Name:   123 kB" and returns bytes.
func memoryField(path, name string) (int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) >= 2 && fields[0] == name+":" {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("%s has no field %s", path, name)
}

// machine describes what the figures were measured on.
func machine() string {
	kernel := "unknown kernel"
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel = strings.TrimSpace(string(text))
	}
	return fmt.Sprintf("%d cores, %s/%s, Linux %s, %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, kernel, runtime.Version())
}
