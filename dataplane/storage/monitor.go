package storage

import (
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// spaceInterval is how often free space is sampled.
const spaceInterval = 500 * time.Millisecond

// monitor samples free space until the engine closes.
func (e *Engine) monitor() {
	defer close(e.monitorDone)
	ticker := time.NewTicker(spaceInterval)
	defer ticker.Stop()
	for {
		select {
		case <-e.stopMonitor:
			return
		case <-ticker.C:
			e.sampleSpace()
			e.probeRoom()
		}
	}
}

// sampleSpace compares free space with the reserve. A quarter more than the
// reserve must be free before a full disk counts as having room again, so that
// health does not flap.
func (e *Engine) sampleSpace() {
	usage, err := e.DiskUsage()
	if err != nil {
		if !errors.Is(err, vfs.ErrUnsupported) {
			e.logger.Warn("free space is unknown", "error", err)
		}
		return
	}
	reserve := e.reserve(usage)
	switch {
	case usage.AvailBytes < reserve:
		e.health.setLow(true, fmt.Errorf("%d bytes are free in %s, below the reserve of %d", usage.AvailBytes, e.opts.Dir, reserve))
	case usage.AvailBytes >= reserve+reserve/4:
		e.health.setLow(false, nil)
	}
}

func (e *Engine) reserve(usage vfs.DiskUsage) uint64 {
	switch r := e.opts.FreeReserveBytes; {
	case r < 0:
		return 0
	case r > 0:
		return uint64(r)
	}
	return min(FreeReserveBytesDefault, usage.TotalBytes/reserveFraction)
}

// probeName and probeBytes describe the file that probeRoom writes.
const (
	probeName  = "PROBE"
	probeBytes = 64 << 10
)

// probeRoom finds out whether there is room again after a flush or compaction
// gave up, since Pebble may have nothing left to write that would show it, and
// free space does not show a quota.
func (e *Engine) probeRoom() {
	if !e.health.hasYielded() || e.fenced() {
		return
	}
	name := e.opts.FS.PathJoin(e.opts.Dir, probeName)
	f, err := e.opts.FS.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return
	}
	_, err = f.Write(make([]byte, probeBytes))
	err = errors.Join(err, f.Sync(), f.Close(), e.opts.FS.Remove(name))
	if err == nil {
		e.health.resume()
	}
}
