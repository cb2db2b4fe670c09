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
		offset := r.offset()
		v := r.entry(offset)
		if r.wrong || !m.pending.fits(v) {
			return false
		}
		m.pending.add(v)
		m.cursors[v.Source].Offset = offset
	case deltaNow, deltaNow | flagReason:
		e := m.pending.at[r.offset()]
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
		if e := m.pending.at[r.offset()]; e != nil && !r.wrong {
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
		m.cursors[sourceOf(op)].Offset = r.offset()
	case deltaCursor, deltaCursor | flagRedrive:
		m.cursors[sourceOf(op)] = r.position()
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
	m.paused = r.bool()
	m.settings = r.settings()
	m.pending.order(m.settings.Ordered)
	m.cursors[Main] = r.position()
	m.cursors[Redrive] = r.position()
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
	offset = 0
	for n := r.number(); n > 0 && !r.wrong; n-- {
		offset += r.offset()
		v := r.entry(offset)
		if r.wrong || offset > protocol.MaxOffset || !m.pending.fits(v) {
			return errBroken
		}
		m.pending.add(v)
	}
	if r.wrong || len(r.b) > 0 {
		return errBroken
	}
	return nil
}
