//go:build linux || darwin

package main

import (
	"math"
	"syscall"
)

// openFiles returns how many files this process may have open. Go raises the
// soft limit to the hard one before main begins.
func openFiles() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return math.MaxInt32
	}
	return int(min(uint64(limit.Cur), math.MaxInt32))
}
