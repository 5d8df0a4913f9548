//go:build unix && !linux

package process

import "syscall"

// attributes puts the child into a process group of its own, so that it can be
// killed with all its children.
func attributes(credential *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: credential}
}
