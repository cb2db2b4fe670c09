package storage

import (
	"math"
	"os"

	"go.etcd.io/bbolt"
)

// details reports everything that is wrong with a segment in which err was found
// first: each range of offsets that is lost, and what else does not match.
func (c *checker) details(s *segment, known *segmentInfo, err error) {
	_ = s.close()
	before := len(c.report.Problems)
	if known == nil {
		c.problem(err) // how much should be there is not known
	}
	v := &salvage{first: 0, through: math.MaxInt64}
	if known != nil {
		v.first, v.through = known.first, known.last
	}
	c.lost(s, v, c.log.terms)
	c.leaves(s)
	if len(c.report.Problems) == before {
		c.problem(err) // of another kind
	}
}

// alone checks a segment of which nothing is known, since meta.db cannot be read.
func (c *checker) alone(s *segment) {
	if err := checkPages(s.path); err != nil {
		c.problem(err)
	}
	c.lost(s, &salvage{through: math.MaxInt64}, nil)
	c.leaves(s)
	_ = s.close()
}

// lost reports what cannot be read of the offsets that v speaks of, and counts
// what can.
func (c *checker) lost(s *segment, v *salvage, terms chain) {
	f, err := os.Open(s.path)
	if err != nil {
		c.problem(err)
		return
	}
	defer func() { _ = f.Close() }()
	w := newSurveyor(f, terms, v.first, v.through)
	w.file(c.log, s)
	v.places = w.places
	v.arrange()
	after, bounded := v.first, v.through != math.MaxInt64
	cursor := &salvageCursor{salvage: v, file: f}
	for i, p := range v.places {
		if p.first > after && (bounded || i > 0) {
			c.damage(s.path, "the offsets %d to %d cannot be read", after, p.first-1)
		}
		after = p.last + 1
		if b, ok := cursor.read(p); ok {
			c.block(s.path, &b)
		}
	}
	if bounded && after <= v.through {
		c.damage(s.path, "the offsets %d to %d cannot be read", after, v.through)
	}
}

// block reports what is wrong in a block whose header and table are sound.
func (c *checker) block(path string, b *block) {
	c.report.Blocks++
	if _, err := b.digests(); err != nil {
		c.problem(damagedFile(path, err))
	}
	bad := 0
	for slot := 0; slot < b.count; slot++ {
		if !b.bad(slot) {
			continue
		}
		through := b.badThrough(slot)
		c.damage(path, "the records at the offsets %d to %d do not match their checksums", b.first+uint64(slot), through)
		bad += int(through-b.first) - slot + 1
		slot = int(through - b.first)
	}
	c.report.Records += b.records - min(bad, b.records)
	if bad == 0 {
		err := b.verifyAll(func(uint64, []byte) error { return nil })
		if _, digests := b.digests(); err != nil && digests == nil {
			c.problem(damagedFile(path, err))
		}
	}
}

// leaves reports each leaf of the index that does not match its checksum.
func (c *checker) leaves(s *segment) {
	if err := checkBranches(s.path); err != nil {
		c.problem(err)
		return
	}
	db, err := openBolt(s.path, boltOptions{readOnly: true})
	if err != nil {
		return
	}
	defer func() { _ = db.Close() }()
	err = view(db, s.path, func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketIndex).ForEach(func(k, v []byte) error {
			if _, err := openLeaf(k, v); err != nil {
				c.damage(s.path, "the part of its topic index that begins with %.80q does not match its checksum", k[1:])
			}
			return nil
		})
	})
	if err != nil {
		c.problem(err)
	}
}
