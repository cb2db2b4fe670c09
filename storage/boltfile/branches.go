package boltfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// CheckBranches returns an error that wraps [ErrDamaged] if the trees of a file
// could lead in a circle.
//
// bbolt goes down a tree until it meets a leaf, and never asks how deep it is: a
// branch page that leads back up, because one byte of it has changed, ends the
// process when the stack is full, which no recover can help. So the branch pages
// are looked at before bbolt is. They are few, one for some hundred leaves; [Check],
// which reads the leaves too, would cost a walk over all of the file.
func CheckBranches(r io.ReaderAt) error {
	meta := &pageFile{r: r}
	if meta.readMeta() != nil {
		return nil // bbolt will refuse it too
	}
	b := &branches{r: r, end: meta.end}
	err := b.tree(meta.root)
	w := Walk{From: r, MaxKey: PageBytes}
	w.Extend(meta.end)
	w.Tree(meta.root, func(e Element) {
		if head := w.Read(e.At, min(bucketBytes, e.Size)); e.Bucket && len(head) == bucketBytes && err == nil {
			err = b.tree(binary.LittleEndian.Uint64(head))
		}
	})
	return err
}

// branches looks at the branch pages of trees.
type branches struct {
	r   io.ReaderAt
	end uint64
}

var errBranches = fmt.Errorf("%w: its pages do not form a tree", ErrDamaged)

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
	page := make([]byte, PageBytes)
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
	_, err := b.r.ReadAt(p, int64(id)*PageBytes+at)
	if errors.Is(err, io.EOF) {
		return errBranches
	}
	return err
}
