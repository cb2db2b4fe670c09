package broker

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/tidewire/tidewire/broker/consumer"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// A DeadLetter is a message that a consumer has given up.
type DeadLetter struct {
	ID       string // of the message
	Topic    string // that it was published to
	Origin   string // its position
	Attempts int
	Reason   string
	First    string // when it was first delivered, RFC 3339
	Last     string // when it was given up, RFC 3339
	Position protocol.Position
	Message  protocol.Message // with its own topic, id and headers
}

// DeadSelection names dead letters: by the id or the origin of their message, or
// all.
type DeadSelection struct {
	IDs []string
	All bool
}

// maxDeadPage bounds what one call lists.
const maxDeadPage = 1000

// DeadLetters lists dead letters of a consumer that were neither redriven nor
// purged, the newest first, before a position or from the end. next is where to go
// on, empty at the end.
func (b *Broker) DeadLetters(_ context.Context, name, before string, limit int) (list []DeadLetter, next string, err *protocol.Error) {
	d, err := b.consumers.find(name)
	if err != nil {
		return nil, "", err
	}
	offsets := d.deadOffsets()
	if before != "" {
		at, perr := protocol.ParsePosition(before)
		if perr != nil {
			return nil, "", protocol.AsError(perr)
		}
		end, _ := slices.BinarySearch(offsets, at.Offset)
		offsets = offsets[:end]
	}
	more := len(offsets) > limit
	offsets = offsets[max(len(offsets)-limit, 0):]
	list = d.letters(offsets)
	slices.Reverse(list)
	if more && len(offsets) > 0 {
		next = b.consumers.dead.log.PositionOf(offsets[0]).String()
	}
	return list, next, nil
}

// DeadLetter returns one dead letter by the id or the origin of its message, the
// newest if there are several.
func (b *Broker) DeadLetter(ctx context.Context, name, id string) (DeadLetter, *protocol.Error) {
	d, err := b.consumers.find(name)
	if err != nil {
		return DeadLetter{}, err
	}
	found, err := d.selected(ctx, DeadSelection{IDs: []string{id}})
	if err != nil {
		return DeadLetter{}, err
	}
	return found[len(found)-1], nil
}

// deadOffsets returns the places of the dead letters, those that retention has
// taken left out.
func (d *dispatcher) deadOffsets() []uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dropTrimmed()
	return d.machine.Dead()
}

// dropTrimmed forgets the dead letters that retention has taken. Callers hold mu.
func (d *dispatcher) dropTrimmed() {
	earliest, _ := d.broker.consumers.dead.log.Bounds()
	d.machine.UndeadThrough(earliest - 1)
	d.conclude(nil)
}

// letters reads dead letters, in the order of their places.
func (d *dispatcher) letters(offsets []uint64) []DeadLetter {
	dead := d.broker.consumers.dead
	found := make(map[uint64]loaded, len(offsets))
	dead.pick(mustFilter(deadTopicOf(d.name)), offsets, found)
	list := make([]DeadLetter, 0, len(found))
	for _, o := range offsets {
		if r, ok := found[o]; ok {
			list = append(list, letterOf(r))
		}
	}
	return list
}

func letterOf(r loaded) DeadLetter {
	m := r.message()
	l := DeadLetter{Position: m.Position}
	var o origin
	o.read(&m)
	for _, h := range m.Headers {
		switch h.Name {
		case deadAttempts:
			l.Attempts, _ = strconv.Atoi(h.Value)
		case deadReason:
			l.Reason = h.Value
		case deadLast:
			l.Last = h.Value
		}
	}
	l.ID, l.Topic, l.Origin, l.First = o.id, o.topic, o.position, o.first
	m.Topic, m.ID, m.Headers = o.topic, o.id, withoutDead(m.Headers)
	l.Message = m
	return l
}

// selected returns the dead letters that somebody has named, oldest first.
func (d *dispatcher) selected(ctx context.Context, sel DeadSelection) (found []DeadLetter, err *protocol.Error) {
	if sel.All == (len(sel.IDs) > 0) {
		return nil, protocol.Errorf(protocol.CodeBadRequest, "name dead letters by `ids`, or say `all`: one of the two")
	}
	met := make(map[string]bool, len(sel.IDs))
	for _, id := range sel.IDs {
		met[id] = false
	}
	for offsets := range slices.Chunk(d.deadOffsets(), maxDeadPage) {
		if ctx.Err() != nil {
			return nil, protocol.Errorf(protocol.CodeOverloaded, "looking through the dead letters took too long: name fewer")
		}
		for _, l := range d.letters(offsets) {
			_, byID := met[l.ID]
			_, byOrigin := met[l.Origin]
			switch {
			case sel.All:
			case byID:
				met[l.ID] = true
			case byOrigin:
				met[l.Origin] = true
			default:
				continue
			}
			found = append(found, l)
		}
	}
	for _, id := range sel.IDs {
		if !met[id] {
			return nil, protocol.Errorf(protocol.CodeNotFound, "the consumer %s has no dead letter %.80q: its list shows what there is", d.name, id)
		}
	}
	return found, nil
}

// Redrive gives dead letters back to their consumer, and to nobody else; or, with
// publish, publishes them anew as messages of their topics, for everybody.
func (b *Broker) Redrive(ctx context.Context, name string, sel DeadSelection, publish bool) (n int, err *protocol.Error) {
	d, err := b.consumers.find(name)
	if err != nil {
		return 0, err
	}
	found, err := d.selected(ctx, sel)
	if err != nil {
		return 0, err
	}
	for batch := range slices.Chunk(found, buryAtOnce) {
		if err := d.redrive(ctx, batch, publish); err != nil {
			return n, err
		}
		n += len(batch)
	}
	return n, b.consumers.control.wait(ctx)
}

// redrive publishes some dead letters again. One counts as redriven once that is
// durable; if the broker dies in between, it is published again under the same id.
func (d *dispatcher) redrive(ctx context.Context, batch []DeadLetter, publish bool) *protocol.Error {
	answers := make(chan storage.Result, len(batch))
	d.follow(consumer.Redrive)
	for _, l := range batch {
		m, st := l.Message, d.stream
		m.Position, m.Time = protocol.Position{}, time.Time{}
		m.ID = "r/" + l.Position.String()
		if publish {
			st = d.broker.owner(m.Topic)
		} else {
			m.Topic = redriveTopic(d.name)
			m.Headers = append(m.Headers, protocol.Header{Name: deadTopic, Value: l.Topic}, protocol.Header{Name: deadID, Value: l.ID},
				protocol.Header{Name: deadPosition, Value: l.Origin}, protocol.Header{Name: deadFirst, Value: l.First})
		}
		e := entryOf(&m)
		e.Done = func(r storage.Result) { answers <- r }
		if err := st.append(ctx, e); err != nil {
			return err
		}
	}
	var failed *protocol.Error
	for range batch {
		if r := <-answers; r.Err != nil {
			failed = r.Err
		}
	}
	if failed != nil {
		return failed
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stats.redriven += uint64(len(batch))
	d.undead(batch)
	return nil
}

// undead notes that dead letters are no longer there to be redriven. Callers hold
// mu.
func (d *dispatcher) undead(letters []DeadLetter) {
	for i := range letters {
		d.machine.Undead(letters[i].Position.Offset)
	}
	d.conclude(nil)
}

// PurgeDead forgets dead letters: they are no longer listed and cannot be redriven.
// Their bytes go with the retention of the stream.
func (b *Broker) PurgeDead(ctx context.Context, name string, sel DeadSelection) (n int, err *protocol.Error) {
	d, err := b.consumers.find(name)
	if err != nil {
		return 0, err
	}
	found, err := d.selected(ctx, sel)
	if err != nil {
		return 0, err
	}
	d.mu.Lock()
	d.undead(found)
	d.mu.Unlock()
	return len(found), b.consumers.control.wait(ctx)
}
