// Package disk is a disk that tests can pull the plug of.
//
// A [Device] is a small file system in memory. It keeps two images of
// everything: what was written, and what would be there after a power cut. A
// sync of a file moves its pages and its size from the first to the second, a
// sync of a directory moves its entries; nothing else does. In particular a
// sync of a file does not keep its name: POSIX does not promise that, even if
// some file systems do it.
//
// [Device.Cut] is the power cut. What was synced is there. Of the rest a random
// part is: any pages of a file, torn ones too; for each directory the first few
// changes, in order, for a rename is one change and never half done; the old
// size of a file or the new one. Then both images are what is left.
//
// [Device.Mount] puts it into the kernel with FUSE, which needs root and
// /dev/fuse. Whoever maps files into memory must be another process than the
// one that mounts: a page fault stops a thread where Go cannot see it, and the
// thread might be needed to answer it.
//
// Faults on purpose: a sync that fails ([Device.FailSync]), a disk that is full
// ([Device.SetCapacity]), a disk that lies about syncs ([Device.Lie]), a
// machine that stands still at an exact point ([Device.StopAfter]).
//
// Caveats: no hard links, no renames from one directory to another, no access
// rights, no times.
package disk
