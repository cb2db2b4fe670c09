package disk

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Mount puts the device into the file system at a directory, which must exist.
// The function it returns takes it out again, even if files are open.
func (d *Device) Mount(dir string) (unmount func() error, err error) {
	forever := time.Hour // nobody else changes anything
	server, err := fs.Mount(dir, &node{dev: d, inode: d.root}, &fs.Options{
		EntryTimeout: &forever,
		AttrTimeout:  &forever,
		MountOptions: fuse.MountOptions{
			DirectMountStrict:        true,
			ExplicitDataCacheControl: true,
			DisableXAttrs:            true,
			MaxWrite:                 1 << 20,
			FsName:                   "tidewire",
			Name:                     "testdisk",
		},
		RootStableAttr: &fs.StableAttr{Ino: d.root.id},
	})
	if err != nil {
		return nil, fmt.Errorf("mount the device at %s: %w", dir, err)
	}
	d.mounted(1)
	return func() error { return d.unmount(dir, server) }, nil
}

func (d *Device) mounted(change int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mounts += change
}

func (d *Device) unmount(dir string, server *fuse.Server) error {
	err := server.Unmount()
	if err != nil { // busy: take it away from the name, the rest follows
		err = errors.Join(syscall.Unmount(dir, syscall.MNT_DETACH))
	}
	if err != nil {
		return fmt.Errorf("unmount the device from %s: %w", dir, err)
	}
	d.mounted(-1)
	return nil
}

// node is an inode as FUSE sees it.
type node struct {
	fs.Inode
	dev   *Device
	inode *inode
}

var (
	_ fs.NodeLookuper  = (*node)(nil)
	_ fs.NodeGetattrer = (*node)(nil)
	_ fs.NodeSetattrer = (*node)(nil)
	_ fs.NodeCreater   = (*node)(nil)
	_ fs.NodeMkdirer   = (*node)(nil)
	_ fs.NodeUnlinker  = (*node)(nil)
	_ fs.NodeRmdirer   = (*node)(nil)
	_ fs.NodeRenamer   = (*node)(nil)
	_ fs.NodeReaddirer = (*node)(nil)
	_ fs.NodeOpener    = (*node)(nil)
	_ fs.NodeReleaser  = (*node)(nil)
	_ fs.NodeReader    = (*node)(nil)
	_ fs.NodeWriter    = (*node)(nil)
	_ fs.NodeFsyncer   = (*node)(nil)
	_ fs.NodeAllocater = (*node)(nil)
	_ fs.NodeStatfser  = (*node)(nil)
)

// handle stands for an open file.
type handle struct{}

// child returns the node of an inode and says what it is.
func (n *node) child(ctx context.Context, of *inode, out *fuse.EntryOut) *fs.Inode {
	n.attr(of, &out.Attr)
	return n.NewInode(ctx, &node{dev: n.dev, inode: of}, fs.StableAttr{Mode: of.kind(), Ino: of.id})
}

func (n *node) attr(of *inode, out *fuse.Attr) {
	size, pages := n.dev.size(of)
	out.Ino = of.id
	out.Size = uint64(size)
	out.Blocks = uint64(pages * pageSize / sectorSize)
	out.Blksize = pageSize
	out.Nlink = 1
	out.Mode = of.kind() | 0o700
}

func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	found := n.dev.lookup(n.inode, name)
	if found == nil {
		return nil, syscall.ENOENT
	}
	return n.child(ctx, found, out), 0
}

func (n *node) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.attr(n.inode, &out.Attr)
	return 0
}

func (n *node) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		if errno := n.dev.resize(n.inode, int64(size)); errno != 0 {
			return errno
		}
	}
	n.attr(n.inode, &out.Attr)
	return 0
}

func (n *node) Create(ctx context.Context, name string, _, _ uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	made, errno := n.dev.add(n.inode, name, false)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	return n.child(ctx, made, out), handle{}, fuse.FOPEN_KEEP_CACHE, 0
}

func (n *node) Mkdir(ctx context.Context, name string, _ uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	made, errno := n.dev.add(n.inode, name, true)
	if errno != 0 {
		return nil, errno
	}
	return n.child(ctx, made, out), 0
}

func (n *node) Unlink(_ context.Context, name string) syscall.Errno {
	return n.dev.remove(n.inode, name, false)
}

func (n *node) Rmdir(_ context.Context, name string) syscall.Errno {
	return n.dev.remove(n.inode, name, true)
}

func (n *node) Rename(_ context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	parent, ok := to.(*node)
	if !ok || parent.inode != n.inode {
		return syscall.EXDEV
	}
	if flags != 0 {
		return syscall.EINVAL
	}
	return n.dev.rename(n.inode, name, newName)
}

func (n *node) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	names, inodes := n.dev.list(n.inode)
	list := make([]fuse.DirEntry, len(names))
	for i, of := range inodes {
		list[i] = fuse.DirEntry{Name: names[i], Ino: of.id, Mode: of.kind()}
	}
	return fs.NewListDirStream(list), 0
}

func (n *node) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	errno := n.dev.open(n.inode, flags&syscall.O_TRUNC != 0)
	return handle{}, fuse.FOPEN_KEEP_CACHE, errno
}

func (n *node) Release(context.Context, fs.FileHandle) syscall.Errno {
	n.dev.close(n.inode)
	return 0
}

func (n *node) Read(_ context.Context, _ fs.FileHandle, b []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	return fuse.ReadResultData(b[:n.dev.read(n.inode, b, off)]), 0
}

func (n *node) Write(_ context.Context, _ fs.FileHandle, b []byte, off int64) (uint32, syscall.Errno) {
	written, errno := n.dev.write(n.inode, b, off)
	return uint32(written), errno
}

func (n *node) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	return n.dev.sync(n.inode)
}

func (n *node) Allocate(_ context.Context, _ fs.FileHandle, off, size uint64, mode uint32) syscall.Errno {
	const keepSize = 1 // FALLOC_FL_KEEP_SIZE
	if mode&^keepSize != 0 {
		return syscall.EOPNOTSUPP
	}
	return n.dev.allocate(n.inode, int64(off), int64(size), mode == keepSize)
}

func (n *node) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	capacity, used := n.dev.space()
	out.Bsize, out.Frsize, out.NameLen = pageSize, pageSize, 255
	out.Blocks = uint64(capacity)
	out.Bfree = uint64(max(capacity-used, 0))
	out.Bavail = out.Bfree
	return 0
}
