//go:build unix

package main

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// terminalWidth returns how many columns a stream shows, and false if it is not
// a terminal.
func terminalWidth(stream any) (int, bool) {
	file, ok := stream.(*os.File)
	if !ok {
		return 0, false
	}
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, false
	}
	if size.Col == 0 {
		return defaultColumns, true
	}
	return int(size.Col), true
}

func isTerminal(w io.Writer) bool {
	_, ok := terminalWidth(w)
	return ok
}
