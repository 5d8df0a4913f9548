package archivetest

import "syscall"

// attributes make the server end with the test, however that ends.
func (s *Server) attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: s.credential, Pdeathsig: syscall.SIGKILL}
}
