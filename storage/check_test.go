package storage

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

// TestCheckFindsAll: one problem hides no other, in the same segment, in another
// one, or in meta.db.
func TestCheckFindsAll(t *testing.T) {
	sample, stored := damagedSample(t, LogOptions{SegmentBytes: 1})
	truths := readTruth(t, sample)
	sample.close()
	dir := t.TempDir()
	copyDir(t, sample.dir, dir)
	in := func(path string) string { return strings.Replace(path, sample.dir, dir, 1) }
	spoil := func(tr *truth, b *trueBlock, at int) {
		for _, begin := range b.at {
			flipByte(t, in(tr.path), begin+at, 0x55)
		}
	}
	all := func(tr *truth, b *trueBlock) string {
		return fmt.Sprintf("%s is damaged (damaged: the offsets %d to %d cannot be read)", in(tr.path), b.first, b.last())
	}
	one, two := truths[0], truths[1]
	record, table, digests := &one.blocks[1], &one.blocks[3], &one.blocks[5]
	spoil(one, record, len(record.raw)-2)
	spoil(one, table, headerBytes+2)
	spoil(one, digests, digests.head-crcBytes-3)
	first := &two.blocks[0]
	spoil(two, first, 9)
	remove(t, in(truths[2].path))
	truncateTo(t, in(truths[3].path), 0)
	editMeta(t, dir, func(tx *bbolt.Tx) error { return tx.Bucket(bucketLast).Put([]byte("hot"), make([]byte, 12)) })
	want := []string{
		`meta.db is damaged (damaged: what it says of the topic "hot" does not match its checksum)`,
		fmt.Sprintf("%s is damaged (damaged: the records at the offsets %d to %d do not match their checksums)", in(one.path), record.last(), record.last()),
		all(one, table),
		fmt.Sprintf("%s is damaged (damaged: the checksum of the digests at offset %d does not match)", in(one.path), digests.first),
		all(two, first),
		in(truths[2].path) + " is missing",
		fmt.Sprintf("%s is damaged (damaged: the offsets %d to %d cannot be read)", in(truths[3].path), truths[3].first, truths[3].last),
	}
	report, err := Check(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		found := 0
		for _, p := range report.Problems {
			if strings.Contains(p.Error(), w) {
				found++
			}
		}
		if found != 1 {
			t.Errorf("found %d times: %s", found, w)
		}
	}
	if len(report.Problems) != len(want) || t.Failed() {
		t.Errorf("%d problems: %v", len(report.Problems), report.Problems)
	}
	lost := 1 + table.records + first.records
	for _, tr := range truths[2:4] {
		for i := range tr.blocks {
			lost += tr.blocks[i].records
		}
	}
	if report.Records != len(stored)-lost {
		t.Errorf("%d messages, %d were stored and %d of them lost", report.Records, len(stored), lost)
	}

	// Without meta.db the segments are looked at all the same.
	write(t, filepath.Join(dir, streamsDir, "main", metaFile), "nothing")
	report, err = Check(t.Context(), dir, nil)
	if err != nil || len(report.Problems) < 5 || report.Records != len(stored)-lost || !strings.Contains(report.Problems[0].Error(), metaFile) {
		t.Errorf("without meta.db: %d messages, %v, %v", report.Records, err, report.Problems)
	}
}

// TestCheckBesideAnother: two may look at once; a broker must have the directory
// for itself.
func TestCheckBesideAnother(t *testing.T) {
	l := openTest(t, t.TempDir(), LogOptions{})
	l.publish(message("a", "", "x"))
	l.close()
	lock, err := openFormatToRead(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	if report, err := Check(t.Context(), l.dir, nil); err != nil || len(report.Problems) > 0 {
		t.Errorf("%v %v", err, report.Problems)
	}
	if _, err := tryOpen(t, l.dir, LogOptions{}); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("a broker opened it meanwhile: %v", err)
	}
	_ = lock.Close()
	l = l.reopen()
	if _, err := Check(t.Context(), l.dir, nil); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("check while it is open: %v", err)
	}
}

// TestCheckTouchesNothing holds that of times too: nothing is even opened to be
// written.
func TestCheckTouchesNothing(t *testing.T) {
	dir, _ := sampleStore(t)
	times := func() string {
		var all []string
		for _, path := range append(files(t, dir), dir, filepath.Join(dir, formatFile), filepath.Join(dir, streamsDir, "main")) {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, info.Name(), info.ModTime().String(), fmt.Sprint(info.Size()))
		}
		return strings.Join(all, " ")
	}
	before, content := times(), tree(t, dir)
	if report, err := Check(t.Context(), dir, nil); err != nil || len(report.Problems) > 0 {
		t.Errorf("%v %v", err, report.Problems)
	}
	if times() != before || !sameTree(content, tree(t, dir)) {
		t.Error("something was touched")
	}
}
