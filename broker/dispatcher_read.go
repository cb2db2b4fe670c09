package broker

import (
	"iter"

	"github.com/tidewire/tidewire/broker/consumer"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// source is how far a dispatcher has read a strand.
type source struct {
	*strand
	watch *group   // guarded by partition.mu
	read  uint64   // everything up to here has been read
	news  uint64   // something that matches lies at or below this offset; above read: it is behind
	ahead [][]byte // records that were read and not taken, framed by protocol.AppendFramed
	term  protocol.Term
}

func (s *source) behind() bool { return s.news > s.read }

// aheadBytes is how much is read ahead at a time.
const aheadBytes = maxChunkBytes

// turnsOf goes through the sources: what was given back first, since it has waited
// longer, then the partitions, each time from another one on.
func (d *dispatcher) turnsOf() iter.Seq[*source] {
	n := len(d.sources) - 1
	return func(yield func(*source) bool) {
		if !yield(&d.sources[consumer.Redrive]) {
			return
		}
		for i := range n {
			at := (d.turn + i) % n // of the partitions; strand 1 is none
			if at > 0 {
				at++
			}
			if !yield(&d.sources[at]) {
				return
			}
		}
		d.turn++
	}
}

// readyAhead is how many records were read ahead.
func (d *dispatcher) readyAhead() (n int) {
	for i := range d.sources {
		n += len(d.sources[i].ahead)
	}
	return n
}

// hungry returns where the log is to be read for a member that got so many
// messages; nil if it is not. Callers hold mu.
func (d *dispatcher) hungry(m *member, got int) *source {
	if got > 0 || m.window <= d.machine.HeldBy(m.id) || d.machine.Blocked(0) != "" {
		return nil
	}
	for s := range d.turnsOf() {
		if len(s.ahead) == 0 && s.behind() {
			return s
		}
	}
	return nil
}

// fill reads the next part of a strand ahead.
func (d *dispatcher) fill(s *source) {
	d.filling.Lock()
	defer d.filling.Unlock()
	d.mu.Lock()
	if len(s.ahead) > 0 || !s.behind() || d.gone {
		d.mu.Unlock()
		return // somebody else has read
	}
	after := s.read
	d.mu.Unlock()

	head := s.head()
	c, err := s.log.Read(storage.Query{Filter: s.filter, After: after, Through: head, MaxBytes: aheadBytes})
	gap := s.gapOf(after, err)

	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case s.read != after: // moved by seek meanwhile
	case gap != nil:
		d.passOver(s, gap)
	case err != nil:
		d.broker.options().Logger.Error("read the log for a consumer", "consumer", d.name, "after", after, "error", err)
		s.read = s.news // it is tried again with the next message
	default:
		d.readAhead(s, &c)
	}
	d.conclude(nil)
}

// readAhead keeps what was read. Callers hold mu.
func (d *dispatcher) readAhead(s *source, c *protocol.Chunk) {
	s.ahead = make([][]byte, 0, c.Count)
	for _, framed := range c.Framed() {
		s.ahead = append(s.ahead, framed)
	}
	s.term, s.read = c.Term, c.Through
	if n := uint64(len(c.Hidden)); n > 0 {
		d.pushGap(s.countedGap(0, storage.GapRetention, s.log.PositionOf(c.After), n))
	}
	if len(s.ahead) == 0 && c.Through-d.machine.CursorIn(s.source, s.number) > skipEvery {
		d.machine.Skip(s.source, s.log.PositionOf(c.Through))
	}
}

// skipEvery is how many offsets without a match a consumer may lie behind what
// was read for it, so that they are not all read again after a restart.
const skipEvery = 10_000

// passOver moves a source over what cannot be read, and has the members told.
// Callers hold mu.
func (d *dispatcher) passOver(s *source, gap *storage.Gap) {
	s.read = gap.Next
	d.machine.Skip(s.source, s.log.PositionOf(gap.Next))
	if s.source == consumer.Main {
		d.tellGap(s.partition, gap)
	}
}

// maxGaps bounds the gaps that wait for a member to tell them to.
const maxGaps = 100

// tellGap has a member told of what is gone. Callers hold mu.
func (d *dispatcher) tellGap(pt *partition, gap *storage.Gap) {
	d.broker.options().Logger.Warn("messages are gone before a consumer got them",
		"consumer", d.name, "reason", gap.Reason, "after", gap.After, "through", gap.Through)
	d.pushGap(pt.gapFrame(0, gap))
}

// pushGap adds a gap to those that are to be told. One that goes on where the last
// one ends becomes a part of it; so does every further one when there are too many,
// for a range that is too large is better than silence.
func (d *dispatcher) pushGap(gap *tidewirev1.Gap) {
	n := len(d.gaps)
	for i := n - 1; i >= 0; i-- { // of its partition: there the last one
		last := d.gaps[i]
		if last.Partition != gap.Partition {
			continue
		}
		goesOn := last.Reason == gap.Reason && last.Term == gap.Term && gap.After <= last.Through && (last.Missed > 0) == (gap.Missed > 0)
		if goesOn || n >= maxGaps {
			last.Through, last.Position, last.Offset = max(last.Through, gap.Through), gap.Position, gap.Offset
			if last.Missed > 0 && gap.Missed > 0 {
				last.After = gap.After // neither is a range
			}
			last.Missed += gap.Missed
			return
		}
		break
	}
	d.gaps = append(d.gaps, gap)
}
