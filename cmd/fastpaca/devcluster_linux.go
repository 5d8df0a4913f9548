package main

import "syscall"

// childAttributes put a child into a group of its own, so that Ctrl-C at the
// terminal reaches only this process, which stops the children in order; and
// have the kernel end it when this process dies without doing so.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
