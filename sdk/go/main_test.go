package fastpaca_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/fastpaca/fastpaca/sdk/go/internal/process"
)

// server is what examples and the tests of real servers use.
var server *process.Server

// TestMain starts a server. Where there is none to start, what needs it does
// not run, and says so.
func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	fuzzing := flag.Lookup("test.fuzz").Value.String() != "" || flag.Lookup("test.fuzzworker").Value.String() == "true"
	if !fuzzing { // which takes none, in many processes
		server, err = process.Start()
	}
	switch {
	case fuzzing:
		_ = flag.Set("test.skip", "^(Example|TestReal)")
	case errors.Is(err, process.ErrNoServer):
		fmt.Fprintln(os.Stderr, "NOT RUN: the examples and the tests of a real server:", err)
		_ = flag.Set("test.skip", "^(Example|TestReal)")
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 1
	default:
		defer server.Close()
	}
	// Of the server's process, and of connections that http.DefaultTransport keeps.
	known := goleak.IgnoreCurrent()
	code := m.Run()
	closeIdle()
	if err := goleak.Find(known); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}
