package storage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// sampleStore fills a directory with sealed segments, one that is full, and an
// active one, and returns the payloads of what is stored,
// by filter.
func sampleStore(t *testing.T) (dir string, stored map[string][]string) {
	t.Helper()
	return sampleStoreOf(t, 100)
}

// sampleStoreOf is sampleStore with another dedupe window.
func sampleStoreOf(t *testing.T, window int) (dir string, stored map[string][]string) {
	t.Helper()
	dir = t.TempDir()
	l := openTest(t, dir, LogOptions{SegmentBytes: 1, DedupeWindow: window})
	for n := range 12 {
		var batch []*Entry
		for i := range 30 {
			batch = append(batch, message(fmt.Sprintf("t.%d%s", (n*30+i)%50, strings.Repeat("y", (n*30+i)/50*35)), fmt.Sprint(i), fmt.Sprintf("%d-%d-%s", n, i, strings.Repeat("z", 1500))))
		}
		l.publish(batch...)
	}
	l.settle()
	l.publish(message("t.0", "", strings.Repeat("last", 10)))
	stored = make(map[string][]string)
	for _, filter := range []string{"t.3", "t.*", ">"} {
		for _, m := range l.readAll(filter, 0, 0) {
			stored[filter] = append(stored[filter], string(m.Payload))
		}
	}
	l.close()
	return dir, stored
}

func files(t *testing.T, dir string) (paths []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, streamsDir, "main"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		paths = append(paths, filepath.Join(dir, streamsDir, "main", e.Name()))
	}
	return paths
}

// tree returns the content of a directory, to see whether it was touched.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func sameTree(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for path, content := range a {
		if b[path] != content {
			return false
		}
	}
	return true
}

// TestRefusals holds the sentences for directories that cannot be used, and that
// nothing in them is touched.
func TestRefusals(t *testing.T) {
	cases := []struct {
		name  string
		spoil func(t *testing.T, dir string)
		want  string
	}{
		{"foreign", func(t *testing.T, dir string) {
			remove(t, filepath.Join(dir, formatFile))
		}, "not a Tidewire data directory"},
		{"other text", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, formatFile), "hello")
		}, "says something else"},
		{"newer format", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, formatFile), formatText+"2\n")
		}, "use the version of tidewire that wrote it"},
		{"no meta.db", func(t *testing.T, dir string) {
			remove(t, filepath.Join(dir, streamsDir, "main", metaFile))
		}, "but no meta.db"},
		{"no segment in the middle", func(t *testing.T, dir string) {
			remove(t, files(t, dir)[1])
		}, "is missing"},
		{"no first segment", func(t *testing.T, dir string) {
			remove(t, files(t, dir)[0])
		}, "is missing"},
		{"no newest segment", func(t *testing.T, dir string) {
			f := segmentFiles(t, dir)
			removeNewest(t, f)
		}, "is missing"},
		{"segments swapped", func(t *testing.T, dir string) {
			f := files(t, dir)
			f = f[:len(f)-1]
			a, b := f[len(f)-1], f[len(f)-2]
			rename(t, a, a+"x")
			rename(t, b, a)
			rename(t, a+"x", b)
		}, ""},
		{"empty meta.db", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, streamsDir, "main", metaFile), "")
		}, "is damaged"},
		{"text in the active segment", func(t *testing.T, dir string) {
			f := files(t, dir)
			write(t, f[len(f)-2], strings.Repeat("text ", 10000))
		}, "is damaged"},
	}
	sample, _ := sampleStore(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			copyDir(t, sample, dir)
			c.spoil(t, dir)
			before := tree(t, dir)
			l, err := tryOpen(t, dir, LogOptions{SegmentBytes: 1})
			if err == nil {
				if c.want != "" {
					t.Fatalf("opened with head %d", l.head)
				}
				return
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v", err)
			}
			if !sameTree(before, tree(t, dir)) {
				t.Error("the directory was touched")
			}
		})
	}
}

func TestSecondProcess(t *testing.T) {
	l := openTest(t, t.TempDir(), LogOptions{})
	start := time.Now()
	_, err := tryOpen(t, l.dir, LogOptions{})
	if err == nil || !strings.Contains(err.Error(), "in use by another process") || time.Since(start) > time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
	if _, err := Check(t.Context(), l.dir, nil); err == nil {
		t.Error("check of a directory in use")
	}
}

func TestUnwritable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "x")
	for _, dir := range []string{file, filepath.Join(file, "below"), "/proc/tidewire"} {
		if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), "data directory") {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

// TestDamage changes, cuts and blanks the files of a store in many places. The
// store is refused, in a sentence that names the file; or it opens, names the
// file, and tells what is lost; or the place did not matter and everything is
// there. Nothing panics, and nothing wrong is ever read.
func TestDamage(t *testing.T) {
	r := newRand(t)
	sample, stored := sampleStore(t)
	noticed := 0
	for range *stepsFlag {
		dir := t.TempDir()
		copyDir(t, sample, dir)
		all := files(t, dir)
		path := all[r.IntN(len(all))]
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		at := r.IntN(len(content))
		if r.IntN(2) == 0 { // where bbolt keeps what it needs
			at = at/pageBytes*pageBytes + r.IntN(96)
		}
		what := "changed"
		switch r.IntN(4) {
		case 0:
			what = "cut"
			content = content[:at]
		case 1:
			what = "blanked"
			clear(content[at:min(at+1+r.IntN(2*pageBytes), len(content))])
		default:
			content[at] ^= byte(1 + r.IntN(255))
		}
		write(t, path, string(content))
		if err := readDamaged(t, dir, stored); err != nil {
			noticed++
			if !strings.Contains(err.Error(), filepath.Base(path)) {
				t.Errorf("%s %s at %d: %v", filepath.Base(path), what, at, err)
			}
			if report, err := Check(t.Context(), dir, nil); err == nil && len(report.Problems) == 0 {
				t.Errorf("%s %s at %d: check finds nothing", filepath.Base(path), what, at)
			}
		}
		if t.Failed() {
			t.Logf("%s of %d files: %s at %d", filepath.Base(path), len(all), what, at)
			return
		}
	}
	t.Logf("%d of %d were noticed", noticed, *stepsFlag)
}

// readDamaged returns what was noticed, and fails the test if what was read is
// wrong, or anything is missing that was not told.
func readDamaged(t *testing.T, dir string, stored map[string][]string) error {
	l, err := tryOpen(t, dir, LogOptions{SegmentBytes: 1, WindowBytes: 1})
	if err != nil {
		return err
	}
	defer l.close()
	for _, filter := range []string{"t.3", "t.*", ">"} {
		seen := l.readPast(filter, 0)
		var got []string
		for _, m := range seen.messages {
			got = append(got, string(m.Payload))
		}
		want := stored[filter]
		missing := 0
		for _, payload := range want {
			if len(got) > 0 && got[0] == payload {
				got = got[1:]
			} else {
				missing++
			}
		}
		if len(got) > 0 || len(seen.gaps) == 0 && missing > 0 {
			t.Errorf("%s: %d of %d messages are missing, %d are wrong, and nothing was told", filter, missing, len(want), len(got))
		}
	}
	if all := l.Degraded(); len(all) > 0 {
		return errors.New(strings.Join(all, "; "))
	}
	return nil
}

// TestLeftovers opens what a crash may leave at each step of creating, rotating,
// sealing and removing.
func TestLeftovers(t *testing.T) {
	sample, stored := sampleStore(t)
	main := func(dir, name string) string { return filepath.Join(dir, streamsDir, "main", name) }
	next := func(t *testing.T, dir string) *segment { // the one to be prepared next
		l := openTest(t, dir, LogOptions{SegmentBytes: 1})
		defer l.close()
		return l.newSegment(l.state.lastOrdinal() + 1)
	}
	prepare := func(t *testing.T, dir string, n uint64) {
		l := openTest(t, dir, LogOptions{SegmentBytes: 1})
		if len(l.state.spares) > 0 {
			n--
		}
		l.close()
		for range n {
			s := next(t, dir)
			if err := errors.Join(s.create(1<<20, 1<<18), s.close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	cases := map[string]func(t *testing.T, dir string){
		"nothing":          func(*testing.T, string) {},
		"half a segment":   func(t *testing.T, dir string) { write(t, next(t, dir).path+".tmp", "abc") },
		"half a meta.db":   func(t *testing.T, dir string) { write(t, main(dir, metaFile+".tmp"), "abc") },
		"half a FORMAT":    func(t *testing.T, dir string) { write(t, filepath.Join(dir, formatFile+".tmp"), "abc") },
		"a spare":          func(t *testing.T, dir string) { prepare(t, dir, 1) },
		"active and spare": func(t *testing.T, dir string) { prepare(t, dir, 2) },
		"not listed as sealed": func(t *testing.T, dir string) {
			editMeta(t, dir, func(tx *bbolt.Tx) error {
				k, _ := tx.Bucket(bucketSegments).Cursor().Last()
				return tx.Bucket(bucketSegments).Delete(k)
			})
		},
		"index half written": func(t *testing.T, dir string) {
			var last []byte
			editMeta(t, dir, func(tx *bbolt.Tx) error {
				k, _ := tx.Bucket(bucketSegments).Cursor().Last()
				last = bytes.Clone(k)
				return tx.Bucket(bucketSegments).Delete(k)
			})
			edit(t, main(dir, fmt.Sprintf("%08d.seg", number(last))), func(tx *bbolt.Tx) error {
				index := tx.Bucket(bucketIndex)
				if n := index.Stats().KeyN; n < 3 {
					t.Errorf("only %d leaves", n)
				}
				for range 2 {
					k, _ := index.Cursor().Last()
					if err := index.Delete(k); err != nil {
						return err
					}
				}
				return tx.Bucket(bucketInfo).Delete(keySealed)
			})
		},
		"sealed, not cut": func(t *testing.T, dir string) {
			if err := os.Truncate(files(t, dir)[0], 1<<20); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			copyDir(t, sample, dir)
			spoil(t, dir)
			l := openTest(t, dir, LogOptions{SegmentBytes: 1})
			for range 3 {
				l.publish(message("new", "", "x"))
				l.settle()
				l = l.reopen()
			}
			var got []string
			for _, m := range l.readAll("t.*", 0, 0) {
				got = append(got, string(m.Payload))
			}
			if want := stored["t.*"]; !slices.Equal(got, want) || len(l.readAll("new", 0, 0)) != 3 {
				t.Errorf("%d messages of %d", len(got), len(stored["t.*"]))
			}
			l.close()
			if report, err := Check(t.Context(), dir, nil); err != nil || len(report.Problems) > 0 {
				t.Errorf("check: %v %v", err, report.Problems)
			}
			if tmp, _ := filepath.Glob(main(dir, "*.tmp")); len(tmp) > 0 {
				t.Errorf("left over: %v", tmp)
			}
		})
	}
}

// TestTrimmedLeftover opens a store that crashed after a segment was trimmed and
// before its file was removed.
func TestTrimmedLeftover(t *testing.T) {
	sample, _ := sampleStore(t)
	first := files(t, sample)[0]
	old, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	l := openTest(t, sample, LogOptions{SegmentBytes: 1, RetentionBytes: 1})
	l.settle()
	earliest, _ := l.Bounds()
	if _, err := os.Stat(first); err == nil || earliest == 1 {
		t.Fatalf("nothing was removed: earliest %d, %v", earliest, err)
	}
	write(t, first, string(old))
	l = l.reopen()
	l.settle()
	if now, _ := l.Bounds(); now != earliest {
		t.Errorf("earliest %d, then %d", earliest, now)
	}
	if _, err := os.Stat(first); err == nil {
		t.Error("the file is still there")
	}
	err = view(l.meta.db, l.meta.path, func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketLast).ForEach(func(topic, v []byte) error {
			if number(v[:8]) < earliest {
				t.Errorf("the last offset %d of %s is known still", number(v[:8]), topic)
			}
			return nil
		})
	})
	if err != nil {
		t.Error(err)
	}
}

func editMeta(t *testing.T, dir string, fn func(*bbolt.Tx) error) {
	edit(t, filepath.Join(dir, streamsDir, "main", metaFile), fn)
}

func edit(t *testing.T, path string, fn func(*bbolt.Tx) error) {
	t.Helper()
	db, err := openBolt(path, boltOptions{mapped: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(fn), db.Close()); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func segmentFiles(t *testing.T, dir string) []string {
	return slices.DeleteFunc(files(t, dir), func(path string) bool { return filepath.Ext(path) != segmentSuffix })
}

// removeNewest removes the newest segment that was active, and the spare if
// there is one.
func removeNewest(t *testing.T, segments []string) {
	t.Helper()
	for _, path := range slices.Backward(segments) {
		var head []byte
		edit(t, path, func(tx *bbolt.Tx) error {
			head, _ = tx.Bucket(bucketBlocks).Cursor().First()
			return nil
		})
		remove(t, path)
		if head != nil {
			return
		}
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}
