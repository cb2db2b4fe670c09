package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
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
// records, and the segments against each other. It changes nothing. What is
// wrong is in the report; an error means that Check could not do its work.
// progress may be nil.
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
	lock, err := openFormat(dir)
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
		c.log = &Log{name: s.Name(), dir: filepath.Join(dir, streamsDir, s.Name()), opts: LogOptions{}.withDefaults()}
		c.log.state.window.limit = 0
		r.Streams++
		c.stream()
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
	}
	return r, nil
}

// checker verifies one stream.
type checker struct {
	ctx      context.Context
	log      *Log
	report   *Report
	progress func(Progress)
	quick    bool              // do not read sealed segments
	last     map[string]uint64 // newest offset of each topic in the sealed segments
}

// stream checks meta.db, then each segment. A problem with one file does not
// keep it from the others.
func (c *checker) stream() {
	o := &opening{log: c.log}
	defer o.abandon()
	if err := o.list(); err != nil {
		c.problem(err)
		return
	}
	if o.fresh {
		return // it was cut off before its first message could be stored
	}
	if err := o.openMetaToRead(); err != nil {
		c.problem(err)
		return
	}
	c.last = make(map[string]uint64)
	next, done := o.meta.earliest, 0
	last := o.meta.trimmed
	for ordinal := range o.files {
		last = max(last, ordinal)
	}
	last = max(last, o.meta.trimmed+uint64(len(o.meta.sealed)))
	for ordinal := o.meta.trimmed + 1; ordinal <= last && c.ctx.Err() == nil; ordinal++ {
		done++
		c.progress(Progress{Stream: c.log.name, Segment: done, Of: int(last - o.meta.trimmed)})
		s := c.log.newSegment(ordinal)
		size, there := o.files[ordinal]
		if !there {
			c.problem(fmt.Errorf("the segment %s is missing: put it back from a backup", s.path))
			next = 0
			continue
		}
		c.report.Segments++
		c.report.Bytes += size
		var known *segmentInfo
		if info, sealed := o.meta.sealed[ordinal]; sealed {
			known = &info
		}
		next = c.segment(s, known, next)
	}
	if err := c.known(o); err != nil {
		c.problem(err)
	}
}

func (c *checker) problem(err error) {
	c.report.Problems = append(c.report.Problems, fmt.Errorf("stream %s: %w", c.log.name, err))
}

// segment checks one file, which should begin with the offset next if that is
// not 0, and returns what the one after it should begin with, 0 if that cannot
// be told.
func (c *checker) segment(s *segment, known *segmentInfo, next uint64) uint64 {
	defer func() { _ = s.close() }()
	if !c.quick || known == nil {
		prefetch(s.path, 1<<40)
	}
	open := c.openUnsealed
	switch {
	case known != nil && c.quick:
		open = c.openQuickly
	case known != nil:
		open = c.openSealed
	}
	err := open(s)
	if err == nil {
		err = c.compare(s, known)
	}
	if err != nil {
		c.problem(err)
		return 0
	}
	c.report.Records += int(s.info.records)
	if s.info.last == 0 {
		return next
	}
	if next != 0 && s.info.first != next {
		c.problem(fmt.Errorf("%s begins at offset %d where %d should follow: its files are not from one moment, put the directory back from a backup as a whole", s.path, s.info.first, next))
	}
	return s.info.last + 1
}

// openSealed opens a sealed segment and verifies it.
func (c *checker) openSealed(s *segment) error {
	err := checkPages(s.path)
	if err == nil {
		s.db, err = s.openSealed()
	}
	if err == nil {
		err = s.rebuild(c.log.terms)
	}
	return err
}

// openUnsealed opens a segment that is not sealed. If the power went during its
// newest commit, that is undone in a copy.
func (c *checker) openUnsealed(s *segment) error {
	err := s.openWritable(0, c.log.terms) // which changes nothing
	if !errors.Is(err, errDamaged) {
		return err
	}
	dir, tmpErr := os.MkdirTemp("", "tidewire-check-")
	if tmpErr != nil {
		return errors.Join(err, tmpErr)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	duplicate := c.log.newSegment(s.ordinal)
	duplicate.path = filepath.Join(dir, filepath.Base(s.path))
	if copyErr := copyFile(duplicate.path, s.path); copyErr != nil {
		return errors.Join(err, copyErr)
	}
	undone, _ := duplicate.openNewest(0, c.log.terms)
	if !undone {
		return err
	}
	c.report.Undone++
	s.db, s.info, s.index = duplicate.db, duplicate.info, duplicate.index
	return nil
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// compare holds what was found in a segment against its own index, if it is
// sealed, and what meta.db says of it.
func (c *checker) compare(s *segment, known *segmentInfo) error {
	return view(s.db, s.path, func(tx *bbolt.Tx) error {
		err := tx.Bucket(bucketBlocks).ForEach(func(_, _ []byte) error { c.report.Blocks++; return nil })
		if known == nil || err != nil {
			return err
		}
		found := s.info
		found.size = known.size
		if found != *known {
			return fmt.Errorf("%w: it holds the offsets %d to %d, but %s says %d to %d", errDamaged, found.first, found.last, metaFile, known.first, known.last)
		}
		if c.quick {
			return nil
		}
		topics := 0
		err = eachTopic(tx.Bucket(bucketIndex), nil, func(topic, v []byte) (bool, error) {
			topics++
			p := s.index.topics[string(topic)]
			if p != nil {
				c.last[string(topic)] = p.last
			}
			if p == nil || string(p.encode(s.index.records)) != string(v) {
				return false, fmt.Errorf("%w: its index is wrong about the topic %.80q", errDamaged, topic)
			}
			return true, nil
		})
		if err == nil && topics != len(s.index.topics) {
			err = fmt.Errorf("%w: its index lacks topics", errDamaged)
		}
		return err
	})
}
