package main

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// endsTorn reports whether out is a file that is being appended to (`>> file`)
// and whose last line has no end: then a run before this one was killed while it
// wrote. What comes next would be glued to it.
//
// Standard output can only be written, so the file is opened once more; where
// that is not allowed the answer is no.
func endsTorn(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return false
	}
	flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), syscall.F_GETFL, 0)
	if errno != 0 || flags&syscall.O_APPEND == 0 {
		return false
	}
	again, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return false
	}
	defer func() { _ = again.Close() }()
	var last [1]byte
	_, err = again.ReadAt(last[:], info.Size()-1)
	return err == nil && last[0] != '\n'
}
