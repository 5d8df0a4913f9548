package process

import (
	"context"
	"syscall"
)

// TB is what this package needs of a *testing.T. It is an interface so that
// programs can use the package without linking in package testing.
type TB interface {
	Helper()
	Cleanup(func())
	Failed() bool
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// MustStart starts a server, waits until it is ready, and sees to it that it
// is gone when the test ends. A failed test logs what the server printed.
func MustStart(tb TB, cfg Config) *Server {
	tb.Helper()
	s := MustLaunch(tb, cfg)
	ctx, cancel := context.WithTimeout(context.Background(), ReadyTimeout)
	defer cancel()
	if err := s.WaitReady(ctx); err != nil {
		tb.Fatalf("%v", err)
	}
	return s
}

// MustLaunch is MustStart without the wait, for servers that are not expected
// to become ready.
func MustLaunch(tb TB, cfg Config) *Server {
	tb.Helper()
	s, err := Start(cfg)
	if err != nil {
		tb.Fatalf("%v", err)
	}
	tb.Cleanup(func() {
		s.Kill()
		if tb.Failed() {
			tb.Logf("output of server %d on %s:\n%s", s.PID(), s.Address(), s.Output())
		}
	})
	return s
}

// MustStop sends SIGTERM and waits until the server has drained; it fails the
// test unless it exits with code 0.
func (s *Server) MustStop(tb TB) {
	tb.Helper()
	if err := s.Signal(syscall.SIGTERM); err != nil {
		tb.Fatalf("%v", err)
	}
	s.MustExit(tb, 0)
}

// MustExit waits until the server has ended and fails the test unless its exit
// code is the wanted one.
func (s *Server) MustExit(tb TB, code int) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), ReadyTimeout)
	defer cancel()
	got, err := s.Wait(ctx)
	if err != nil {
		tb.Fatalf("%v\n%s", err, s.Output())
	}
	if got != code {
		tb.Fatalf("server exited with code %d, want %d:\n%s", got, code, s.Output())
	}
}
