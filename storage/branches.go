package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"go.etcd.io/bbolt"
)

// bbolt goes down a tree until it meets a leaf, and never asks how deep it is: a
// branch page that leads back up, because one byte of it has changed, ends the
// process when the stack is full, which no recover can help. So the branch pages
// of a sealed segment are looked at before bbolt is. They are few, one for some
// hundred leaves; checkPages, which reads the leaves too, would cost each cold
// read of an old segment a walk over all of it.

// openToBeRead opens the file of a sealed segment for readers.
func (s *segment) openToBeRead() (*bbolt.DB, error) {
	if err := checkBranches(s.path); err != nil {
		return nil, unreadable(s.path, err)
	}
	db, err := s.openSealed()
	if err != nil {
		return nil, unreadable(s.path, err)
	}
	return db, nil
}

// checkBranches returns an error that wraps errDamaged if the trees of a segment
// could lead in a circle.
func checkBranches(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	meta := &pageFile{r: f}
	if meta.readMeta() != nil {
		return nil // bbolt will refuse it too
	}
	b := &branches{r: f, end: meta.end}
	err = b.tree(meta.root)
	w := &surveyor{r: f, pages: meta.end}
	w.tree(meta.root, func(e element) {
		if head := w.read(e.at, min(bucketBytes, e.size)); e.bucket && len(head) == bucketBytes && err == nil {
			err = b.tree(binary.LittleEndian.Uint64(head))
		}
	})
	if err != nil {
		return damagedFile(path, err)
	}
	return nil
}

// branches looks at the branch pages of trees.
type branches struct {
	r   io.ReaderAt
	end uint64
}

var errBranches = fmt.Errorf("%w: its pages do not form a tree", errDamaged)

// tree checks the tree that a page leads to, level by level. All leaves of a tree
// are equally deep, so the first of a level says what its pages are.
func (b *branches) tree(root uint64) error {
	if root == 0 {
		return nil // it lies within another page
	}
	seen := make(map[uint64]bool)
	for level := []uint64{root}; ; {
		for _, id := range level {
			if seen[id] {
				return errBranches
			}
			seen[id] = true
		}
		if leaf, err := b.leaf(level[0]); leaf || err != nil {
			return err
		}
		var next []uint64
		for _, id := range level {
			children, err := b.children(id)
			if err != nil {
				return err
			}
			next = append(next, children...)
		}
		level = next
	}
}

// leaf reports whether a page is a leaf, or anything else that is no branch.
func (b *branches) leaf(id uint64) (bool, error) {
	head := make([]byte, pageHeadBytes)
	err := b.read(head, id, 0)
	return binary.LittleEndian.Uint16(head[8:]) != pageBranch, err
}

// children returns the pages that a branch page leads to.
func (b *branches) children(id uint64) (all []uint64, err error) {
	le := binary.LittleEndian
	page := make([]byte, pageBytes)
	if err := b.read(page, id, 0); err != nil {
		return nil, err
	}
	count := int(le.Uint16(page[10:]))
	if le.Uint16(page[8:]) != pageBranch || count == 0 {
		return nil, errBranches
	}
	heads := page[pageHeadBytes:]
	if n := count * elementBytes; n > len(heads) {
		heads = make([]byte, n)
		if err := b.read(heads, id, pageHeadBytes); err != nil {
			return nil, err
		}
	}
	for i := range count {
		all = append(all, le.Uint64(heads[i*elementBytes+8:]))
	}
	return all, nil
}

// read fills p from a page on.
func (b *branches) read(p []byte, id uint64, at int64) error {
	if id < 2 || id >= b.end {
		return errBranches
	}
	_, err := b.r.ReadAt(p, int64(id)*pageBytes+at)
	if errors.Is(err, io.EOF) {
		return errBranches
	}
	return err
}
