//go:build !unix

package storage

import "os"

// lockFile does nothing: bbolt locks the files of each log itself.
func lockFile(*os.File) error { return nil }

func lockShared(*os.File) error { return nil }
