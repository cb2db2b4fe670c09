package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/tidewire/tidewire/protocol"
)

// opening is a log on its way to being open. Until everything has been found
// sound nothing is changed on disk; then a new term begins.
type opening struct {
	log       *core
	meta      metaState
	files     map[uint64]int64 // size of each segment's file, by ordinal
	fresh     bool             // the log did not exist
	anyWindow bool             // of ids: none was asked for
	replica   *ReplicaOptions  // nil if the log is no copy
	empty     []*segment       // files without a block
	indexed   []*segment       // files with blocks that wait to be sealed
}

// OpenLog opens the log of a stream, and creates it if it does not exist.
func (s *Store) OpenLog(stream string, opts LogOptions) (*Log, error) {
	c, err := s.openCore(stream, opts, nil)
	if err != nil {
		return nil, err
	}
	l := &Log{core: c, queue: newQueue(), committer: newCommitter(c.tail)}
	c.tail.mark = l.mark
	return l, nil
}

// openCore opens the files of a stream; of a copy if replica is not nil.
func (s *Store) openCore(stream string, opts LogOptions, replica *ReplicaOptions) (*core, error) {
	if !validStream(stream) {
		return nil, fmt.Errorf("open log: %q is not a name for a stream", stream)
	}
	anyWindow := opts.DedupeWindow == 0
	opts = opts.withDefaults()
	l := &core{
		name:    stream,
		dir:     s.Path(stream),
		opts:    opts,
		log:     opts.Logger,
		reserve: s.reserve,
		handles: handles{most: opts.OpenSegments},
	}
	if replica != nil {
		l.partition = replica.Partition
	}
	l.state.window.limit = opts.WindowBytes
	l.state.kept = newKept(opts.PerTopic)
	l.tail, l.keeper = newTail(l), newKeeper(l)
	o := &opening{log: l, anyWindow: anyWindow, replica: replica}
	if err := o.run(); err != nil {
		o.abandon()
		return nil, fmt.Errorf("open log %s: %w", stream, err)
	}
	l.metrics = newMetrics(opts.Registerer, stream)
	l.metrics.observe(l)
	l.damages.observe(opts.Registerer, stream)
	d := l.tail.dedupe
	l.metrics.dedupe(d.len(), d.oldest(), uint64(opts.Now().UnixMicro()))
	s.opened(l)
	return l, nil
}

func (o *opening) run() error {
	steps := []func() error{o.list, o.openMeta, o.checkDefinition, o.openSealed, o.openUnsealed, o.checkOrder, o.fillKept, o.loadDedupe, o.loadNote, o.begin, o.storeDefinition}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// abandon closes what has been opened.
func (o *opening) abandon() {
	for _, s := range slices.Concat(o.log.state.segs, o.empty, o.indexed) {
		_ = s.close()
	}
	if o.log.meta != nil {
		_ = o.log.meta.db.Close()
	}
}

// list finds the files.
func (o *opening) list() error {
	o.files = make(map[uint64]int64)
	entries, err := os.ReadDir(o.log.dir)
	if errors.Is(err, fs.ErrNotExist) {
		o.fresh = true
		return nil
	}
	if err != nil {
		return err
	}
	o.fresh = true
	for _, e := range entries {
		if e.Name() == metaFile {
			o.fresh = false
		}
		ordinal, ok := parseOrdinal(e.Name())
		if !ok {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		o.files[ordinal] = info.Size()
	}
	if o.fresh && len(o.files) > 0 {
		return fmt.Errorf("%s has segments but no %s: put %s back from a backup", o.log.dir, metaFile, metaFile)
	}
	return nil
}

// openMeta opens meta.db; a log that is new gets one first.
func (o *opening) openMeta() error {
	dir := o.log.dir
	if o.fresh {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return err
		}
		err := o.log.reserve.withReserve(func() error { return createMeta(dir, o.firstTerm()) })
		if err != nil {
			return err
		}
	}
	if err := errors.Join(syncDir(dir), syncDir(filepath.Dir(dir)), syncDir(filepath.Dir(filepath.Dir(dir)))); err != nil {
		return err
	}
	var err error
	if o.log.meta, err = openMeta(dir); err != nil {
		return err
	}
	if o.meta, err = o.log.meta.load(); err != nil {
		return err
	}
	if err := o.checkTerm(); err != nil {
		return err
	}
	o.log.terms = o.meta.terms
	return nil
}

// openSealed lists the sealed segments; their files are opened when they are
// read.
func (o *opening) openSealed() error {
	for ordinal := o.meta.trimmed + 1; ; ordinal++ {
		info, sealed := o.meta.sealed[ordinal]
		if !sealed {
			break
		}
		s := o.log.newSegment(ordinal)
		size, there := o.files[ordinal]
		switch {
		case !there:
			return missingSealed(s.path)
		case uint64(size) < info.size:
			o.log.damaged(s.path, fmt.Errorf("%w: it has been cut short from %d to %d bytes", errDamaged, info.size, size))
		}
		s.info, s.first = info, info.first
		o.log.state.segs = append(o.log.state.segs, s)
	}
	if len(o.log.state.segs) != len(o.meta.sealed) {
		return damagedFile(o.log.meta.path, fmt.Errorf("%w: its list of segments has a hole", errDamaged))
	}
	return nil
}

// openUnsealed opens the segments that are not sealed and rebuilds their
// indexes.
func (o *opening) openUnsealed() error {
	first := o.meta.trimmed + uint64(len(o.meta.sealed)) + 1
	o.log.keeper.newest = o.meta.newest
	for ordinal, last := first, o.lastOrdinal(); ordinal <= last; ordinal++ {
		s := o.log.newSegment(ordinal)
		if _, there := o.files[ordinal]; !there {
			return fmt.Errorf("the segment %s is missing: put it back from a backup", s.path)
		}
		prefetch(s.path, o.files[ordinal])
		undone, err := s.openNewest(2*o.log.opts.SegmentBytes, o.log.terms)
		if err != nil {
			return err
		}
		if undone {
			o.log.log.Warn("the power went during a commit; it is undone, nothing in it had been answered", "stream", o.log.name, "file", s.path, "last_offset", s.info.last)
		}
		if s.info.last == 0 {
			o.empty = append(o.empty, s)
			continue
		}
		o.indexed = append(o.indexed, s)
		if len(o.empty) > 0 {
			return damagedFile(o.empty[0].path, fmt.Errorf("%w: it is empty, but a later segment is not", errDamaged))
		}
	}
	return nil
}

// checkOrder lists all segments in order, without holes between their offsets,
// and finds the head.
func (o *opening) checkOrder() error {
	st := &o.log.state
	st.segs = append(st.segs, o.indexed...)
	o.indexed = nil
	st.head = o.meta.earliest - 1
	for _, s := range st.segs {
		if s.info.first != st.head+1 {
			return fmt.Errorf("%s begins at offset %d where %d should follow: its files are not from one moment, put the directory %s back from a backup as a whole", s.path, s.info.first, st.head+1, o.log.dir)
		}
		s.first, st.head = s.info.first, s.info.last
		o.log.tail.time = s.info.lastTime
	}
	if len(o.empty) > o.mostEmpty() {
		return fmt.Errorf("%s has %d empty segments: its files are not from one moment, put the directory back from a backup as a whole", o.log.dir, len(o.empty))
	}
	return nil
}

// begin makes the first changes: a new term and a segment to write to.
func (o *opening) begin() error {
	l := o.log
	if !o.fresh && o.replica == nil {
		l.terms = l.terms.next(protocol.NewTerm(), l.state.head)
		if err := l.reserve.withReserve(func() error { return l.meta.setChain(l.terms) }); err != nil {
			return err
		}
	}
	if err := o.tidy(); err != nil {
		return err
	}
	active := len(l.state.segs) > 0 && l.state.active().index != nil && !l.state.active().begun
	if !active && len(o.empty) == 0 {
		ordinal := o.meta.trimmed + 1
		if n := len(l.state.segs); n > 0 {
			ordinal = l.state.segs[n-1].ordinal + 1
		}
		s := l.newSegment(ordinal)
		size := l.opts.SegmentBytes
		err := l.reserve.withReserve(func() error { return s.create(2*size, size) })
		if err != nil {
			return err
		}
		o.empty = append(o.empty, s)
	}
	if !active || len(o.empty) >= 2 {
		s := o.empty[0]
		s.first, s.index = l.state.head+1, newTopicIndex()
		l.state.segs = append(l.state.segs, s)
		o.empty = o.empty[1:]
	}
	if l.tail.active = l.state.active(); l.tail.active.info.last != 0 {
		l.tail.used = int64(l.tail.active.info.size)
	}
	l.state.spares, o.empty = o.empty, nil
	l.state.synced, l.tail.head = l.state.head, l.state.head
	return nil
}

// tidy removes what a crash left behind.
func (o *opening) tidy() error {
	for ordinal := range o.files {
		if ordinal <= o.meta.trimmed {
			o.log.keeper.leftover = append(o.log.keeper.leftover, o.log.newSegment(ordinal))
		}
	}
	for ordinal, info := range o.meta.sealed {
		if uint64(o.files[ordinal]) > info.size {
			if err := truncate(o.log.newSegment(ordinal).path, int64(info.size)); err != nil {
				return err
			}
		}
	}
	unfinished, err := filepath.Glob(filepath.Join(o.log.dir, "*.tmp"))
	for _, path := range unfinished {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}
