package disk

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"syscall"
)

const (
	kindFile      = syscall.S_IFREG
	kindDirectory = syscall.S_IFDIR
)

// A Device is a disk with a file system on it.
type Device struct {
	mu       sync.Mutex
	rng      *rand.Rand
	root     *inode
	lastID   uint64
	mounts   int
	used     int64 // pages
	capacity int64 // pages
	faults   faults
	stop     stop
	stats    Stats
}

// faults are what is to go wrong.
type faults struct {
	syncs    int // syncs of files up to the one that fails, 0 for none
	errno    syscall.Errno
	lieFiles bool
	lieDirs  bool
}

// stop is the machine's standing still.
type stop struct {
	steps   int           // up to the one at which it stops, 0 for never
	syncs   bool          // count syncs of files only
	reached chan struct{} // closed when it has stopped
	stopped bool
	release *sync.Cond // broadcast when stopped operations fail
	failing bool
}

// Stats counts what was asked of the device since it was made.
type Stats struct {
	Writes, Syncs, DirSyncs int64
	Refused                 int64 // for want of space
	SyncsFailed             int64
}

// New returns an empty device. The seed decides what is lost in power cuts.
func New(seed uint64) *Device {
	d := &Device{
		rng:      rand.New(rand.NewPCG(seed, seed)),
		root:     &inode{id: 1, linked: true, dir: newDirectory()},
		lastID:   1,
		capacity: math.MaxInt32,
	}
	d.stop.release = sync.NewCond(&d.mu)
	return d
}

// SetCapacity sets how many bytes the files may take together. When they do, or
// do already, everything that needs more fails with ENOSPC. Holes are free.
func (d *Device) SetCapacity(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.capacity = bytes / pageSize
}

// Used returns how many bytes the files take.
func (d *Device) Used() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.used * pageSize
}

// FailSync makes the n-th sync of a file from now on fail with errno; 0 takes
// that back. The sync may be repeated, and then succeeds, but the pages are
// lost: so it is on real systems.
func (d *Device) FailSync(n int, errno syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults.syncs, d.faults.errno = n, errno
}

// Lie makes syncs of files, or of directories, succeed without doing anything.
func (d *Device) Lie(files, directories bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults.lieFiles, d.faults.lieDirs = files, directories
}

// StopAfter makes the machine stand still at the n-th operation from now on that
// changes something: that one and those behind it wait until Release. The
// channel is closed when it is reached.
func (d *Device) StopAfter(n int) <-chan struct{} { return d.stopAt(n, false) }

// StopAtSync does so at the n-th sync of a file, before it has done anything.
func (d *Device) StopAtSync(n int) <-chan struct{} { return d.stopAt(n, true) }

func (d *Device) stopAt(n int, syncs bool) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stop.steps, d.stop.syncs = n, syncs
	d.stop.reached = make(chan struct{})
	return d.stop.reached
}

// Stop makes the machine stand still now, if it does not already.
func (d *Device) Stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stop.steps, d.stop.stopped = 0, true
}

// Release makes all operations that wait, and those that come, fail with EIO.
// Kill the process that waits for them first: it must not learn of this.
func (d *Device) Release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stop.failing = true
	d.stop.release.Broadcast()
}

// Stats returns the counts.
func (d *Device) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}

// Cut is the power cut. The device must not be mounted. Afterwards it works
// again, without the faults that were asked for; its capacity stays. Cut returns
// how many pages and changes of directories were lost.
func (d *Device) Cut() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mustBeFree("cut")
	chances := []float64{0, 0.1, 0.5, 0.5, 0.9}
	lost := d.root.dir.cut(d.rng, chances[d.rng.IntN(len(chances))])
	d.restart()
	return lost
}

// Restart goes on without a power cut, after a Stop or a FailSync.
func (d *Device) Restart() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mustBeFree("restarted")
	d.restart()
}

func (d *Device) mustBeFree(what string) {
	if d.mounts > 0 {
		panic(fmt.Sprintf("disk: a mounted device cannot be %s", what))
	}
}

func (d *Device) restart() {
	d.used = d.root.dir.pages()
	d.faults = faults{}
	d.stop = stop{release: d.stop.release}
}

// step stands before every operation that changes something; mu is held, and is
// given up while the machine stands still.
func (d *Device) step() syscall.Errno { return d.count(false) }

func (d *Device) count(sync bool) syscall.Errno {
	if d.stop.steps > 0 && (sync || !d.stop.syncs) {
		d.stop.steps--
		if d.stop.steps == 0 {
			d.stop.stopped = true
			close(d.stop.reached)
		}
	}
	for d.stop.stopped && !d.stop.failing {
		d.stop.release.Wait()
	}
	if d.stop.failing {
		return syscall.EIO
	}
	return 0
}

// room tells whether so many more pages may be taken.
func (d *Device) room(pages int64) syscall.Errno {
	if d.used+pages > d.capacity {
		d.stats.Refused++
		return syscall.ENOSPC
	}
	return 0
}

// fullAlready refuses what takes no page by itself but would need some space
// on a real disk.
func (d *Device) fullAlready() syscall.Errno { return d.room(1) }
