// Package brokertest has a log in memory for tests of what stands on a broker:
// the edge, the clients. It keeps the contract of [broker.Log] in the simplest
// way that is right, and can be told to do what a disk does only rarely.
package brokertest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// A Log is a log in memory. It remembers every id for ever, and gives offsets
// to repeats and conflicts, as the log on disk does.
type Log struct {
	ready  chan struct{} // has a token while there may be something to commit
	number uint32        // of the partition

	mu       sync.Mutex
	queue    []*storage.Entry
	closed   bool
	held     bool
	refusal  *protocol.Error
	terms    []span
	records  []record // by offset - 1; repeats have no bytes
	earliest uint64
	damages  []damage
	ids      map[storage.DedupeKey]first
	broken   map[*storage.Order]bool
}

// span is a term and the first offset that was written in it.
type span struct {
	term  protocol.Term
	first uint64
}

type record struct {
	topic string
	bytes []byte
	time  uint64
}

// damage is a range that cannot be read.
type damage struct{ after, through uint64 }

// first is where an id was stored first, and with what.
type first struct {
	position protocol.Position
	payload  uint64
}

// NewLog returns an empty log.
func NewLog() *Log {
	return &Log{
		ready: make(chan struct{}, 1), earliest: 1,
		terms:  []span{{protocol.NewTerm(), 0}},
		ids:    map[storage.DedupeKey]first{},
		broken: map[*storage.Order]bool{},
	}
}

// NewPartitions returns n logs that are the partitions of one stream: they are of
// one term.
func NewPartitions(n int) []*Log {
	logs := make([]*Log, n)
	for i := range logs {
		logs[i] = NewLog()
		logs[i].number, logs[i].terms = uint32(i), slices.Clone(logs[0].terms)
	}
	return logs
}

// Hold makes the log keep what is appended without storing it, until it is held
// no more.
func (l *Log) Hold(held bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = held
	l.signal()
}

// Refuse makes the log answer everything with err, until it is nil.
func (l *Log) Refuse(err *protocol.Error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refusal = err
}

// Trim does what retention does: it removes everything up to an offset.
func (l *Log) Trim(through uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.earliest = max(l.earliest, min(through, l.head())+1)
}

// Damage makes the offsets in (after, through] unreadable for good, as damage on
// a disk does. Whoever is live has them already.
func (l *Log) Damage(after, through uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if through = min(through, l.head()); after < through {
		l.damages = append(l.damages, damage{after, through})
	}
}

// Reboot puts the log back to head, as a restored backup would, and begins a
// new term. Nothing may run on the log; a new broker has to be made.
func (l *Log) Reboot(head uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	head = min(head, l.head())
	l.records = l.records[:head]
	l.earliest = min(l.earliest, head+1)
	for i := range l.damages {
		l.damages[i].through = min(l.damages[i].through, head)
	}
	for key, f := range l.ids {
		if f.position.Offset > head {
			delete(l.ids, key)
		}
	}
	for len(l.terms) > 1 && l.terms[len(l.terms)-1].first > head {
		l.terms = l.terms[:len(l.terms)-1]
	}
	l.terms = append(l.terms, span{protocol.NewTerm(), head + 1})
	l.queue, l.closed = nil, false
}

// Append queues entries.
func (l *Log) Append(_ context.Context, entries ...*storage.Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return protocol.Errorf(protocol.CodeGoingAway, "the log is closed")
	}
	l.queue = append(l.queue, entries...)
	l.signal()
	return nil
}

func (l *Log) signal() {
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

// Run commits what is queued and hands it to apply until ctx has ended.
func (l *Log) Run(ctx context.Context, apply func(*storage.Commit)) error {
	for {
		select {
		case <-l.ready:
		case <-ctx.Done():
		}
		ended := ctx.Err() != nil
		if ended {
			l.mu.Lock()
			l.closed = true
			l.mu.Unlock()
		}
		if c := l.commit(); c != nil {
			apply(c)
		}
		if ended {
			return nil
		}
	}
}

// commit stores what is queued as one commit; nil if there is nothing to do.
func (l *Log) commit() *storage.Commit {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held || len(l.queue) == 0 {
		return nil
	}
	entries := l.queue
	l.queue = nil
	c := &storage.Commit{Chunk: protocol.Chunk{Partition: l.number, Term: l.terms[len(l.terms)-1].term, After: l.head()}}
	now := uint64(time.Now().UnixMicro())
	if n := len(l.records); n > 0 {
		now = max(now, l.records[n-1].time)
	}
	for _, e := range entries {
		c.Answers = append(c.Answers, storage.Answer{Entry: e, Result: l.store(c, e, now)})
	}
	c.Chunk.Through = l.head()
	return c
}

// store stores one entry and returns its answer.
func (l *Log) store(c *storage.Commit, e *storage.Entry, now uint64) storage.Result {
	if err := l.refuse(e); err != nil {
		return storage.Result{Err: err}
	}
	at := protocol.Position{Term: c.Chunk.Term, Partition: l.number, Offset: l.head() + 1}
	if e.Key != (storage.DedupeKey{}) {
		if f, known := l.ids[e.Key]; known {
			l.records = append(l.records, record{time: now})
			if f.payload != e.Payload {
				return storage.Result{Err: protocol.Errorf(protocol.CodeIDConflict, "the topic has a message with this id and another payload, at position %s", f.position)}
			}
			return storage.Result{Position: f.position, Duplicate: true}
		}
		l.ids[e.Key] = first{at, e.Payload}
	}
	protocol.PlaceRecord(e.Record, at.Offset, now)
	l.records = append(l.records, record{e.Topic, e.Record, now})
	c.Topics = append(c.Topics, e.Topic)
	c.Chunk.Records = protocol.AppendFramed(c.Chunk.Records, e.Record)
	c.Chunk.Count++
	return storage.Result{Position: at}
}

// refuse says why an entry cannot be stored, and keeps its publisher's order.
func (l *Log) refuse(e *storage.Entry) *protocol.Error {
	if e.Resume {
		delete(l.broken, e.Order)
	}
	if e.Order != nil && l.broken[e.Order] {
		return protocol.Errorf(protocol.CodeOutOfOrder, "an earlier message of this connection was refused: repeat from that one on, with `resume`")
	}
	if l.refusal != nil && e.Order != nil && l.refusal.Retryable() {
		l.broken[e.Order] = true
	}
	return l.refusal
}

// head returns the last offset. Callers hold mu.
func (l *Log) head() uint64 { return uint64(len(l.records)) }

// Bounds returns the oldest stored offset and the last one given.
func (l *Log) Bounds() (earliest, head uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.earliest, l.head()
}

// PositionOf returns the position of an offset.
func (l *Log) PositionOf(offset uint64) protocol.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	term, _ := l.span(offset)
	return protocol.Position{Term: term.term, Partition: l.number, Offset: offset}
}
