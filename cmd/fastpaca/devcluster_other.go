//go:build !linux

package main

import "syscall"

// childAttributes put a child into a group of its own, so that Ctrl-C at the
// terminal reaches only this process, which stops the children in order.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
