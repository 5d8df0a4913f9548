package process

import "syscall"

// attributes puts the child into a process group of its own, so that it can be
// killed with all its children, and has the kernel kill it when we die.
func attributes(credential *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Setpgid:    true,
		Pdeathsig:  syscall.SIGKILL,
		Credential: credential,
	}
}
