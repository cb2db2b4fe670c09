package judge

import "syscall"

// smallSegments keeps a socket to segments of an Ethernet: what the sender's
// system buffers is a multiple of them.
func smallSegments(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1400)
	})
	if err != nil {
		return err
	}
	return failed
}
