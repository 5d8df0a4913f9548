package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fastpaca/fastpaca/cmd/blackbox/process"
)

// writer is one client's connection to a side. Not safe for concurrent use.
type writer interface {
	// write appends a message with the text, and returns once it is durable.
	write(ctx context.Context, conversation string, text []byte) error
	close()
}

// side is a running server, or several that make up one system.
type side interface {
	name() string
	// prepare makes the conversations.
	prepare(ctx context.Context, conversations []string) error
	connect(ctx context.Context) (writer, error)
	// roots are the processes whose trees make up the system: what they use is
	// what it costs.
	roots() []int
	stop()
}

// cost sums processor time over all processes of a side.
func cost(s side) (time.Duration, error) {
	var sum time.Duration
	for _, root := range s.roots() {
		used, err := processorTime(root)
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

// footprint sums resident memory over all processes of a side.
func footprint(s side) (int64, error) {
	var sum int64
	for _, root := range s.roots() {
		bytes, err := resident(root)
		if err != nil {
			return 0, err
		}
		sum += bytes
	}
	return sum, nil
}

// fastpaca is the single-process server.
type fastpaca struct{ server *process.Server }

// startFastpaca starts a server on a directory, with more flags if any, and
// waits until it is ready.
func (b *bench) startFastpaca(ctx context.Context, dir string, flags ...string) (*fastpaca, error) {
	server, err := process.Start(process.Config{Binary: b.Binary, DataDir: dir, Args: flags})
	if err != nil {
		return nil, err
	}
	ready, cancel := context.WithTimeout(ctx, process.ReadyTimeout)
	defer cancel()
	if err := server.WaitReady(ready); err != nil {
		server.Kill()
		return nil, err
	}
	return &fastpaca{server}, nil
}

// freshFastpaca starts a server on a new directory.
func (b *bench) freshFastpaca(ctx context.Context) (*fastpaca, error) {
	dir, err := os.MkdirTemp(b.dir, "fastpaca-")
	if err != nil {
		return nil, err
	}
	return b.startFastpaca(ctx, filepath.Join(dir, "data"))
}

func (f *fastpaca) name() string { return "fastpaca" }
func (f *fastpaca) roots() []int { return []int{f.server.PID()} }
func (f *fastpaca) stop()        { f.server.Kill() }

// drain stops the server as an operator would.
func (f *fastpaca) drain(ctx context.Context) error {
	if err := f.server.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	code, err := f.server.Wait(ctx)
	if err == nil && code != 0 {
		err = fmt.Errorf("the server exited with code %d:\n%s", code, f.server.Output())
	}
	return err
}

func (f *fastpaca) prepare(ctx context.Context, conversations []string) error {
	w, err := dialWire(ctx, f.server.Address())
	if err != nil {
		return err
	}
	defer w.close()
	for _, id := range conversations {
		if _, err := w.must(200, "PUT", path(id), []byte("{}")); err != nil {
			return err
		}
	}
	return nil
}

func (f *fastpaca) connect(ctx context.Context) (writer, error) {
	w, err := dialWire(ctx, f.server.Address())
	if err != nil {
		return nil, err
	}
	return &httpWriter{wire: w}, nil
}

type httpWriter struct {
	wire   *wire
	target []byte
	body   []byte
}

func (h *httpWriter) close() { h.wire.close() }

func (h *httpWriter) write(_ context.Context, conversation string, text []byte) error {
	h.target = append(append(append(h.target[:0], "/v1/conversations/"...), conversation...), "/messages"...)
	h.body = append(appendMessage(append(h.body[:0], `{"message":`...), text), '}')
	_, err := h.wire.must(201, "POST", string(h.target), h.body)
	return err
}
