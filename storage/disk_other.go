//go:build !linux

package storage

import "os"

// allocate gives the file the given size; the space comes when it is written.
func allocate(f *os.File, _, to int64) error { return f.Truncate(to) }

// prefetch does nothing here.
func prefetch(string, int64) {}
