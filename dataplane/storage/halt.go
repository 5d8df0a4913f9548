package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/fastpaca/fastpaca/dataplane/rpc"
)

// halter ends an engine after an error from which it must not go on. Pebble's
// contract for such errors is that the goroutine that met one never returns
// from the logger's Fatalf or from the file operation: returning from Fatalf
// would make a commit whose sync failed report success, and an error from a
// log write makes Pebble panic in whichever goroutine commits next. Exiting
// here would hide the reason from the operator. So the goroutine is parked,
// the directory is fenced against further changes, and the process is told
// through Engine.Failed.
type halter struct {
	logger *slog.Logger
	health *health
	halted chan struct{} // closed by the first halt

	once sync.Once
	err  error // written before halted is closed
}

// halt records the first error, fences the engine and never returns.
func (h *halter) halt(err error) {
	h.fail(err)
	park()
}

// fail is halt for goroutines that are not Pebble's.
func (h *halter) fail(err error) {
	h.once.Do(func() {
		h.err = fmt.Errorf("%w: %w", ErrFailed, err)
		h.health.setFinal(fmt.Errorf("%w: %w", rpc.ErrUnavailable, h.err))
		close(h.halted)
		if errors.Is(err, errClosing) {
			return // Close reports it
		}
		h.logger.Error("storage engine halted", "error", err)
	})
}

// fenced reports whether the engine has halted.
func (h *halter) fenced() bool {
	select {
	case <-h.halted:
		return true
	default:
		return false
	}
}

// errClosing marks that the engine was told to close while it waited for room.
var errClosing = errors.New("closed while waiting for room")

// park blocks the calling goroutine until the process ends. What it holds
// stays held: the process is about to end, and until then nothing may build on
// the operation that failed.
func park() { select {} }
