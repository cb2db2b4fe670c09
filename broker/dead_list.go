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
	p, err := b.consumers.find(name)
	if err != nil {
		return nil, "", err
	}
	offsets := deadOffsets(p)
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
	list = p.about().letters(offsets)
	slices.Reverse(list)
	if more && len(offsets) > 0 {
		next = p.about().dead().log.PositionOf(offsets[0]).String()
	}
	return list, next, nil
}

// DeadLetter returns one dead letter by the id or the origin of its message, the
// newest if there are several.
func (b *Broker) DeadLetter(ctx context.Context, name, id string) (DeadLetter, *protocol.Error) {
	p, err := b.consumers.find(name)
	if err != nil {
		return DeadLetter{}, err
	}
	found, err := selected(ctx, p, DeadSelection{IDs: []string{id}})
	if err != nil {
		return DeadLetter{}, err
	}
	return found[len(found)-1], nil
}

// deadOffsets returns the places of the dead letters, those that retention has
// taken left out.
func deadOffsets(p post) (offsets []uint64) {
	p.look(func(m *consumer.Machine) { offsets = m.Dead() })
	earliest, _ := p.about().dead().log.Bounds()
	return above(offsets, earliest-1)
}

// letters reads dead letters, in the order of their places.
func (about *subject) letters(offsets []uint64) []DeadLetter {
	found, dead := make(map[uint64]loaded, len(offsets)), about.dead()
	dead.pick(mustFilter(deadTopicOf(about.name)), offsets, found)
	list := make([]DeadLetter, 0, len(found))
	for _, o := range offsets {
		if r, ok := found[consumer.PlaceIn(dead.number, o)]; ok {
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
func selected(ctx context.Context, p post, sel DeadSelection) (found []DeadLetter, err *protocol.Error) {
	if sel.All == (len(sel.IDs) > 0) {
		return nil, protocol.Errorf(protocol.CodeBadRequest, "name dead letters by `ids`, or say `all`: one of the two")
	}
	met := make(map[string]bool, len(sel.IDs))
	for _, id := range sel.IDs {
		met[id] = false
	}
	for offsets := range slices.Chunk(deadOffsets(p), maxDeadPage) {
		if ctx.Err() != nil {
			return nil, protocol.Errorf(protocol.CodeOverloaded, "looking through the dead letters took too long: name fewer")
		}
		for _, l := range p.about().letters(offsets) {
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
			return nil, protocol.Errorf(protocol.CodeNotFound, "the consumer %s has no dead letter %.80q: its list shows what there is", p.about().name, id)
		}
	}
	return found, nil
}

// Redrive gives dead letters back to their consumer, and to nobody else; or, with
// publish, publishes them anew as messages of their topics, for everybody.
func (b *Broker) Redrive(ctx context.Context, name string, sel DeadSelection, publish bool) (n int, err *protocol.Error) {
	p, err := b.consumers.find(name)
	if err != nil {
		return 0, err
	}
	found, err := selected(ctx, p, sel)
	if err != nil {
		return 0, err
	}
	for batch := range slices.Chunk(found, buryAtOnce) {
		if err := redrive(ctx, p, batch, publish); err != nil {
			return n, err
		}
		n += len(batch)
	}
	return n, nil
}

// redrive publishes some dead letters again. One counts as redriven once that is
// durable; if the broker dies in between, it is published again under the same id.
func redrive(ctx context.Context, p post, batch []DeadLetter, publish bool) *protocol.Error {
	answers := make(chan storage.Result, len(batch))
	about := p.about()
	p.redriving()
	for _, l := range batch {
		m, st := l.Message, about.back().partition
		m.Position, m.Time = protocol.Position{}, time.Time{}
		m.ID = "r/" + l.Position.String()
		if publish {
			st = about.broker.holds(m.Topic)
		} else {
			m.Topic = redriveTopic(about.name)
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
	return p.undead(ctx, places(batch), true)
}

func places(letters []DeadLetter) []uint64 {
	offsets := make([]uint64, len(letters))
	for i := range letters {
		offsets[i] = letters[i].Position.Offset
	}
	return offsets
}

func (d *dispatcher) redriving() { d.follow(consumer.Redrive) }

// undead notes that dead letters are no longer there to be redriven.
func (d *dispatcher) undead(ctx context.Context, offsets []uint64, redriven bool) *protocol.Error {
	d.forgetDead(offsets, redriven)
	return d.lasting(ctx)
}

func (d *dispatcher) forgetDead(offsets []uint64, redriven bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.machine.Undead(offsets...)
	if redriven {
		d.stats.redriven += uint64(len(offsets))
	}
	d.conclude(nil)
}

// PurgeDead forgets dead letters: they are no longer listed and cannot be redriven.
// Their bytes go with the retention of the stream.
func (b *Broker) PurgeDead(ctx context.Context, name string, sel DeadSelection) (n int, err *protocol.Error) {
	p, err := b.consumers.find(name)
	if err != nil {
		return 0, err
	}
	found, err := selected(ctx, p, sel)
	if err != nil {
		return 0, err
	}
	return len(found), p.undead(ctx, places(found), false)
}
