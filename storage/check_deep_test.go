package storage

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

// carriedStore is a sample from which retention has taken something, so that
// meta.db has ids whose messages are gone.
func carriedStore(t *testing.T) string {
	t.Helper()
	dir, _ := sampleStoreOf(t, 300)
	l := openTest(t, dir, LogOptions{SegmentBytes: 1, RetentionBytes: 600 << 10})
	l.settle()
	if earliest, _ := l.Bounds(); earliest == 1 {
		t.Fatalf("nothing was removed of %d segments", len(l.state.segs))
	}
	l.publish(message("t.0", "", "new"))
	l.close()
	return dir
}

// TestCheckQuickAndDeep holds what each of the two finds, in a data directory and
// in a backup.
func TestCheckQuickAndDeep(t *testing.T) {
	sample := carriedStore(t)
	archive := backupOf(t, openTest(t, sample, LogOptions{SegmentBytes: 1, RetentionBytes: 600 << 10}))
	unpacked := filepath.Join(t.TempDir(), "backup")
	if _, err := SaveBackup(t.Context(), bytes.NewReader(archive), unpacked, nil); err != nil {
		t.Fatal(err)
	}
	flip := func(t *testing.T, path string, at int) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[at] ^= 0x10
		write(t, path, string(b))
	}
	meta := func(t *testing.T, dir string, fn func(tx *bbolt.Tx) error) { editMeta(t, dir, fn) }
	cases := []struct {
		name  string
		spoil func(t *testing.T, dir, segment string)
		quick bool // finds it
	}{
		{"nothing", func(*testing.T, string, string) {}, false},
		{"a message", func(t *testing.T, _, segment string) {
			b, _ := os.ReadFile(segment)
			flip(t, segment, bytes.Index(b, []byte("zzzzzzzz")))
		}, false},
		{"a page", func(t *testing.T, _, segment string) { flip(t, segment, pageBytes+pageHeadBytes+20) }, true},
		{"a page of a block", func(t *testing.T, _, segment string) {
			b, _ := os.ReadFile(segment)
			flip(t, segment, bytes.Index(b, []byte("TWB1"))/pageBytes*pageBytes+8)
		}, true},
		{"a file that is gone", func(t *testing.T, _, segment string) { remove(t, segment) }, true},
		{"a file that is cut", func(t *testing.T, _, segment string) {
			if err := os.Truncate(segment, 3*pageBytes); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"ids", func(t *testing.T, dir, _ string) {
			meta(t, dir, func(tx *bbolt.Tx) error {
				k, v := tx.Bucket(bucketDigests).Cursor().First()
				v = bytes.Clone(v)
				v[12] ^= 1
				return tx.Bucket(bucketDigests).Put(bytes.Clone(k), v)
			})
		}, true},
		{"the last offset of a topic", func(t *testing.T, dir, _ string) {
			meta(t, dir, func(tx *bbolt.Tx) error {
				k, v := tx.Bucket(bucketLast).Cursor().First()
				k = bytes.Clone(k)
				return tx.Bucket(bucketLast).Put(k, encodeLast(k, number(v[:8])-1))
			})
		}, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for what, from := range map[string]string{"data": sample, "backup": unpacked} {
				dir := filepath.Join(t.TempDir(), what)
				copyDir(t, from, dir)
				segments := slices.DeleteFunc(files(t, dir), func(path string) bool { return !strings.HasSuffix(path, segmentSuffix) })
				c.spoil(t, dir, segments[0])
				before := tree(t, dir)
				quick, err := checkEither(t, dir, what, false)
				found := err != nil || len(quick.Problems) > 0
				if found != c.quick {
					t.Errorf("%s: quick finds %v, %v", what, quick.Problems, err)
				}
				deep, err := checkEither(t, dir, what, true)
				if found := err != nil || len(deep.Problems) > 0; found != (c.name != "nothing") {
					t.Errorf("%s: deep finds %v, %v", what, deep.Problems, err)
				}
				if c.name == "nothing" && (deep.Records == 0 || deep.Records != quick.Records || deep.Segments != quick.Segments) {
					t.Errorf("%s: quick counts %+v, deep %+v", what, quick, deep)
				}
				if !sameTree(before, tree(t, dir)) {
					t.Errorf("%s: the check has changed something", what)
				}
			}
		})
	}
}

func checkEither(t *testing.T, dir, what string, deep bool) (Report, error) {
	t.Helper()
	switch {
	case what == "backup":
		return CheckBackup(t.Context(), dir, deep, nil)
	case deep:
		return Check(t.Context(), dir, nil)
	default:
		return CheckQuick(t.Context(), dir, nil)
	}
}

// TestCheckOfBackupOfDamage: what was damaged before it was copied has the right
// checksum in the manifest, and only the look at each message finds it.
func TestCheckOfBackupOfDamage(t *testing.T) {
	dir := carriedStore(t)
	segment := files(t, dir)[0]
	b, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	b[bytes.Index(b, []byte("zzzzzzzz"))] ^= 1
	write(t, segment, string(b))
	archive := backupOf(t, openTest(t, dir, LogOptions{SegmentBytes: 1, RetentionBytes: 600 << 10}))
	backup := filepath.Join(t.TempDir(), "backup")
	if _, err := SaveBackup(t.Context(), bytes.NewReader(archive), backup, nil); err != nil {
		t.Fatal(err)
	}
	if report, err := CheckBackup(t.Context(), backup, false, nil); err != nil || len(report.Problems) > 0 {
		t.Errorf("quick: %v, %v", report.Problems, err)
	}
	if report, err := CheckBackup(t.Context(), backup, true, nil); err != nil || len(report.Problems) == 0 {
		t.Errorf("deep: %v, %v", report.Problems, err)
	}
	remove(t, filepath.Join(backup, manifestFile))
	if _, err := CheckBackup(t.Context(), backup, false, nil); !errors.Is(err, ErrBackupIncomplete) {
		t.Errorf("without a manifest: %v", err)
	}
}

// TestCheckOfArchive: an archive is verified as a whole.
func TestCheckOfArchive(t *testing.T) {
	archive := backupOf(t, openTest(t, carriedStore(t), LogOptions{SegmentBytes: 1}))
	name := filepath.Join(t.TempDir(), "backup.tar")
	m, err := SaveArchive(t.Context(), bytes.NewReader(archive), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	report, err := CheckBackup(t.Context(), name, false, nil)
	if err != nil || report.Records != int(m.Messages()) || report.Segments == 0 {
		t.Errorf("%+v, %v", report, err)
	}
	archive[bytes.Index(archive, []byte("zzzzzzzz"))] ^= 1
	write(t, name, string(archive))
	if _, err := CheckBackup(t.Context(), name, false, nil); err == nil || !strings.Contains(err.Error(), "does not match its checksum") {
		t.Errorf("damaged: %v", err)
	}
	if _, err := SaveArchive(t.Context(), bytes.NewReader(archive), name, nil); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("over another one: %v", err)
	}
	if _, err := SaveArchive(t.Context(), bytes.NewReader(archive), name+"2.tar", nil); err == nil {
		t.Error("a damaged archive is kept")
	}
	if all, _ := filepath.Glob(filepath.Dir(name) + "/*"); len(all) != 1 {
		t.Errorf("there is %q", all)
	}
}
