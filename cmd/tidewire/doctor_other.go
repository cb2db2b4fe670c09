//go:build !linux

package main

import "os"

// disk is what a file system says of itself.
type disk struct {
	free   int64
	memory bool
}

// What the doctor cannot ask other systems than Linux it leaves out.

func diskOf(string) (disk, bool) { return disk{}, false }

func syncData(f *os.File) error { return f.Sync() }

func fileLimit() (uint64, bool) { return 0, false }
