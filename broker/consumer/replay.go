package consumer

import "github.com/tidewire/tidewire/protocol"

// replay makes the changes that a group of deltas tells.
func (m *Machine) replay(r *reader) error {
	for len(r.b) > 0 {
		op := r.byte()
		if !m.replayEntry(op, r) && !m.replayRest(op, r) || r.wrong {
			return errBroken
		}
	}
	return nil
}

func (m *Machine) replayEntry(op byte, r *reader) bool {
	switch op {
	case deltaTook:
		v := r.entry(r.place())
		if r.wrong || !m.pending.fits(v) || !m.move(v.Source, v.Offset) {
			return false
		}
		m.pending.add(v)
	case deltaNow, deltaNow | flagReason:
		e := m.pending.at[r.place()]
		if e == nil {
			return false
		}
		v := e.Entry
		v.State, v.Attempts = r.state(), int(r.upTo(1<<31-1))
		v.Due, v.First = r.times()
		if op&flagReason != 0 {
			v.Reason = r.why()
		}
		if r.wrong || e.State == Dying && v.State != Dying {
			return false
		}
		m.pending.change(e, v)
	case deltaGone:
		if e := m.pending.at[r.place()]; e != nil && !r.wrong {
			m.pending.remove(e)
		}
	case deltaClear:
		m.pending.clear()
	default:
		return false
	}
	return true
}

func (m *Machine) replayRest(op byte, r *reader) bool {
	switch op {
	case deltaMoved, deltaMoved | flagRedrive:
		return m.move(sourceOf(op), r.place())
	case deltaCursor, deltaCursor | flagRedrive:
		to := r.position()
		at := m.cursors.in(sourceOf(op), to.Partition)
		if at == nil {
			return false
		}
		*at = to
	case deltaGeneration:
		m.generation = max(m.generation, r.upTo(maxNumber))
	case deltaPaused, deltaPaused | flagOn:
		m.paused = op&flagOn != 0
	case deltaSettings:
		m.settings = r.settings()
		m.pending.order(m.settings.Ordered)
	case deltaDead:
		m.addDead(r.offset())
	case deltaUndead:
		m.removeDead(r.offset())
	case deltaUndeadThrough:
		m.removeDeadThrough(r.offset())
	default:
		return false
	}
	return true
}

// move moves a cursor to a place.
func (m *Machine) move(src Source, place uint64) bool {
	partition, offset := SplitPlace(place)
	at := m.cursors.in(src, partition)
	if at != nil {
		at.Offset = offset
	}
	return at != nil
}

func sourceOf(op byte) Source {
	if op&flagRedrive != 0 {
		return Redrive
	}
	return Main
}

// replayHead reads what appendHead writes.
func (m *Machine) replayHead(r *reader) {
	m.name = string(r.bytes())
	m.created = r.signed()
	m.generation = r.upTo(maxNumber)
	flags := r.byte()
	if flags > headPaused|headSeveral {
		r.fail()
	}
	m.paused = flags&headPaused != 0
	m.settings = r.settings()
	m.pending.order(m.settings.Ordered)
	m.cursors = reach{first: [sources]protocol.Position{r.position(), r.position()}}
	if flags&headSeveral == 0 {
		return
	}
	last := m.cursors.first[Main].Partition
	for n := r.upTo(protocol.MaxPartitions); n > 0 && !r.wrong; n-- {
		p := r.position()
		if p.Partition <= last {
			r.fail()
			return
		}
		m.cursors.more, last = append(m.cursors.more, p), p.Partition
	}
}

// replayState reads what AppendState writes into a machine that has nothing.
func (m *Machine) replayState(r *reader) error {
	m.replayHead(r)
	var offset uint64
	for n := r.number(); n > 0 && !r.wrong; n-- {
		if offset += r.offset(); r.wrong || offset > protocol.MaxOffset || !m.addDead(offset) {
			return errBroken
		}
	}
	var place uint64
	for n := r.number(); n > 0 && !r.wrong; n-- {
		place += r.place()
		v := r.entry(place)
		if r.wrong || place > maxPlace || !m.pending.fits(v) {
			return errBroken
		}
		m.pending.add(v)
	}
	if r.wrong || len(r.b) > 0 {
		return errBroken
	}
	return nil
}
