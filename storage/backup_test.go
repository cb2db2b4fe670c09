package storage

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// backupOf makes a backup of a log that has nothing else to do.
func backupOf(t *testing.T, l *testLog) []byte {
	t.Helper()
	var b bytes.Buffer
	err := l.during(func() {
		if _, err := l.store.Backup(t.Context(), &b, "test"); err != nil {
			t.Fatal(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// restored opens what a backup has.
func restored(t *testing.T, archive []byte, opts LogOptions) *testLog {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	if _, err := RestoreArchive(t.Context(), bytes.NewReader(archive), dir, nil); err != nil {
		t.Fatal(err)
	}
	report, err := Check(t.Context(), dir, nil)
	if err != nil || len(report.Problems) > 0 {
		t.Fatalf("check of what was restored: %v %v", err, report.Problems)
	}
	return openTest(t, dir, opts)
}

// TestBackup holds what a backup promises of a log that stands still: all of its
// messages, ids and terms are there, and nothing else.
func TestBackup(t *testing.T) {
	dir, stored := sampleStore(t)
	l := openTest(t, dir, LogOptions{SegmentBytes: 1, DedupeWindow: 100})
	before := l.readAll(">", 0, 0)
	archive := backupOf(t, l)
	if tmp, _ := filepath.Glob(filepath.Join(dir, streamsDir, "main", "*.tmp")); len(tmp) > 0 {
		t.Errorf("left over: %v", tmp)
	}
	m, err := VerifyBackup(t.Context(), bytes.NewReader(archive), nil)
	if err != nil {
		t.Fatal(err)
	}
	if m.Messages() != uint64(len(stored[">"])) || m.Files() < 3 || m.Streams[0].Earliest != 1 {
		t.Errorf("%d messages in %d files: %+v", m.Messages(), m.Files(), m.Streams)
	}
	for _, p := range contentsOf(t, archive) {
		if !strings.HasSuffix(p.name, segmentSuffix) {
			continue
		}
		if b, err := os.ReadFile(filepath.Join(dir, p.name)); err != nil || !bytes.Equal(b, archive[p.from:p.from+p.size]) {
			t.Errorf("%s is not as it is in the data directory: %v", p.name, err)
		}
	}
	other := restored(t, archive, l.opts)
	after := other.readAll(">", 0, 0)
	if !slices.EqualFunc(before, after, func(a, b protocol.Message) bool {
		return a.Position == b.Position && string(a.Payload) == string(b.Payload)
	}) {
		t.Errorf("%d messages became %d, or others", len(before), len(after))
	}
	for i := range 5 {
		id, payload := fmt.Sprint(20+i), fmt.Sprintf("11-%d-%s", 20+i, strings.Repeat("z", 1500))
		topic := fmt.Sprintf("t.%d%s", (11*30+20+i)%50, strings.Repeat("y", (11*30+20+i)/50*35))
		if r := other.publish(message(topic, id, payload))[0]; !r.Duplicate {
			t.Errorf("the id %s is stored again: %+v", id, r)
		}
	}
	if other.term() == l.term() {
		t.Error("the restored log has the same term")
	}
}

// TestBackupOfLittle makes backups of logs that have nothing in their newest
// segment, or nothing at all, again and again.
func TestBackupOfLittle(t *testing.T) {
	l := openTest(t, t.TempDir(), LogOptions{})
	for range 3 {
		if _, head := restored(t, backupOf(t, l), LogOptions{}).Bounds(); head != 0 {
			t.Errorf("head %d of an empty log", head)
		}
	}
	l.publish(message("a", "", "x"))
	l = l.reopen()
	for range 3 {
		if got := restored(t, backupOf(t, l), LogOptions{}).readAll(">", 0, 0); len(got) != 1 {
			t.Errorf("%d messages", len(got))
		}
	}
	if n := len(l.state.segs); n > 3 {
		t.Errorf("%d segments after three backups without a message between them", n)
	}
}

// TestBackupRollsBack: positions from after the backup are known to be gone,
// exactly, even if the term they are of had stored nothing when it was made.
func TestBackupRollsBack(t *testing.T) {
	for _, published := range []int{0, 1} {
		l := openTest(t, t.TempDir(), LogOptions{})
		l.publish(message("a", "", "1"), message("a", "", "2"))
		l = l.reopen()
		for range published {
			l.publish(message("a", "", "3"))
		}
		archive := backupOf(t, l)
		_, head := l.Bounds()
		late := l.publish(message("a", "", "late"), message("a", "", "later"))
		other := restored(t, archive, LogOptions{})
		for range 10 { // past the old head
			other.publish(message("a", "", "new"))
		}
		for i, r := range late {
			got, err := other.Resolve(protocol.Start{Kind: protocol.StartPosition, Position: r.Position}, mustFilter(t, ">"), 0)
			want := Gap{Reason: GapRolledBack, Term: r.Position.Term, After: head, Through: r.Position.Offset, Next: head}
			if err != nil || got.Gap == nil || *got.Gap != want || got.After != head {
				t.Errorf("%d published before, position %d: %+v, %+v, %v; want %+v", published, i, got, got.Gap, err, want)
			}
		}
		p := l.PositionOf(head)
		if got, err := other.Resolve(protocol.Start{Kind: protocol.StartPosition, Position: p}, mustFilter(t, ">"), 0); err != nil || got.Gap != nil || got.After != head {
			t.Errorf("the last position that the backup has: %+v, %+v, %v", got, got.Gap, err)
		}
	}
}

// TestBackupWhileAll makes backups while messages are published, segments sealed
// and removed, and compares each with what had been answered before it began.
func TestBackupWhileAll(t *testing.T) {
	rng := newRand(t)
	clock := newClock()
	l := openTest(t, memoryDir(t), LogOptions{SegmentBytes: 1, DedupeWindow: 100 + rng.IntN(500), RetentionBytes: 6 << 20, Now: clock.now})
	w := &backupWorld{t: t, log: l, answers: make(map[uint64]string)}
	w.metered = true
	trimmed := 0
	err := l.during(func() {
		stop := make(chan struct{})
		var publisher sync.WaitGroup
		publisher.Go(func() { w.publish(rng.Uint64(), stop) })
		for n := range 4 {
			w.grant(4500 - min(n, 1)*3000)
			w.await(4500 + 1500*n) // and more, while a backup is read
			known := w.known()
			earliest, _ := l.Bounds()
			each := 1 + rng.IntN(12)
			slow := &slowWriter{every: 64 << 10, wait: func() { w.grant(each) }}
			if _, err := l.store.Backup(t.Context(), slow, "test"); err != nil {
				t.Errorf("backup %d: %v", n, err)
				break
			}
			if now, _ := l.Bounds(); now > earliest {
				trimmed++
			}
			w.compare(slow.Bytes(), known)
		}
		w.grant(1 << 30)
		close(stop)
		publisher.Wait()
	})
	if err != nil || trimmed == 0 {
		t.Errorf("%v; retention took something during %d of the backups", err, trimmed)
	}
}

// backupWorld is a publisher and what it was answered.
type backupWorld struct {
	t       *testing.T
	log     *testLog
	mu      sync.Mutex
	answers map[uint64]string // by offset
	count   counter
	metered bool    // publish only what is granted
	granted counter // messages
}

func (w *backupWorld) grant(n int) { w.granted.add(n) }

func (w *backupWorld) publish(seed uint64, stop chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		if w.metered {
			w.granted.await(n + 1)
		}
		payload := fmt.Sprintf("%d-%s", n, strings.Repeat("p", int((seed+uint64(n)*7919)%3000)))
		done := make(chan Result, 1)
		e := message(fmt.Sprintf("t.%d", n%17), fmt.Sprint(n), payload)
		e.Done = func(r Result) { done <- r }
		if err := w.log.Append(w.t.Context(), e); err != nil {
			w.t.Error(err)
			return
		}
		r := <-done
		w.mu.Lock()
		w.answers[r.Position.Offset] = payload
		w.mu.Unlock()
		w.count.add(1)
	}
}

func (w *backupWorld) await(n int) { w.count.await(n) }

func (w *backupWorld) known() map[uint64]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.answers)
}

// compare restores a backup: everything known that retention had not taken is in
// it, without a hole, each id is a duplicate as far as the window goes, and
// nothing is there that was never answered.
func (w *backupWorld) compare(archive []byte, known map[uint64]string) {
	t := w.t
	other := restored(t, archive, w.log.opts)
	defer other.close()
	earliest, head := other.Bounds()
	newest := slices.Max(slices.Collect(maps.Keys(known)))
	if head < newest {
		t.Errorf("the backup ends at %d, %d was answered before", head, newest)
	}
	if first := other.readAll(">", earliest-1, 0); len(first) == 0 || int(head-earliest)+1 != len(first) {
		t.Errorf("%d messages from %d to %d", len(first), earliest, head)
	}
	all := w.known()
	for _, m := range other.readAll(">", earliest-1, 0) {
		if want := all[m.Position.Offset]; want != string(m.Payload) && m.Position.Offset <= newest {
			t.Errorf("offset %d has %.10q, %.10q was answered", m.Position.Offset, m.Payload, want)
		}
		delete(known, m.Position.Offset)
	}
	for offset := range known {
		if offset >= earliest {
			t.Errorf("offset %d is missing", offset)
		}
	}
	// Every message has its own id, so the offset tells what the window holds.
	window := uint64(w.log.opts.DedupeWindow)
	for _, back := range []uint64{0, window / 2, window - 1, window} {
		if head <= back {
			continue
		}
		offset := head - back
		payload, answered := all[offset]
		id, _, _ := strings.Cut(payload, "-")
		var n int
		_, _ = fmt.Sscan(id, &n)
		if !answered {
			continue
		}
		var state dedupeRow
		key := KeyOf(fmt.Sprintf("t.%d", n%17), id)
		row := other.committer.dedupe.find(&key)
		if row != nil {
			state = *row
		}
		if (back < window) != (row != nil && state.first == offset) {
			t.Errorf("of a window of %d the id %d before the head (%d) is %+v", window, back, offset, state)
		}
	}
}

// counter is a number that others wait for.
type counter struct {
	n     atomic.Int64
	mu    sync.Mutex
	waits chan struct{}
}

func (c *counter) load() int { return int(c.n.Load()) }

func (c *counter) add(n int) {
	c.n.Add(int64(n))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waits != nil {
		close(c.waits)
		c.waits = nil
	}
}

func (c *counter) await(n int) {
	for {
		c.mu.Lock()
		if c.load() >= n {
			c.mu.Unlock()
			return
		}
		if c.waits == nil {
			c.waits = make(chan struct{})
		}
		waits := c.waits
		c.mu.Unlock()
		<-waits
	}
}

// slowWriter waits after every so many bytes.
type slowWriter struct {
	bytes.Buffer
	every, due int
	wait       func()
}

func (w *slowWriter) Write(b []byte) (int, error) {
	if w.due += len(b); w.due >= w.every {
		w.due = 0
		w.wait()
	}
	return w.Buffer.Write(b)
}

// memoryDir is a directory in which a sync costs nothing, if there is one.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "tidewire-test")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// TestBackupGivesWay: a reader that is slower than the publishers does not keep
// retention from its work for ever; its backup ends with a sentence.
func TestBackupGivesWay(t *testing.T) {
	l := openTest(t, memoryDir(t), LogOptions{SegmentBytes: 1, RetentionBytes: 2 << 20})
	w := &backupWorld{t: t, log: l, answers: make(map[uint64]string)}
	err := l.during(func() {
		stop := make(chan struct{})
		var publisher sync.WaitGroup
		publisher.Go(func() { w.publish(1, stop) })
		w.await(2000)
		slow := &slowWriter{every: 64 << 10, wait: func() { w.await(w.count.load() + 600) }}
		_, err := l.store.Backup(t.Context(), slow, "test")
		if !errors.Is(err, errOvertaken) {
			t.Errorf("a slow backup ended with %v", err)
		}
		_, err = VerifyBackup(t.Context(), bytes.NewReader(slow.Bytes()), nil)
		if !errors.Is(err, ErrBackupIncomplete) {
			t.Errorf("it reads as %v", err)
		}
		close(stop)
		publisher.Wait()
	})
	if err != nil {
		t.Error(err)
	}
	var size uint64
	l.settle()
	for _, s := range l.state.segs {
		size += s.info.size
	}
	if size > 3<<20 {
		t.Errorf("%d bytes are kept", size)
	}
}

// TestBackupHoldsRetention: what has not been copied stays a little longer than
// the retention age says, and goes at the end of the backup.
func TestBackupHoldsRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := openTest(t, memoryDir(t), LogOptions{SegmentBytes: 1, RetentionAge: 8 * time.Hour})
		err := l.during(func() {
			w := &backupWorld{t: t, log: l, answers: make(map[uint64]string)}
			stop := make(chan struct{})
			var publisher sync.WaitGroup
			publisher.Go(func() { w.publish(1, stop) })
			w.await(300)
			close(stop)
			publisher.Wait()
			var earliest []uint64
			slow := &slowWriter{every: 300 << 10}
			slow.wait = func() {
				if len(earliest) < 2 {
					time.Sleep(8*time.Hour + 20*time.Minute - time.Duration(len(earliest))*8*time.Hour)
					synctest.Wait()
					first, _ := l.Bounds()
					earliest = append(earliest, first)
					if pause := l.keeper.nextDeadline(); len(earliest) == 1 && pause < time.Minute {
						t.Errorf("the keeper looks again after %v", pause)
					}
				}
			}
			if _, err := l.store.Backup(t.Context(), slow, "test"); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			last, head := l.Bounds()
			if len(earliest) != 2 || earliest[0] == head+1 || last != head+1 {
				t.Errorf("earliest offset during the backup %d, after it %d, head %d", earliest, last, head)
			}
			m, err := VerifyBackup(t.Context(), bytes.NewReader(slow.Bytes()), nil)
			if err != nil || m.Messages() != uint64(w.count.load()) {
				t.Errorf("%d messages of %d, %v", m.Messages(), w.count.load(), err)
			}
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// TestOneBackupAtATime: a second one is refused, and a cancelled one ends.
func TestOneBackupAtATime(t *testing.T) {
	dir, _ := sampleStore(t)
	l := openTest(t, dir, LogOptions{SegmentBytes: 1, DedupeWindow: 100})
	err := l.during(func() {
		ctx, cancel := context.WithCancel(t.Context())
		slow := &slowWriter{every: 100 << 10}
		slow.wait = func() {
			if _, err := l.store.Backup(t.Context(), io.Discard, "test"); !errors.Is(err, ErrBackupRuns) {
				t.Errorf("a second one: %v", err)
			}
			cancel()
		}
		if _, err := l.store.Backup(ctx, slow, "test"); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		if _, err := l.store.Backup(t.Context(), io.Discard, "test"); err != nil {
			t.Errorf("the next one: %v", err)
		}
	})
	if err != nil {
		t.Error(err)
	}
	if l.keeper.pin.Load() != nil {
		t.Error("retention is still held")
	}
}

// TestDamagedBackups cuts and flips bytes of a backup, as an archive and as a
// directory: each is noticed, and what it was to become is left as it was.
func TestDamagedBackups(t *testing.T) {
	rng := newRand(t)
	dir, _ := sampleStore(t)
	archive := backupOf(t, openTest(t, dir, LogOptions{SegmentBytes: 1, DedupeWindow: 100}))
	unpacked := filepath.Join(t.TempDir(), "backup")
	if _, err := SaveBackup(t.Context(), bytes.NewReader(archive), unpacked, nil); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "data")
	refused := func(what string, err error) {
		t.Helper()
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Stat(to); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the directory is there", what)
			_ = os.RemoveAll(to)
		}
	}
	end := bytes.LastIndex(archive, []byte("\n")) // of the manifest
	for range *stepsFlag / 4 {
		at := rng.IntN(end)
		_, err := RestoreArchive(t.Context(), bytes.NewReader(archive[:at]), to, nil)
		refused(fmt.Sprintf("cut at %d", at), err)
	}
	contents := contentsOf(t, archive)
	for range *stepsFlag / 4 {
		at := contents[rng.IntN(len(contents))]
		flipped := bytes.Clone(archive)
		flipped[at.from+rng.IntN(at.size)] ^= 1 << rng.IntN(8)
		_, err := RestoreArchive(t.Context(), bytes.NewReader(flipped), to, nil)
		refused("flipped in "+at.name, err)
	}
	names := slices.Sorted(maps.Keys(tree(t, unpacked)))
	for range *stepsFlag / 4 {
		name := names[rng.IntN(len(names))]
		if filepath.Base(name) == backupFile {
			continue // it only tells people and progress
		}
		was, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		spoilt := bytes.Clone(was)
		switch rng.IntN(3) {
		case 0:
			spoilt = spoilt[:rng.IntN(len(spoilt))]
		case 1:
			spoilt[rng.IntN(len(spoilt)-1)] ^= 1 << rng.IntN(8)
		default:
			remove(t, name)
			spoilt = nil
		}
		if spoilt != nil {
			write(t, name, string(spoilt))
		}
		_, err = Restore(t.Context(), unpacked, to, nil)
		refused("directory, "+name, err)
		write(t, name, string(was))
	}
	if _, err := Restore(t.Context(), unpacked, to, nil); err != nil {
		t.Error(err)
	}
	before := tree(t, to)
	if _, err := Restore(t.Context(), unpacked, to, nil); err == nil || !sameTree(before, tree(t, to)) {
		t.Errorf("into a directory that is not empty: %v", err)
	}
}

type part struct {
	name       string
	from, size int
}

// contentsOf tells where the contents of the files in an archive are.
func contentsOf(t *testing.T, archive []byte) (parts []part) {
	t.Helper()
	r := bytes.NewReader(archive)
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if err == io.EOF {
			return parts
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Name != backupFile {
			parts = append(parts, part{h.Name, len(archive) - r.Len(), int(h.Size)})
		}
	}
}

// TestHostileArchives: names that lead elsewhere and other formats are refused.
func TestHostileArchives(t *testing.T) {
	head := `{"format":1,"data":"1"}`
	for _, c := range []struct {
		files []string
		want  string
	}{
		{nil, "not a backup of tidewire"},
		{[]string{"hello", "x"}, "not a backup of tidewire"},
		{[]string{backupFile, "{"}, "damaged"},
		{[]string{backupFile, `{"format":2,"data":"1"}`}, "the backup has format 2, this program knows format 1: use the version"},
		{[]string{backupFile, `{"format":1,"data":"0"}`}, "data of format 0"},
		{[]string{backupFile, head}, "not complete"},
		{[]string{backupFile, head, "streams/../x", "x"}, "cannot be in a backup"},
		{[]string{backupFile, head, "streams/main/../../00000001.seg", "x"}, "cannot be in a backup"},
		{[]string{backupFile, head, "/streams/main/00000001.seg", "x"}, "cannot be in a backup"},
		{[]string{backupFile, head, "streams/main/1.seg", "x"}, "cannot be in a backup"},
		{[]string{backupFile, head, "streams/main/00000001.seg", "x", "streams/main/00000001.seg", "y"}, "cannot be in a backup"},
		{[]string{backupFile, head, manifestFile, "{}\n00\n"}, "damaged"},
		{[]string{backupFile, head, manifestFile, signed(`{"format":1,"data":"1","streams":[{"name":"main","files":[{"name":"../x"}]}]}`)}, "cannot be"},
		{[]string{backupFile, head, manifestFile, signed(`{"format":1,"data":"1","streams":[{"name":"main","files":[{"name":"streams/main/meta.db","bytes":1}]}]}`)}, "damaged"},
		{[]string{backupFile, head, manifestFile, signed(`{"format":1,"data":"1","streams":[{"name":"main"}]}`)}, "damaged"},
		{[]string{backupFile, head, "streams/main/meta.db", "x", manifestFile, signed(`{"format":1,"data":"1"}`)}, "damaged"},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for i := 0; i < len(c.files); i += 2 {
			if err := w.WriteHeader(&tar.Header{Name: c.files[i], Size: int64(len(c.files[i+1])), Mode: 0o644}); err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(w, c.files[i+1])
		}
		_ = w.Close()
		parent := t.TempDir()
		_, err := RestoreArchive(t.Context(), &b, filepath.Join(parent, "data"), nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60q: %v", c.files, err)
		}
		if entries, _ := os.ReadDir(parent); len(entries) > 0 {
			t.Errorf("%.60q has left %v", c.files, entries)
		}
	}
}

func signed(text string) string { return text + "\n" + sumOf([]byte(text)) + "\n" }

// TestRestoreCutShort: what a crash leaves of a restore is no data directory, and
// nothing is restored on top of it.
func TestRestoreCutShort(t *testing.T) {
	archive := backupOf(t, openTest(t, t.TempDir(), LogOptions{}))
	for _, left := range [][]string{{restoreDir}, {restoreDir, streamsDir}, {streamsDir}, {streamsDir, formatFile + ".tmp"}} {
		dir := t.TempDir()
		for _, name := range left {
			if err := os.Mkdir(filepath.Join(dir, name), 0o750); err != nil {
				t.Fatal(err)
			}
		}
		if s, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), "not a Tidewire data directory") {
			t.Errorf("%q: a start says %v", left, err)
			_ = s.Close()
		}
		if _, err := RestoreArchive(t.Context(), bytes.NewReader(archive), dir, nil); err == nil || !strings.Contains(err.Error(), "is not empty") {
			t.Errorf("%q: a restore says %v", left, err)
		}
	}
}
