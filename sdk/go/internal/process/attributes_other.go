//go:build !linux

package process

import "syscall"

// attributes has nothing to add: a server outlives a test process that panics.
func attributes() *syscall.SysProcAttr { return nil }
