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
	journal journal
	rests   func() bool // whether nothing is to be decided now; nil for never

	filling sync.Mutex // held by whoever reads the log ahead

	mu      sync.Mutex
	machine *consumer.Machine
	sources [2]source // by consumer.Source
	members []*member
	next    int               // member to be woken next
	gaps    []*tidewirev1.Gap // to be told to a member
	burial  burial
	gone    bool // deleted

	stats dispatched
	hearsay
	agenda agenda    // guarded by the runner
	watch  [2]*group // guarded by stream.mu
}

// burial is how far the making of dead letters is.
type burial struct {
	busy bool
	due  int64 // when to try again, after a failure, in microseconds
}

// source is one of the two places in the log that a consumer reads: what its
// filter selects, and what comes back from its dead letters.
type source struct {
	filter protocol.Filter
	read   uint64   // everything up to here has been read
	news   uint64   // something that matches lies at or below this offset; above read: it is behind
	ahead  [][]byte // records that were read and not taken, framed by protocol.AppendFramed
	term   protocol.Term
}

func (s *source) behind() bool { return s.news > s.read }

// aheadBytes is how much is read ahead at a time.
const aheadBytes = maxChunkBytes

// nowOf is the clock of consumers, in microseconds.
func nowOf() int64 { return time.Now().UnixMicro() }

func newDispatcher(b *Broker, st *partition, m *consumer.Machine) (*dispatcher, error) {
	s, err := newSubject(b, st, m)
	if err != nil {
		return nil, err
	}
	d := &dispatcher{subject: s, journal: b.consumers.control, machine: m}
	head := st.head()
	d.sources[consumer.Main] = source{filter: s.filter, read: m.Cursor(consumer.Main), news: head}
	d.sources[consumer.Redrive] = source{filter: mustFilter(redriveTopic(m.Name())), read: m.Cursor(consumer.Redrive), news: head}
	return d, nil
}

// handed is a message on its way to a member.
type handed struct {
	offset  uint64
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
		src, behind := d.hungry(m, len(work))
		m.idle = len(work) == 0 && !behind
		d.conclude(nil)
		d.mu.Unlock()
		if behind {
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
	work = make([]handed, 0, max(0, min(room, d.machine.Ready(now)+len(d.sources[0].ahead)+len(d.sources[1].ahead))))
	bytes := 0
	for len(work) < room && bytes < maxChunkBytes {
		e, ok := d.machine.Retry(m.id, now)
		if !ok {
			break
		}
		bytes += e.Size
		work = append(work, handed{offset: e.Offset, attempt: uint32(e.Attempts), source: e.Source})
	}
	for src := len(d.sources) - 1; src >= 0; src-- { // redriven ones have waited longer
		s := &d.sources[src]
		for len(s.ahead) > 0 && len(work) < room && bytes < maxChunkBytes {
			h, taken, blocked := d.takeAhead(s, consumer.Source(src), m, now)
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
func (d *dispatcher) takeAhead(s *source, src consumer.Source, m *member, now int64) (h handed, sent, blocked bool) {
	framed := s.ahead[0]
	record, _, _ := protocol.NextFramed(framed)
	if d.machine.Blocked(len(record)) != "" {
		return handed{}, false, true
	}
	s.ahead = s.ahead[1:]
	offset, _ := protocol.RecordPlace(record)
	at := protocol.Position{Term: s.term, Offset: offset}
	if expiredBy(protocol.RecordExpiry(record), uint64(now)) {
		d.machine.Skip(src, at)
		d.stats.expired++
		return handed{}, false, false
	}
	attempt, sent := d.machine.Take(consumer.Message{Source: src, At: at, Key: d.keyOf(record), Size: len(record)}, m.id, now)
	return handed{offset: offset, attempt: uint32(attempt), source: src, loaded: loaded{framed, s.term, d.stream.number}}, sent, false
}

func (d *dispatcher) keyOf(record []byte) uint64 {
	if !d.machine.Settings().Ordered {
		return 0
	}
	key := protocol.RecordKey(record)
	if len(key) == 0 {
		return 0
	}
	return max(xxhash.Sum64(key), 1)
}

// hungry reports whether the log is to be read for a member that got so many
// messages, and where. Callers hold mu.
func (d *dispatcher) hungry(m *member, got int) (consumer.Source, bool) {
	if got > 0 || m.window <= d.machine.HeldBy(m.id) || d.machine.Blocked(0) != "" {
		return 0, false
	}
	for src := len(d.sources) - 1; src >= 0; src-- {
		if s := &d.sources[src]; len(s.ahead) == 0 && s.behind() {
			return consumer.Source(src), true
		}
	}
	return 0, false
}

// fill reads the next part of the log ahead.
func (d *dispatcher) fill(src consumer.Source) {
	d.filling.Lock()
	defer d.filling.Unlock()
	d.mu.Lock()
	s := &d.sources[src]
	if len(s.ahead) > 0 || !s.behind() || d.gone {
		d.mu.Unlock()
		return // somebody else has read
	}
	after := s.read
	d.mu.Unlock()

	head := d.stream.head()
	c, err := d.stream.log.Read(storage.Query{Filter: s.filter, After: after, Through: head, MaxBytes: aheadBytes})
	gap := d.stream.gapOf(after, err)

	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case s.read != after: // moved by seek meanwhile
	case gap != nil:
		d.passOver(src, gap)
	case err != nil:
		d.broker.options().Logger.Error("read the log for a consumer", "consumer", d.name, "after", after, "error", err)
		s.read = s.news // it is tried again with the next message
	default:
		d.readAhead(src, &c)
	}
	d.conclude(nil)
}

// readAhead keeps what was read. Callers hold mu.
func (d *dispatcher) readAhead(src consumer.Source, c *protocol.Chunk) {
	s := &d.sources[src]
	s.ahead = make([][]byte, 0, c.Count)
	for _, framed := range c.Framed() {
		s.ahead = append(s.ahead, framed)
	}
	s.term, s.read = c.Term, c.Through
	if n := uint64(len(c.Hidden)); n > 0 {
		d.pushGap(d.stream.countedGap(0, storage.GapRetention, d.stream.log.PositionOf(c.After), n))
	}
	if len(s.ahead) == 0 && c.Through-d.machine.Cursor(src) > skipEvery {
		d.machine.Skip(src, d.stream.log.PositionOf(c.Through))
	}
}

// skipEvery is how many offsets without a match a consumer may lie behind what
// was read for it, so that they are not all read again after a restart.
const skipEvery = 10_000

// passOver moves a source over what cannot be read, and has the members told.
// Callers hold mu.
func (d *dispatcher) passOver(src consumer.Source, gap *storage.Gap) {
	s := &d.sources[src]
	s.read = gap.Next
	d.machine.Skip(src, d.stream.log.PositionOf(gap.Next))
	if src == consumer.Main {
		d.tellGap(gap)
	}
}

// maxGaps bounds the gaps that wait for a member to tell them to.
const maxGaps = 100

// tellGap has a member told of what is gone. Callers hold mu.
func (d *dispatcher) tellGap(gap *storage.Gap) {
	d.broker.options().Logger.Warn("messages are gone before a consumer got them",
		"consumer", d.name, "reason", gap.Reason, "after", gap.After, "through", gap.Through)
	d.pushGap(d.stream.gapFrame(0, gap))
}

// pushGap adds a gap to those that are to be told. One that goes on where the last
// one ends becomes a part of it; so does every further one when there are too many,
// for a range that is too large is better than silence.
func (d *dispatcher) pushGap(gap *tidewirev1.Gap) {
	if n := len(d.gaps); n > 0 {
		last := d.gaps[n-1]
		goesOn := last.Reason == gap.Reason && last.Term == gap.Term && gap.After <= last.Through && (last.Missed > 0) == (gap.Missed > 0)
		if goesOn || n == maxGaps {
			last.Through, last.Position, last.Offset = max(last.Through, gap.Through), gap.Position, gap.Offset
			if last.Missed > 0 && gap.Missed > 0 {
				last.After = gap.After // neither is a range
			}
			last.Missed += gap.Missed
			return
		}
	}
	d.gaps = append(d.gaps, gap)
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
		d.stream.pick(d.sources[src].filter, offsets, found)
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
func (d *dispatcher) lose(offsets []uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	earliest, _ := d.stream.log.Bounds()
	for _, o := range offsets {
		reason := storage.GapPassedOver
		if o < earliest {
			reason = storage.GapRetention
		}
		d.machine.Lost(o)
		gap := d.gapBetween(o-1, o)
		gap.Reason = reason
		d.tellGap(gap)
	}
	d.conclude(nil)
}
