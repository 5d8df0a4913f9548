package main

import (
	"os"
	"runtime"
	"runtime/debug"
)

// What the Go runtime is tuned to on a process that runs Raft and storage. The
// user's GOGC, GOMEMLIMIT and GOMAXPROCS win.
const (
	// gcPercent trades memory, of which a mostly idle heap of a few ten MB
	// uses little, for fewer collections on the append path.
	gcPercent = 400
	// gcPercentRouter is for a process without storage: there it keeps the
	// resident size under load below 60 MB, for a few µs per append.
	gcPercentRouter = 100
	// gcSoftLimit makes the collector work harder before the resident size
	// passes what is promised in the README.
	gcSoftLimit = 320 << 20
	// extraProcs are scheduler slots beyond the cores: a blocking fsync keeps
	// its slot until the runtime takes it back, and the others should go on.
	extraProcs = 2
)

func tuneRuntime() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(gcSoftLimit)
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + extraProcs)
	}
}

// tuneRouter is for a process that is a router only, after tuneRuntime.
func tuneRouter() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercentRouter)
	}
}
