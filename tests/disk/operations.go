package disk

import "syscall"

// The operations of the file system, one at a time. An errno of 0 is success.

func (d *Device) lookup(parent *inode, name string) *inode {
	d.mu.Lock()
	defer d.mu.Unlock()
	return parent.dir.now[name]
}

func (d *Device) list(parent *inode) (names []string, nodes []*inode) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range parent.dir.names() {
		names = append(names, name)
		nodes = append(nodes, parent.dir.now[name])
	}
	return names, nodes
}

// add makes a file, which is open, or a directory.
func (d *Device) add(parent *inode, name string, isDir bool) (*inode, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if errno := d.step(); errno != 0 {
		return nil, errno
	}
	if parent.dir.now[name] != nil {
		return nil, syscall.EEXIST
	}
	if errno := d.fullAlready(); errno != 0 {
		return nil, errno
	}
	d.lastID++
	n := &inode{id: d.lastID, linked: true}
	if isDir {
		n.dir = newDirectory()
	} else {
		n.data, n.opens = newFile(), 1
	}
	parent.dir.do(change{name: n})
	return n, 0
}

func (d *Device) remove(parent *inode, name string, isDir bool) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if errno := d.step(); errno != 0 {
		return errno
	}
	n := parent.dir.now[name]
	if n == nil {
		return syscall.ENOENT
	}
	if errno := removable(n, isDir); errno != 0 {
		return errno
	}
	parent.dir.do(change{name: nil})
	d.unlinked(n)
	return 0
}

func removable(n *inode, asDir bool) syscall.Errno {
	switch {
	case asDir && n.dir == nil:
		return syscall.ENOTDIR
	case !asDir && n.dir != nil:
		return syscall.EISDIR
	case n.dir != nil && len(n.dir.now) > 0:
		return syscall.ENOTEMPTY
	}
	return 0
}

func (d *Device) rename(parent *inode, from, to string) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if errno := d.step(); errno != 0 {
		return errno
	}
	n, old := parent.dir.now[from], parent.dir.now[to]
	if n == nil {
		return syscall.ENOENT
	}
	if n == old {
		return 0
	}
	if old != nil {
		if errno := removable(old, n.dir != nil); errno != 0 {
			return errno
		}
		d.unlinked(old)
	}
	parent.dir.do(change{from: nil, to: n})
	return 0
}

func (d *Device) open(n *inode, truncate bool) syscall.Errno {
	if truncate {
		if errno := d.resize(n, 0); errno != 0 {
			return errno
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n.opens++
	return 0
}

func (d *Device) close(n *inode) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n.opens--
	d.freeIfUnused(n)
}

func (d *Device) unlinked(n *inode) {
	n.linked = false
	d.freeIfUnused(n)
}

// freeIfUnused gives back the pages of a file without a name once nobody has it
// open. What is durable of it stays: its name may come back.
func (d *Device) freeIfUnused(n *inode) {
	if n.data != nil && !n.linked && n.opens <= 0 {
		d.used -= int64(len(n.data.now.pages))
		n.data.forget()
	}
}

func (d *Device) size(n *inode) (bytes, pages int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n.dir != nil {
		return 0, 0
	}
	return n.data.now.size, int64(len(n.data.now.pages))
}

func (d *Device) read(n *inode, b []byte, off int64) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return n.data.read(b, off)
}

// write writes what there is room for.
func (d *Device) write(n *inode, b []byte, off int64) (int, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if errno := d.step(); errno != 0 {
		return 0, errno
	}
	d.stats.Writes++
	for d.room(n.data.missing(off, int64(len(b)))) != 0 {
		last := (off + int64(len(b)) - 1) / pageSize * pageSize
		if last <= off {
			return 0, syscall.ENOSPC
		}
		b = b[:last-off]
	}
	n.data.writeBack(d.rng)
	d.used += n.data.missing(off, int64(len(b)))
	n.data.write(b, off)
	return len(b), 0
}

func (d *Device) resize(n *inode, size int64) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if errno := d.step(); errno != 0 {
		return errno
	}
	if n.data == nil {
		return syscall.EISDIR
	}
	if size > n.data.now.size {
		if errno := d.fullAlready(); errno != 0 {
			return errno
		}
	}
	before := len(n.data.now.pages)
	n.data.truncate(size)
	d.used += int64(len(n.data.now.pages) - before)
	return 0
}

// allocate fills holes, and makes the file longer if need be unless keepSize.
func (d *Device) allocate(n *inode, off, bytes int64, keepSize bool) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if errno := d.step(); errno != 0 {
		return errno
	}
	need := n.data.missing(off, bytes)
	if errno := d.room(need); errno != 0 {
		return errno
	}
	d.used += need
	n.data.fill(off, bytes)
	if !keepSize {
		n.data.now.size = max(n.data.now.size, off+bytes)
	}
	return 0
}

func (d *Device) sync(n *inode) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if errno := d.count(n.data != nil); errno != 0 {
		return errno
	}
	if n.dir != nil {
		d.stats.DirSyncs++
		if !d.faults.lieDirs {
			n.dir.sync()
		}
		return 0
	}
	d.stats.Syncs++
	if d.faults.syncs > 0 {
		d.faults.syncs--
		if d.faults.syncs == 0 {
			d.stats.SyncsFailed++
			n.data.syncFailing(d.rng)
			return d.faults.errno
		}
	}
	if !d.faults.lieFiles {
		n.data.sync()
	}
	return 0
}

func (d *Device) space() (capacity, used int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.capacity, d.used
}
