package storage

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/tidewire/tidewire/protocol"
)

// TestTornCommit loses pages of the newest commit, as a power cut may, but not its
// meta page. What the commits before have stored must be there, and of the newest
// all or nothing: each page alone is lost, each alone is kept, and some are lost at
// random.
func TestTornCommit(t *testing.T) {
	r := newRand(t)
	l := &core{dir: t.TempDir(), terms: chain{{term: 7}}}
	s := l.newSegment(1)
	if err := s.create(4<<20, 64<<10); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.close() }()
	head, undone := uint64(0), 0
	for commit := range 130 {
		before, last := readPages(t, s.path), head
		head = commitBlock(t, s, head+1, r.IntN(2)*r.IntN(15_000))
		splits := commit >= 82 && commit <= 84 // the first leaf of blocks
		if commit == 0 || !splits && r.IntN(16) > 0 {
			continue // the first is made in two syncs
		}
		after := readPages(t, s.path)
		written := changed(before, after)
		try := func(lost func(page int) bool) {
			t.Helper()
			torn := slices.Clone(after)
			for _, page := range written {
				if !lost(page) {
					continue
				}
				torn[page] = strings.Repeat("\x00", pageBytes)
				if page < len(before) {
					torn[page] = before[page]
				}
			}
			if !reopensAt(t, l, torn, last, head) {
				undone++
			}
		}
		for _, alone := range written {
			try(func(page int) bool { return page == alone })
			try(func(page int) bool { return page != alone })
			try(func(int) bool { return r.IntN(2) == 0 })
		}
	}
	if undone < 20 {
		t.Errorf("only %d commits were undone", undone)
	}
}

// commitBlock stores one message of about the size, and returns its offset.
func commitBlock(t *testing.T, s *segment, first uint64, size int) uint64 {
	t.Helper()
	m := protocol.Message{Topic: "t", Payload: []byte(strings.Repeat("x", size))}
	var b blockBuilder
	b.begin(blockHeader{term: 7, first: first, time: first})
	b.add(protocol.AppendRecord(nil, &m), b.time)
	raw := b.encode()
	if err := s.extend(s.size + int64(len(raw)) + pageSlack); err != nil {
		t.Fatal(err)
	}
	tx, err := s.db.Begin(true)
	if err != nil {
		t.Fatal(err)
	}
	if err := putBlock(tx, first, raw); err != nil {
		t.Fatal(err)
	}
	if err := stamp(tx, first); err != nil {
		t.Fatal(err)
	}
	if _, err := s.commit(tx); err != nil {
		t.Fatal(err)
	}
	return first
}

// reopensAt opens a segment of these pages and reports whether the newest commit
// is there, and fails the test if more or less than that one is missing.
func reopensAt(t *testing.T, l *core, pages []string, last, head uint64) bool {
	t.Helper()
	torn := &core{dir: t.TempDir(), terms: l.terms}
	s := torn.newSegment(1)
	write(t, s.path, strings.Join(pages, ""))
	undone, err := s.openNewest(4<<20, torn.terms)
	if err != nil {
		t.Fatal(err)
	}
	if want := map[bool]uint64{true: last, false: head}[undone]; s.info.last != want {
		t.Fatalf("undone %v, and it ends at %d, not %d", undone, s.info.last, want)
	}
	// What comes next must not meet what was undone.
	commitBlock(t, s, s.info.last+1, 5000)
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Dir(s.path)); err != nil {
		t.Fatal(err)
	}
	return !undone
}

// readPages returns the pages of a file.
func readPages(t *testing.T, path string) []string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var pages []string
	for page := range slices.Chunk(content, pageBytes) {
		pages = append(pages, string(page))
	}
	return pages
}

// changed returns the pages that differ, but for the two meta pages.
func changed(before, after []string) (pages []int) {
	for page := 2; page < len(after); page++ {
		if page >= len(before) || before[page] != after[page] {
			pages = append(pages, page)
		}
	}
	return pages
}

// TestKeyRanges finds pages whose keys belong to a neighbour: bbolt would panic.
func TestKeyRanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	db, err := openBolt(path, boltOptions{})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket(bucketBlocks)
		for i := range uint64(500) {
			err = errors.Join(err, b.Put(key(i), []byte("x")))
		}
		return err
	})
	if err := errors.Join(err, db.Close(), checkPages(path)); err != nil {
		t.Fatal(err)
	}
	pages := readPages(t, path)
	branch := slices.IndexFunc(pages, func(p string) bool { return p[8] == pageBranch })
	if branch < 2 {
		t.Fatal("there is no branch page")
	}
	second := []byte(pages[branch])[pageHeadBytes+elementBytes:]
	last := branch*pageBytes + pageHeadBytes + elementBytes + int(binary.LittleEndian.Uint32(second)) + 7
	for _, by := range []int{-1, 1} {
		content := []byte(strings.Join(pages, ""))
		content[last] = byte(int(content[last]) + by)
		write(t, path, string(content))
		if err := checkPages(path); !errors.Is(err, errDamaged) {
			t.Errorf("the first key of a page moved by %d: %v", by, err)
		}
	}
}
