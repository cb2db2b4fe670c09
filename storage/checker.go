package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"go.etcd.io/bbolt"
)

// checker verifies one stream. A problem keeps it from nothing that can still be
// looked at.
type checker struct {
	ctx      context.Context
	log      *core
	report   *Report
	progress func(Progress)
	quick    bool              // do not read sealed segments
	last     map[string]uint64 // newest offset of each topic in the sealed segments that were read
}

// stream checks meta.db, then each segment.
func (c *checker) stream() {
	o := &opening{log: c.log}
	defer o.abandon()
	if err := o.list(); err != nil {
		c.problem(err)
		if len(o.files) == 0 {
			return
		}
	} else if o.fresh {
		return // it was cut off before its first message could be stored
	}
	whole := c.meta(o)
	c.last = make(map[string]uint64)
	next := o.meta.earliest
	ordinals := o.ordinals(whole)
	for i, ordinal := range ordinals {
		if c.ctx.Err() != nil {
			return
		}
		c.progress(Progress{Stream: c.log.name, Segment: i + 1, Of: len(ordinals)})
		size, there := o.files[ordinal]
		s := c.log.newSegment(ordinal)
		info, sealed := o.meta.sealed[ordinal]
		if !there {
			c.missing(s, sealed)
			next = 0
			continue
		}
		c.report.Segments++
		c.report.Bytes += size
		switch {
		case !whole:
			c.alone(s)
		case sealed:
			next = c.segment(s, &info, next)
		default:
			next = c.segment(s, nil, next)
		}
	}
	if whole {
		c.lasts()
	}
}

// ordinals returns those of the segments to look at, in order: all that must be
// there, and all that are. Of those that lack before one that is there by itself,
// the first is enough.
func (o *opening) ordinals(whole bool) (all []uint64) {
	last := o.meta.trimmed
	if whole {
		for must := max(o.meta.newest, last+uint64(len(o.meta.sealed))); last < must; {
			last++
			all = append(all, last)
		}
	}
	for _, ordinal := range slices.Sorted(maps.Keys(o.files)) {
		if ordinal <= last {
			continue
		}
		if whole && ordinal != last+1 {
			all = append(all, last+1)
		}
		all = append(all, ordinal)
		last = ordinal
	}
	return all
}

// meta reads meta.db, and reports whether that could be done. If not, it is as if
// nothing were known.
func (c *checker) meta(o *opening) bool {
	c.log.terms = chain{{}}
	if o.fresh {
		return false
	}
	m, err := openMetaToRead(c.log.dir)
	if err == nil {
		c.log.meta = m
		o.meta, err = m.load()
	}
	if err != nil {
		c.problem(err)
		o.meta = metaState{}
		return false
	}
	c.log.terms = o.meta.terms
	c.rows(m)
	return true
}

// rows verifies what meta.db has checksums for.
func (c *checker) rows(m *meta) {
	err := view(m.db, m.path, func(tx *bbolt.Tx) error {
		_ = tx.Bucket(bucketLast).ForEach(func(topic, v []byte) error {
			if _, ok := decodeLast(topic, v); !ok {
				c.damage(m.path, "what it says of the topic %.80q does not match its checksum", topic)
			}
			return nil
		})
		return tx.Bucket(bucketDigests).ForEach(func(first, v []byte) error {
			if _, _, ok := decodeCarried(v); !ok {
				c.damage(m.path, "the checksum of the digest rows at offset %d does not match", number(first))
			}
			return nil
		})
	})
	if err != nil {
		c.problem(err)
	}
}

func (c *checker) problem(err error) {
	c.report.Problems = append(c.report.Problems, fmt.Errorf("stream %s: %w", c.log.name, err))
}

// damage is a problem of a file.
func (c *checker) damage(path, format string, args ...any) {
	c.problem(damagedFile(path, fmt.Errorf("%w: "+format, append([]any{errDamaged}, args...)...)))
}

func (c *checker) missing(s *segment, sealed bool) {
	err := fmt.Errorf("the segment %s is missing: put it back from a backup", s.path)
	if sealed {
		err = missingSealed(s.path)
	}
	c.problem(err)
}

// segment checks one file, which should begin with the offset next if that is
// not 0, and returns what the one after it should begin with, 0 if that cannot
// be told.
func (c *checker) segment(s *segment, known *segmentInfo, next uint64) uint64 {
	defer func() { _ = s.close() }()
	if !c.quick || known == nil {
		prefetch(s.path, 1<<40)
	}
	err := c.read(s, known != nil)
	if known == nil && errors.Is(err, errDamaged) && c.undo(s) {
		err = nil
	}
	if err == nil {
		err = c.compare(s, known)
	}
	if err != nil {
		c.details(s, known, err)
		if known != nil {
			return known.last + 1
		}
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

// read opens a segment and reads all its blocks; those of a sealed one only if the
// check is not a quick one.
func (c *checker) read(s *segment, sealed bool) error {
	if sealed && c.quick {
		return c.openQuickly(s)
	}
	err := checkPages(s.path)
	if err == nil {
		err = s.openToRead(sealed)
	}
	if err == nil {
		err = s.rebuild(c.log.terms)
	}
	return err
}

// undo reports whether a segment is sound but for a newest commit that a power
// cut left unfinished. It tries in a copy, which then stands for the segment.
func (c *checker) undo(s *segment) bool {
	dir, err := os.MkdirTemp("", "tidewire-check-")
	if err != nil {
		return false
	}
	defer func() { _ = os.RemoveAll(dir) }()
	duplicate := c.log.newSegment(s.ordinal)
	duplicate.path = filepath.Join(dir, filepath.Base(s.path))
	if err := copyFile(duplicate.path, s.path); err != nil {
		return false
	}
	if undone, _ := duplicate.openNewest(0, c.log.terms); !undone {
		return false
	}
	_ = s.close()
	c.report.Undone++
	s.db, s.info, s.index = duplicate.db, duplicate.info, duplicate.index
	return true
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

// openToRead opens the file of a segment without the right to change it.
func (s *segment) openToRead(sealed bool) (err error) {
	if sealed {
		s.db, err = s.openSealed()
		return err
	}
	s.db, err = openBolt(s.path, boltOptions{readOnly: true})
	if err != nil {
		return err
	}
	return view(s.db, s.path, s.identify)
}

// compare holds what was found in a segment against its own index, if it is
// sealed, and what meta.db says of it.
func (c *checker) compare(s *segment, known *segmentInfo) error {
	return view(s.db, s.path, func(tx *bbolt.Tx) error {
		blocks := 0
		err := tx.Bucket(bucketBlocks).ForEach(func(_, _ []byte) error { blocks++; return nil })
		if err == nil && known != nil {
			err = c.compareSealed(s, tx, known)
		}
		if err == nil {
			c.report.Blocks += blocks
		}
		return err
	})
}

func (c *checker) compareSealed(s *segment, tx *bbolt.Tx, known *segmentInfo) error {
	found := s.info
	found.size = known.size
	if found != *known {
		return fmt.Errorf("%w: it holds the offsets %d to %d, but %s says %d to %d", errDamaged, found.first, found.last, metaFile, known.first, known.last)
	}
	if c.quick {
		return nil
	}
	topics := 0
	err := eachTopic(tx.Bucket(bucketIndex), nil, func(topic, v []byte) (bool, error) {
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
}
