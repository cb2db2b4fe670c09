package broker

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/tidewire/tidewire/broker/consumer"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// dispatcher brings the messages of one consumer to its members. What has been
// decided is the machine's; the dispatcher reads the log for it, keeps time, and
// tells the control log.
//
// Locks: filling before mu; mu before Session.mu; the runner's lock is a leaf.
// Nothing is read from the log under mu.
type dispatcher struct {
	subject
	deciding

	filling sync.Mutex // held by whoever reads the log ahead

	mu      sync.Mutex
	machine *consumer.Machine
	sources []source // by strand
	members []*member
	next    int               // member to be woken next
	turn    int               // partition to be looked at first
	gaps    []*tidewirev1.Gap // to be told to a member
	burial  burial
	gone    bool // deleted

	stats dispatched
	hearsay
	agenda agenda // guarded by the runner
}

// deciding is by what right a dispatcher decides.
type deciding struct {
	journal journal
	rests   func() bool // whether nothing is to be decided now; nil for never
}

// burial is how far the making of dead letters is.
type burial struct {
	busy bool
	due  int64 // when to try again, after a failure, in microseconds
}

// nowOf is the clock of consumers, in microseconds.
func nowOf() int64 { return time.Now().UnixMicro() }

func newDispatcher(b *Broker, st *stream, m *consumer.Machine) (*dispatcher, error) {
	s, err := newSubject(b, st, m)
	if err != nil {
		return nil, err
	}
	n := len(s.strands)
	d := &dispatcher{subject: s, deciding: deciding{journal: b.consumers.control}, machine: m, sources: make([]source, n)}
	d.news = make([]news, n)
	for i := range d.sources {
		l := &d.strands[i]
		d.sources[i] = source{strand: l, read: m.CursorIn(l.source, l.number), news: l.head()}
	}
	return d, nil
}

// handed is a message on its way to a member.
type handed struct {
	offset  uint64 // its place
	attempt uint32
	source  consumer.Source
	loaded  // without a record until it is read
}

// take returns what a member is to work on next, at most n messages and about
// maxChunkBytes of them. When it returns nothing the member will be woken, unless
// again is true: then only a part of the log was looked through, without a match.
func (d *dispatcher) take(m *member, n int) (work []handed, generation uint64, again bool) {
	for range 2 {
		d.mu.Lock()
		if d.gone || m.left || d.resting() {
			m.idle = true
			d.mu.Unlock()
			return nil, 0, false
		}
		work = d.choose(m, n, nowOf())
		generation = d.machine.Generation()
		if m.grant != nil && len(work) > 0 {
			m.grant(work, generation)
		}
		src := d.hungry(m, len(work))
		m.idle = len(work) == 0 && src == nil
		d.conclude(nil)
		d.mu.Unlock()
		if src != nil {
			d.fill(src)
			continue
		}
		want := len(work)
		if m.grant == nil {
			work = d.load(work)
		}
		return work, generation, want > 0 && len(work) == 0
	}
	return nil, generation, true
}

// resting reports whether this node must not decide for now.
func (d *dispatcher) resting() bool { return d.rests != nil && d.rests() }

// choose takes retries first and then what was read ahead. Callers hold mu.
func (d *dispatcher) choose(m *member, n int, now int64) (work []handed) {
	d.machine.Advance(consumer.Moment{Now: now, Random: rand.Int64N})
	room := min(n, m.window-d.machine.HeldBy(m.id))
	work = make([]handed, 0, max(0, min(room, d.machine.Ready(now)+d.readyAhead())))
	bytes := 0
	for len(work) < room && bytes < maxChunkBytes {
		e, ok := d.machine.Retry(m.id, now)
		if !ok {
			break
		}
		bytes += e.Size
		work = append(work, handed{offset: e.Offset, attempt: uint32(e.Attempts), source: e.Source})
	}
	for s := range d.turnsOf() {
		for len(s.ahead) > 0 && len(work) < room && bytes < maxChunkBytes {
			h, taken, blocked := d.takeAhead(s, m, now)
			if blocked {
				break
			}
			if taken {
				bytes += len(h.framed)
				d.stats.delivered++ // retries are counted when they have been read
				work = append(work, h)
			}
		}
	}
	return work
}

// takeAhead takes the next record that was read ahead: to be delivered, to be
// held because its key is taken, or left out because it has expired.
func (d *dispatcher) takeAhead(s *source, m *member, now int64) (h handed, sent, blocked bool) {
	framed := s.ahead[0]
	record, _, _ := protocol.NextFramed(framed)
	if d.machine.Blocked(len(record)) != "" {
		return handed{}, false, true
	}
	s.ahead = s.ahead[1:]
	offset, _ := protocol.RecordPlace(record)
	at := protocol.Position{Term: s.term, Partition: s.number, Offset: offset}
	if expiredBy(protocol.RecordExpiry(record), uint64(now)) {
		d.machine.Skip(s.source, at)
		d.stats.expired++
		return handed{}, false, false
	}
	attempt, sent := d.machine.Take(consumer.Message{Source: s.source, At: at, Key: d.keyOf(s, framed, record), Size: len(record)}, m.id, now)
	return handed{offset: consumer.PlaceOf(at), attempt: uint32(attempt), source: s.source, loaded: loaded{framed, s.term, s.number}}, sent, false
}

// keyOf returns what stands for the ordering key of a record, 0 if it has none. Order
// holds within a partition, so a key of each partition is another one; what was given
// back has that of the partition from which it comes.
func (d *dispatcher) keyOf(s *source, framed, record []byte) uint64 {
	if !d.machine.Settings().Ordered {
		return 0
	}
	key := protocol.RecordKey(record)
	if len(key) == 0 {
		return 0
	}
	partition := s.number
	if s.source == consumer.Redrive && len(d.stream.parts) > 1 {
		h := handed{source: s.source, loaded: loaded{framed: framed}}
		shown, _, _ := protocol.NextFramed(h.shown())
		partition = d.stream.of(string(protocol.RecordTopic(shown))).number
	}
	const spread = 0x9e3779b97f4a7c15
	return max(xxhash.Sum64(key)^uint64(partition)*spread, 1)
}

// load reads the records of retries. One that has expired since it was taken first
// is left out. What cannot be read any more is told.
func (d *dispatcher) load(work []handed) []handed {
	var missing [2][]uint64
	for _, h := range work {
		if h.framed == nil {
			missing[h.source] = append(missing[h.source], h.offset)
		}
	}
	if len(missing[0])+len(missing[1]) == 0 {
		return work
	}
	found := make(map[uint64]loaded)
	for src, offsets := range missing {
		d.pick(consumer.Source(src), offsets, found)
	}
	kept := work[:0]
	var lost, expired []uint64
	var delivered, redelivered uint64
	now := nowMicros()
	for _, h := range work {
		if h.framed == nil {
			r, ok := found[h.offset]
			switch {
			case !ok:
				lost = append(lost, h.offset)
				continue
			case r.expired(now):
				expired = append(expired, h.offset)
				continue
			}
			h.loaded = r
			delivered++
			if h.attempt > 1 { // else it was held before it was delivered first
				redelivered++
			}
		}
		kept = append(kept, h)
	}
	d.mu.Lock()
	d.stats.delivered += delivered
	d.stats.redelivered += redelivered
	d.mu.Unlock()
	if len(lost) > 0 {
		d.lose(lost)
	}
	if len(expired) > 0 {
		d.expire(expired)
	}
	return kept
}

// expire settles messages that have expired before a delivery.
func (d *dispatcher) expire(offsets []uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, o := range offsets {
		d.machine.Expired(o)
	}
	d.stats.expired += uint64(len(offsets))
	d.conclude(nil)
}

// lose settles messages that retention has taken, or that are damaged.
func (d *dispatcher) lose(places []uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, place := range places {
		d.machine.Lost(place)
		pt, offset := d.stream.in(place)
		if pt == nil {
			continue
		}
		gap := pt.gapBetween(offset-1, offset)
		if earliest, _ := pt.log.Bounds(); offset >= earliest {
			gap.Reason = storage.GapPassedOver
		}
		d.tellGap(pt, gap)
	}
	d.conclude(nil)
}
