package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tidewire/tidewire/config"
	"github.com/tidewire/tidewire/storage"
)

const (
	syncSamples = 100             // syncs that are measured
	syncBytes   = 4096            // written before each
	syncTime    = 3 * time.Second // at most for all of them

	// A sync that a disk has really done takes longer than fastSync, even with a
	// cache that survives a power cut; one slower than slowSync is felt by every
	// publisher, since a publish is answered after a sync.
	fastSync   = 10 * time.Microsecond
	slowSync   = 20 * time.Millisecond
	slowSync99 = 200 * time.Millisecond

	checkTime = 5 * time.Second // at most for reading what is stored

	// reserveBytes is what storage keeps free for hard times, and segmentParts how
	// many segments it has room for while it goes from one to the next.
	reserveBytes = 64 << 20
	segmentParts = 4
)

// openFiles compares the limit of this process, which a broker started alike
// would have, with what the configuration may need.
func (d *doctor) openFiles(context.Context) finding {
	limit, known := fileLimit()
	if !known {
		return skipped("this system has no limit of open files that could be read")
	}
	return d.judgeFiles(int(min(limit, math.MaxInt32)))
}

// judgeFiles divides the files as the broker does.
func (d *doctor) judgeFiles(limit int) finding {
	wanted, logs := d.settings.Limits.Connections, logsOnDisk(d.settings)
	b, err := budgetFiles(limit, wanted, logs)
	switch {
	case err != nil:
		return failing("raise the limit (ulimit -n, or LimitNOFILE of systemd)", "only %d files may be open, fewer than a broker with %d logs on disk needs", limit, logs)
	case b.connections < wanted:
		return warning("raise the limit (ulimit -n, or LimitNOFILE of systemd) or lower limits.connections", "%d files may be open: with %d logs on disk that leaves room for %d connections, limits.connections is %d", limit, logs, b.connections, wanted)
	}
	return fine("%d files may be open, enough for %d logs on disk and %d connections", limit, logs, wanted)
}

// standing returns the nearest directory that exists, from the data directory
// upwards: it is on the disk where the data will be.
func (d *doctor) standing() (string, error) {
	dir, err := filepath.Abs(d.settings.Data)
	for err == nil {
		info, statErr := os.Stat(dir)
		switch {
		case statErr == nil && info.IsDir():
			return dir, nil
		case statErr == nil:
			return "", errors.New(dir + " is not a directory")
		case !errors.Is(statErr, fs.ErrNotExist):
			return "", statErr
		case dir == filepath.Dir(dir):
			return "", statErr
		}
		dir = filepath.Dir(dir)
	}
	return "", err
}

// diskSpace compares the free space with the reserve and with what retention may
// let grow.
func (d *doctor) diskSpace(context.Context) finding {
	dir, err := d.standing()
	if err != nil {
		return failing("choose another directory with --data", "the data directory cannot be used: %v", err)
	}
	disk, known := diskOf(dir)
	if !known {
		return skipped("how full a disk is cannot be read on this system")
	}
	return d.judgeSpace(disk.free)
}

// judgeSpace looks at all streams on disk.
func (d *doctor) judgeSpace(left int64) finding {
	segments, retention, unlimited := int64(controlSegment), int64(0), ""
	for _, s := range streamsOnDisk(d.settings.Streams) {
		segments += int64(s.settings.SegmentBytes)
		retention += int64(s.settings.RetentionBytes)
		if unlimited == "" && s.settings.RetentionBytes == config.Unlimited {
			unlimited = s.path
		}
	}
	free, least := bytesText(left), reserveBytes+segments
	switch {
	case left < least:
		return failing("free some space, lower retention_bytes of the streams, or choose another disk", "%s free, the reserve and the next segments need %s", free, bytesText(least))
	case unlimited != "":
		return warning("set "+unlimited+".retention_bytes, or watch the disk", "%s free, and retention is unlimited: one day the disk is full, and publishers are refused", free)
	}
	used := treeBytes(d.settings.Data)
	grow := max(retention-used, 0) + segmentParts*segments/2
	if left < grow+reserveBytes {
		return warning("free some space or lower retention_bytes of the streams", "%s free, but what is stored may grow by %s until retention bounds it", free, bytesText(grow))
	}
	return fine("%s free, what is stored (%s) may grow by %s", free, bytesText(used), bytesText(grow))
}

// streamOnDisk is a stream, and where it stands in the configuration.
type streamOnDisk struct {
	path     string
	settings config.Stream
}

// streamsOnDisk lists the streams that take room on the disk.
func streamsOnDisk(s config.Streams) []streamOnDisk {
	all := []streamOnDisk{{"streams.main", s.Main}, {"streams.dead", s.Dead}}
	for i, o := range s.Others {
		if o.Storage != config.StorageMemory {
			all = append(all, streamOnDisk{fmt.Sprintf("streams.others[%d]", i), o.Stream})
		}
	}
	return all
}

// bytesText writes a size for people.
func bytesText(n int64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// treeBytes is the size of all files below a directory; 0 if there is none.
func treeBytes(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil {
				sum += info.Size()
			}
		}
		return nil
	})
	return sum
}

// diskSync measures what every publisher waits for. Whether the disk keeps its
// word can only be told by cutting the power; that it is too fast for one that
// does is a hint.
func (d *doctor) diskSync(ctx context.Context) finding {
	dir, err := d.standing()
	if err != nil {
		return skipped("there is no directory to write to")
	}
	times, err := measureSyncs(ctx, dir)
	if err != nil {
		return failing("give this user the right to write there, or choose another directory with --data", "a file in %s cannot be written and synced: %v", dir, err)
	}
	disk, _ := diskOf(dir)
	return judgeSyncs(times, disk.memory)
}

// measureSyncs writes and syncs a temporary file, again and again.
func measureSyncs(ctx context.Context, dir string) ([]time.Duration, error) {
	f, err := os.CreateTemp(dir, ".tidewire-doctor-*.tmp")
	if err != nil {
		return nil, err
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}()
	block := make([]byte, syncBytes)
	var times []time.Duration
	for end := time.Now().Add(syncTime); len(times) < syncSamples && ctx.Err() == nil && (len(times) == 0 || time.Now().Before(end)); {
		if _, err := f.Write(block); err != nil {
			return nil, err
		}
		begun := time.Now()
		if err := syncData(f); err != nil {
			return nil, err
		}
		times = append(times, time.Since(begun))
	}
	return times, ctx.Err()
}

func judgeSyncs(times []time.Duration, memory bool) finding {
	slices.Sort(times)
	median, p99 := times[len(times)/2], times[(len(times)-1)*99/100]
	const form = "a sync takes %v, the slowest of a hundred %v"
	const digits = 10 * time.Microsecond
	shown := []any{median.Round(digits / 10), p99.Round(digits)}
	switch {
	case memory:
		return warning("choose a directory on a disk with --data", "the data directory is in memory: nothing survives a restart of the machine")
	case median < fastSync:
		return warning("make sure that no layer (a virtual machine, a controller, a file system option) answers before the data is safe, or a power cut loses answered messages", form+", faster than a disk can keep its word", shown...)
	case median > slowSync || p99 > slowSync99:
		return warning("choose a faster disk, or one that is less busy: each publish waits for one or two syncs", form, shown...)
	}
	return fine(form, shown...)
}

// data says whether what is stored is whole, as far as a few seconds of reading
// can tell. A broker that runs looks after its data itself.
func (d *doctor) data(ctx context.Context) finding {
	dir := d.settings.Data
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return skipped("there is no data directory %s yet; the first start makes it", dir)
	case err != nil:
		return failing("give this user the right to it, or choose another directory with --data", "the data directory cannot be read: %v", err)
	case len(entries) == 0:
		return skipped("the data directory %s is empty", dir)
	}
	bounded, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	found, err := storage.Check(bounded, dir, nil)
	switch {
	case errors.Is(err, storage.ErrInUse):
		d.inUse = true
		return fine("a broker uses %s; see readiness", dir)
	case len(found.Problems) > 0:
		return failing("stop here and run `tidewire check`, which lists all", "%d problems, the first: %s", len(found.Problems), sentence(found.Problems[0]))
	case bounded.Err() != nil:
		return fine("whole as far as it was read in %v (%s); `tidewire check` reads the rest", checkTime, count(found.Segments, "segment"))
	case err != nil:
		return failing("choose the right directory with --data", "%s", sentence(err))
	}
	return fine("whole: %s in %s", count(found.Records, "message"), count(found.Segments, "segment"))
}
