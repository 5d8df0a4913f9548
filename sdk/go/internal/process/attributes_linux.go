package process

import "syscall"

// attributes has the kernel kill the server when the thread that started it
// ends, as it does with a test process that panics.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
