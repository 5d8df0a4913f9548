//go:build !unix

package main

import "io"

// terminalWidth knows no terminals here: everything is printed as into a pipe.
func terminalWidth(any) (int, bool) { return 0, false }

func isTerminal(io.Writer) bool { return false }
