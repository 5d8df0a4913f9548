//go:build !linux

package archivetest

import "syscall"

func (s *Server) attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: s.credential}
}
