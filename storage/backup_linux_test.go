package storage

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestBackupToSmallDisk: a disk that is too small gets a sentence, and what was
// written is removed.
func TestBackupToSmallDisk(t *testing.T) {
	disk := smallDisk(t, "300k")
	dir, _ := sampleStore(t)
	archive := backupOf(t, openTest(t, dir, LogOptions{SegmentBytes: 1, DedupeWindow: 100}))
	for what, copies := range map[string]func(to string) (Manifest, error){
		"directory": func(to string) (Manifest, error) {
			return SaveBackup(t.Context(), bytes.NewReader(archive), to, nil)
		},
		"archive": func(to string) (Manifest, error) {
			return SaveArchive(t.Context(), bytes.NewReader(archive), to, nil)
		},
		"restore": func(to string) (Manifest, error) {
			return RestoreArchive(t.Context(), bytes.NewReader(archive), to, nil)
		},
	} {
		to := filepath.Join(disk, what)
		_, err := copies(to)
		want := "there is no room for all of it in " + to + " (no space left on device): free some space or choose another disk; what was written has been removed"
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v", what, err)
		}
		if left, err := os.ReadDir(disk); err != nil || len(left) > 0 {
			t.Errorf("%s has left %v, %v", what, left, err)
		}
	}
}
