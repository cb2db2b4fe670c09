package main

import (
	"os"
	"syscall"
)

// disk is what a file system says of itself.
type disk struct {
	free   int64 // bytes that this user may still write
	memory bool  // it forgets everything when the machine restarts
}

// The file systems that are in memory, by the numbers of statfs(2).
const (
	tmpfsMagic = 0x01021994
	ramfsMagic = 0x858458f6
)

func diskOf(dir string) (disk, bool) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return disk{}, false
	}
	kind := uint32(s.Type)
	return disk{
		free:   int64(s.Bavail) * int64(s.Bsize),
		memory: kind == tmpfsMagic || kind == ramfsMagic,
	}, true
}

// syncData makes the bytes of a file durable, as the log does.
func syncData(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }

// fileLimit is how many files this process may have open.
func fileLimit() (uint64, bool) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, false
	}
	return limit.Cur, true
}
