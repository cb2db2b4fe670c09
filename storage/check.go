package storage

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// Report is what [Check] found.
type Report struct {
	Streams  int
	Segments int
	Blocks   int
	Records  int
	Bytes    int64 // of files
	Undone   int   // commits that a power cut left unfinished; the next start undoes them
	Problems []error
}

// Progress tells how far [Check] has come.
type Progress struct {
	Stream  string
	Segment int // of Segments
	Of      int
}

// Check reads everything in a data directory that no broker uses, and verifies
// each page, block and record against its checksum, the indexes against the
// records, and the segments against each other. It changes nothing and needs no
// right to. What is wrong is in the report, all of it; an error means that Check
// could not do its work. progress may be nil.
func Check(ctx context.Context, dir string, progress func(Progress)) (Report, error) {
	return checkData(ctx, dir, checker{progress: progress})
}

// CheckQuick looks at what a start looks at, and a little more: that all files
// are there and hang together, that the sealed ones are complete and what meta.db
// says, and everything in those that are not sealed. It does not read the
// messages in sealed segments.
func CheckQuick(ctx context.Context, dir string, progress func(Progress)) (Report, error) {
	return checkData(ctx, dir, checker{progress: progress, quick: true})
}

func checkData(ctx context.Context, dir string, how checker) (Report, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Report{}, err
	}
	if _, err := os.Stat(filepath.Join(dir, backupFile)); err == nil {
		return Report{}, fmt.Errorf("%s is a backup and not a data directory: check it with --backup", dir)
	}
	if _, err := os.Stat(filepath.Join(dir, formatFile)); err != nil {
		return Report{}, fmt.Errorf("%s is not a Tidewire data directory: it has no file %s", dir, formatFile)
	}
	lock, err := openFormatToRead(dir)
	if err != nil {
		return Report{}, err
	}
	defer func() { _ = lock.Close() }()
	return checkStreams(ctx, dir, how)
}

// checkStreams checks all streams below a directory.
func checkStreams(ctx context.Context, dir string, how checker) (r Report, err error) {
	streams, err := os.ReadDir(filepath.Join(dir, streamsDir))
	if err != nil && !os.IsNotExist(err) {
		return r, err
	}
	if how.progress == nil {
		how.progress = func(Progress) {}
	}
	for _, s := range streams {
		c := how
		c.ctx, c.report = ctx, &r
		c.log = &core{name: s.Name(), dir: filepath.Join(dir, streamsDir, s.Name()), opts: LogOptions{}.withDefaults()}
		c.log.state.window.limit = 0
		r.Streams++
		c.stream()
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
	}
	return r, nil
}
