package disk_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

const pageSize = 4096

// pages returns n pages full of one byte.
func pages(n int, fill byte) []byte { return bytes.Repeat([]byte{fill}, n*pageSize) }

func create(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func writeAt(t *testing.T, f *os.File, b []byte, off int64) {
	t.Helper()
	_, err := f.WriteAt(b, off)
	must(t, err)
}

func syncDir(t *testing.T, dir string) {
	t.Helper()
	d, err := os.Open(dir)
	must(t, err)
	must(t, d.Sync())
	must(t, d.Close())
}

// exists reports whether there is a file; anything but yes and no is fatal.
func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Stat(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// TestSyncedStaysAndUnsyncedMayGo cuts the power many times over the same steps:
// what was synced is always there, and of the rest every mixture comes up.
func TestSyncedStaysAndUnsyncedMayGo(t *testing.T) {
	var kept, lost, torn, longer int
	for seed := range uint64(40) {
		m := newMachine(t, seed)
		path := filepath.Join(m.dir, "a")
		f := create(t, path)
		writeAt(t, f, pages(8, 1), 0)
		must(t, f.Sync())
		syncDir(t, m.dir)
		writeAt(t, f, pages(4, 2), 0)          // over what is there
		writeAt(t, f, pages(4, 3), 8*pageSize) // behind it
		must(t, f.Close())
		m.powerCut()

		b, err := os.ReadFile(path)
		must(t, err)
		if len(b) != 8*pageSize && len(b) != 12*pageSize {
			t.Fatalf("seed %d: %d bytes", seed, len(b))
		}
		if len(b) > 8*pageSize {
			longer++
		}
		for i := range 4 {
			switch p := b[i*pageSize:][:pageSize]; {
			case bytes.Equal(p, pages(1, 2)):
				kept++
			case bytes.Equal(p, pages(1, 1)):
				lost++
			default:
				torn++
				for at := 0; at < pageSize; at += 512 {
					if s := p[at:][:512]; !bytes.Equal(s, pages(1, 1)[:512]) && !bytes.Equal(s, pages(1, 2)[:512]) {
						t.Fatalf("seed %d: a torn sector", seed)
					}
				}
			}
		}
		if !bytes.Equal(b[4*pageSize:8*pageSize], pages(4, 1)) {
			t.Fatalf("seed %d: synced pages are not as they were", seed)
		}
		m.unmount()
	}
	if kept == 0 || lost == 0 || torn == 0 || longer == 0 || longer == 40 {
		t.Errorf("pages kept %d, lost %d, torn %d; the new size %d times of 40: each must come up", kept, lost, torn, longer)
	}
}

// TestNamesNeedTheirOwnSync is the trap in which a new file is synced but not
// its directory.
func TestNamesNeedTheirOwnSync(t *testing.T) {
	var created, renamed, removed int
	for seed := range uint64(40) {
		m := newMachine(t, seed)
		path := func(name string) string { return filepath.Join(m.dir, name) }
		for _, name := range []string{"old", "removed", "target"} {
			f := create(t, path(name))
			writeAt(t, f, []byte(name), 0)
			must(t, f.Sync())
			must(t, f.Close())
		}
		syncDir(t, m.dir)
		must(t, os.Rename(path("old"), path("target")))
		must(t, os.Remove(path("removed")))
		f := create(t, path("new"))
		writeAt(t, f, pages(1, 7), 0)
		must(t, f.Sync())
		must(t, f.Close())
		m.powerCut()

		target, err := os.ReadFile(path("target"))
		must(t, err)
		switch old := exists(t, path("old")); {
		case old && string(target) == "target":
		case !old && string(target) == "old":
			renamed++
		default:
			t.Fatalf("seed %d: a rename half done: target has %q, old is there: %v", seed, target, old)
		}
		if !exists(t, path("removed")) {
			removed++
		} else if b, err := os.ReadFile(path("removed")); err != nil || string(b) != "removed" {
			t.Fatalf("seed %d: a file came back as %q, %v", seed, b, err)
		}
		if exists(t, path("new")) {
			created++
			if b, err := os.ReadFile(path("new")); err != nil || !bytes.Equal(b, pages(1, 7)) {
				t.Fatalf("seed %d: synced bytes are not there: %v", seed, err)
			}
		}
		m.unmount()
	}
	for what, n := range map[string]int{"created": created, "renamed": renamed, "removed": removed} {
		if n == 0 || n == 40 {
			t.Errorf("%s stayed %d times of 40: both must come up", what, n)
		}
	}
	if created > removed || removed > renamed {
		t.Errorf("renamed %d, removed %d, created %d: a later change stayed more often than an earlier one", renamed, removed, created)
	}
}

func TestSyncedNamesStay(t *testing.T) {
	for seed := range uint64(10) {
		m := newMachine(t, seed)
		dir := filepath.Join(m.dir, "d")
		must(t, os.Mkdir(dir, 0o700))
		f := create(t, filepath.Join(dir, "a.tmp"))
		writeAt(t, f, []byte("text"), 0)
		must(t, f.Sync())
		must(t, f.Close())
		must(t, os.Rename(filepath.Join(dir, "a.tmp"), filepath.Join(dir, "a")))
		syncDir(t, dir)
		syncDir(t, m.dir)
		m.powerCut()
		if b, err := os.ReadFile(filepath.Join(dir, "a")); err != nil || string(b) != "text" {
			t.Fatalf("seed %d: %q, %v", seed, b, err)
		}
		if exists(t, filepath.Join(dir, "a.tmp")) {
			t.Fatalf("seed %d: the old name is still there", seed)
		}
		m.unmount()
	}
}

// TestKilledIsNotCut: without a power cut everything that was written is there.
func TestKilledIsNotCut(t *testing.T) {
	m := newMachine(t, 1)
	path := filepath.Join(m.dir, "a")
	f := create(t, path)
	writeAt(t, f, pages(3, 1), 0)
	must(t, f.Close())
	m.reboot()
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, pages(3, 1)) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// TestFailedSyncLosesPages: the second sync succeeds, and the pages are lost
// all the same.
func TestFailedSyncLosesPages(t *testing.T) {
	lost := 0
	for seed := range uint64(20) {
		m := newMachine(t, seed)
		path := filepath.Join(m.dir, "a")
		f := create(t, path)
		writeAt(t, f, pages(4, 1), 0)
		must(t, f.Sync())
		syncDir(t, m.dir)
		m.FailSync(2, syscall.EIO)
		must(t, f.Sync())
		writeAt(t, f, pages(4, 2), 0)
		if err := f.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatalf("the second sync: %v", err)
		}
		must(t, f.Sync())
		must(t, f.Close())
		m.powerCut()
		b, err := os.ReadFile(path)
		must(t, err)
		if !bytes.Equal(b, pages(4, 2)) {
			lost++
		}
		m.unmount()
	}
	if lost == 0 {
		t.Error("nothing was lost in 20 power cuts after a failed sync")
	}
}

func TestLyingDiskLosesWhatWasSynced(t *testing.T) {
	lost := 0
	for seed := range uint64(20) {
		m := newMachine(t, seed)
		path := filepath.Join(m.dir, "a")
		f := create(t, path)
		syncDir(t, m.dir)
		m.Lie(true, true)
		writeAt(t, f, pages(2, 1), 0)
		must(t, f.Sync())
		must(t, f.Close())
		m.powerCut()
		if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, pages(2, 1)) {
			lost++
		}
		m.unmount()
	}
	if lost == 0 {
		t.Error("nothing was lost in 20 power cuts although no sync did anything")
	}
}

func TestNoSpace(t *testing.T) {
	m := newMachine(t, 1)
	m.SetCapacity(10 * pageSize)
	path := filepath.Join(m.dir, "a")
	f := create(t, path)
	must(t, f.Truncate(100*pageSize)) // holes take nothing
	full := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s on a full disk: %v", what, err)
		}
	}
	allocate := func(off, n int64) error { return unix.Fallocate(int(f.Fd()), 0, off, n) }
	must(t, allocate(0, 4*pageSize))
	full("an allocation", allocate(4*pageSize, 7*pageSize))
	writeAt(t, f, pages(6, 1), 4*pageSize)
	_, err := f.WriteAt(pages(1, 1), 20*pageSize)
	full("a write into a hole", err)
	full("a longer file", f.Truncate(200*pageSize))
	_, err = os.Create(filepath.Join(m.dir, "b"))
	full("a new file", err)
	full("a new directory", os.Mkdir(filepath.Join(m.dir, "c"), 0o700))
	writeAt(t, f, pages(4, 2), 0) // allocated before
	must(t, f.Sync())
	var st unix.Statfs_t
	must(t, unix.Statfs(m.dir, &st))
	if st.Bavail != 0 || st.Blocks != 10 {
		t.Errorf("%d of %d pages are free", st.Bavail, st.Blocks)
	}

	m.SetCapacity(12 * pageSize)
	_, err = f.WriteAt(pages(4, 1), 20*pageSize)
	full("a write that is too long", err)
	if m.Used() != 12*pageSize {
		t.Errorf("%d bytes are used where 2 pages of the last write had room", m.Used())
	}
	must(t, f.Truncate(4*pageSize))
	if m.Used() != 4*pageSize {
		t.Errorf("%d bytes are used after the truncation", m.Used())
	}

	must(t, os.Remove(path))
	if m.Used() != 4*pageSize {
		t.Errorf("%d bytes are used while the removed file is open", m.Used())
	}
	must(t, f.Close())
	must(t, unix.Statfs(m.dir, &st)) // waits for nothing; the close is told by the kernel when it likes
	m.powerCut()
	if exists(t, path) && m.Used() == 0 {
		t.Error("a file that came back takes no space")
	}
}

// TestBolt puts a bbolt file on the device and cuts the power under it. It shows
// that the device tells right from wrong before a log of ours lies on it: bbolt
// by itself syncs as it should.
func TestBolt(t *testing.T) {
	rounds := 12
	if testing.Short() {
		rounds = 4
	}
	lost := 0
	for seed := range uint64(rounds) {
		if err := boltRound(t, seed, false); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		if boltRound(t, seed, true) != nil {
			lost++
		}
	}
	if lost == 0 {
		t.Errorf("%d power cuts on a disk that lies, and nothing was lost", rounds)
	}
}

// boltRound writes transactions until the machine stops, cuts the power and
// looks for all that were answered.
func boltRound(t *testing.T, seed uint64, lie bool) error {
	m := newMachine(t, seed)
	defer m.unmount()
	path := filepath.Join(m.dir, "bolt")
	must(t, create(t, path).Close())
	syncDir(t, m.dir)
	m.Lie(lie, lie)
	reached := m.StopAfter(40 + int(seed)*7)
	last := "0"
	p := start(t, "bolt", "write "+path+" 0", func(line string) { last = line })
	<-reached
	m.kill(p)
	m.powerCut()
	return start(t, "bolt", "check "+path+" "+last, func(string) {}).wait()
}

// boltChild either commits transactions for ever and prints the number of each,
// or checks that a number of them is there.
func boltChild() int {
	var verb, path string
	var want uint64
	if _, err := fmt.Fscan(os.Stdin, &verb, &path, &want); err != nil {
		return fail(err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return fail(err)
	}
	defer func() { _ = db.Close() }()
	if verb == "check" {
		return fail(db.View(func(tx *bbolt.Tx) error { return boltCheck(tx, want) }))
	}
	for n := uint64(1); ; n++ {
		err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("b"))
			if err != nil {
				return err
			}
			return b.Put(binary.BigEndian.AppendUint64(nil, n), bytes.Repeat([]byte{byte(n)}, 5000))
		})
		if err != nil {
			return fail(err)
		}
		fmt.Println(n)
	}
}

func boltCheck(tx *bbolt.Tx, want uint64) error {
	for err := range tx.Check() {
		return err
	}
	b := tx.Bucket([]byte("b"))
	for n := uint64(1); n <= want; n++ {
		if v := b.Get(binary.BigEndian.AppendUint64(nil, n)); !bytes.Equal(v, bytes.Repeat([]byte{byte(n)}, 5000)) {
			return fmt.Errorf("transaction %d of %d is lost", n, want)
		}
	}
	return nil
}

// fail prints the error and returns the exit status.
func fail(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}
