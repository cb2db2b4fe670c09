package disk

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// inode is a file or a directory.
type inode struct {
	id     uint64
	linked bool // has a name
	opens  int
	data   *file
	dir    *directory
}

func (n *inode) kind() uint32 {
	if n.dir != nil {
		return kindDirectory
	}
	return kindFile
}

// directory is the entries of a directory, as written and as durable. The log
// leads from the second to the first.
type directory struct {
	now     map[string]*inode
	durable map[string]*inode
	log     []change
}

// change is what happens to the entries of a directory at once; nil removes.
type change map[string]*inode

func newDirectory() *directory {
	return &directory{now: map[string]*inode{}, durable: map[string]*inode{}}
}

func (c change) apply(to map[string]*inode) {
	for name, n := range c {
		if n != nil {
			to[name] = n
		} else {
			delete(to, name)
		}
	}
}

func (d *directory) do(c change) {
	c.apply(d.now)
	d.log = append(d.log, c)
}

// persist makes the oldest n changes durable.
func (d *directory) persist(n int) {
	for _, c := range d.log[:n] {
		c.apply(d.durable)
	}
	d.log = d.log[n:]
}

func (d *directory) sync() { d.persist(len(d.log)) }

// cut makes both images what is left after a power cut, and those of all that
// is left below.
func (d *directory) cut(rng *rand.Rand, keep float64) (lost int) {
	if kept := rng.IntN(len(d.log) + 1); rng.Float64() < keep {
		d.persist(kept)
	}
	lost = len(d.log)
	d.log = nil
	d.now = maps.Clone(d.durable)
	for _, name := range d.names() {
		n := d.now[name]
		n.linked, n.opens = true, 0
		if n.dir != nil {
			lost += n.dir.cut(rng, keep)
		} else {
			lost += n.data.cut(rng, keep)
		}
	}
	return lost
}

// pages counts the pages of all files.
func (d *directory) pages() int64 {
	sum := int64(0)
	for _, n := range d.now {
		if n.dir != nil {
			sum += n.dir.pages()
		} else {
			sum += int64(len(n.data.now.pages))
		}
	}
	return sum
}

func (d *directory) names() []string { return slices.Sorted(maps.Keys(d.now)) }
