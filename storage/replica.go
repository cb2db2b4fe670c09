package storage

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// ReplicaOptions says how to open a [Replica].
type ReplicaOptions struct {
	LogOptions
	Partition uint32        // that all its positions have
	Term      protocol.Term // of the stream: the same on all nodes and at every start
	Renew     bool          // a copy that has another term is dropped and begun anew
	RunAhead  int64         // bytes that may be readable before they are synced; default 64 MiB
}

// Replica is a copy of one partition of a stream whose order was decided elsewhere:
// offsets and times come with the items. It is stored and read exactly as a [Log]
// is; what it does with the same items does not depend on how they are cut into
// calls, on when they come, or on restarts.
//
// Its promise is another one: what was applied is safe elsewhere, so it can be
// read before it is on this disk. After a crash the copy ends at [Replica.Synced],
// and remembers ids, and its note, as of there; whoever feeds it goes on from the
// head.
//
// One caller uses Apply and Reset, in the order of the log, while Run goes on.
type Replica struct {
	*core
	applier *applier
}

// An Item is one offset of a [Replica].
type Item struct {
	// Offset is above those before. What lies between becomes offsets without a
	// record, at most [MaxHole] of them.
	Offset uint64

	// Time is that of the record, in microseconds since 1970. It may go back, or lie
	// in the future: the record has it as it is, while starts by time and retention
	// by age see the running maximum, up to now.
	Time uint64

	// Entry is what is stored: Topic, Record, Key and Payload as in [Log.Append].
	// If nil nothing is. Done, if it is set, takes the answer; FirstAttempt, Order
	// and Resume are not looked at: they were judged before the order was.
	Entry *Entry

	// Err refuses the entry: nothing is stored, its id is not remembered, and it is
	// the answer.
	Err *protocol.Error
}

// MaxHole is how many offsets without an item may lie between two items.
const MaxHole = 10_000

// A HoleError says that offsets are missing in front of an item: more than
// [MaxHole]. [Replica.Reset] goes on behind such a hole.
type HoleError struct {
	Head uint64 // the last offset there is
	Next uint64 // of the item
}

func (e *HoleError) Error() string {
	return fmt.Sprintf("storage: the offsets %d to %d are missing, more than %d", e.Head+1, e.Next-1, MaxHole)
}

// OpenReplica opens the copy of a partition, and creates it if it does not exist.
func (s *Store) OpenReplica(name string, o ReplicaOptions) (*Replica, error) {
	if o.Term == 0 {
		return nil, fmt.Errorf("open log %s: a copy needs the term of its stream", name)
	}
	setDefault(&o.RunAhead, 64<<20)
	c, err := s.openCore(name, o.LogOptions, &o)
	if err != nil {
		return nil, err
	}
	return &Replica{core: c, applier: newApplier(c.tail, o.RunAhead)}, nil
}

// Apply adds items behind the head and returns what became of them, as [Log.Run]
// hands it over. From then on it can be read; the sync comes later. The note is
// kept with the items, at most 64 KiB of it: [Replica.Note] gives the newest one
// back after a start. The records belong to the replica from then on.
//
// Apply waits while too much is not synced: more than RunAhead, or more than a full
// disk has room for. If ctx ends meanwhile it returns what was applied before, if
// anything was, and an error; the rest, and the note, were not. Items that are out
// of order, and a [HoleError], are refused as a whole.
//
// Commit.Answers has the results of the entries that have Done; like Run, Apply
// calls none of them.
func (r *Replica) Apply(ctx context.Context, items []Item, note []byte) (*Commit, error) {
	return r.applier.apply(ctx, items, note)
}

// Reset drops everything, readers or not: the log goes on with the offset first,
// knows no ids and has no note. It is for a copy that begins in the middle of its
// stream, for a hole that [MaxHole] does not allow, and for a copy that is to be
// read again. Readers that are below are told [ErrTrimmed], those above the head
// wait; where the offsets mean something else from now on, that is another
// [ReplicaOptions.Term]. After an error nothing has changed, or all has.
func (r *Replica) Reset(first uint64) error { return r.applier.reset(first) }

// Synced returns the last offset that is on disk: the head, after a crash.
func (r *Replica) Synced() uint64 {
	r.state.mu.RLock()
	defer r.state.mu.RUnlock()
	return r.state.synced
}

// Unsynced returns since when the oldest items that are not on disk wait for that;
// zero if there are none.
func (r *Replica) Unsynced() time.Time { return r.applier.ahead.since() }

// Note returns the newest note that is on disk, nil if there is none.
func (r *Replica) Note() []byte {
	r.state.mu.RLock()
	defer r.state.mu.RUnlock()
	return r.state.note
}

// Forgotten returns the time up to which ids may have been forgotten, or come before
// the copy began: a repeat that was first tried before then can no longer be told
// from a new message. Zero if all ids are known. It is for whoever judges repeats
// before they are ordered.
func (r *Replica) Forgotten() time.Time {
	if at := r.applier.forgotten.Load(); at > 0 {
		return time.UnixMicro(int64(at))
	}
	return time.Time{}
}

// AppendState appends what decides which of the next items are stored, for
// comparing copies with each other: the head, and the keys of the ids that are
// remembered, in their order. It follows from the newest DedupeWindow items that
// have one, wherever the copy began.
//
// What a repeat is answered, which one copy does, may go further back: a message
// that was repeated again and again for longer than the window is known as the
// first by those copies that have had it.
func (r *Replica) AppendState(b []byte) []byte { return r.applier.appendState(b) }

// Run looks after what is applied until ctx ends: it syncs and seals it, and
// removes what retention has no place for. When ctx ends it syncs what was applied
// before.
//
// An error means that a sync failed: what the disk holds is no longer known, and
// the process must end. A full disk is none: Run waits for room, [Replica.Ready]
// says so, and nothing is lost.
func (r *Replica) Run(ctx context.Context) error { return r.applier.run(ctx) }

// Resolve says where a start begins; see [Log.Resolve]. One difference: a position
// above the head is no rollback. Others may have read what has not come here yet,
// so Resolved.Ahead is set, and the caller decides, who knows how far the stream
// goes: up to its end, wait; beyond, it was put back.
func (r *Replica) Resolve(s protocol.Start, f protocol.Filter, head uint64) (Resolved, error) {
	if s.Kind == protocol.StartPosition && s.Position.Partition == r.partition && s.Position.Term == r.term() {
		if _, last := r.Bounds(); s.Position.Offset > last {
			return Resolved{After: s.Position.Offset, Ahead: true}, nil
		}
	}
	return r.core.Resolve(s, f, head)
}

// check refuses items that cannot come next.
func checkItems(items []Item, head uint64, note []byte) error {
	if len(note) > maxNote {
		return fmt.Errorf("storage: a note of %d bytes, at most %d are kept", len(note), maxNote)
	}
	for i := range items {
		offset := items[i].Offset
		switch {
		case offset <= head, offset > protocol.MaxOffset:
			return fmt.Errorf("storage: an item with offset %d after offset %d", offset, head)
		case offset-head-1 > MaxHole:
			return &HoleError{Head: head, Next: offset}
		}
		head = offset
	}
	return nil
}

// add makes a commit one that also has what the next one has.
func (c *Commit) add(next *Commit) {
	c.Chunk.Through = next.Chunk.Through
	c.Chunk.Count += next.Chunk.Count
	c.Chunk.Records = slices.Concat(c.Chunk.Records, next.Chunk.Records) // the block's own must not grow
	c.Topics = append(c.Topics, next.Topics...)
	c.Answers = append(c.Answers, next.Answers...)
}
