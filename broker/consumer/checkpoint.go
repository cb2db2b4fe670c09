package consumer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// BeginCheckpoint returns the record with which a checkpoint begins. A page of
// each consumer follows, then the end; other records may come in between. Who
// starts with the log from the beginning of a checkpoint that has its end knows
// everything.
func (g *Registry) BeginCheckpoint() []byte { return appendGroup(nil, kindBegin, g.last, nil) }

// Page returns the record that holds the whole state of the machine. What
// [Machine.Deltas] would have returned is part of it, and forgotten.
func (g *Registry) Page(m *Machine) []byte {
	m.deltas.forget()
	return appendGroup(nil, kindPage, m.incarnation, m.AppendState(nil))
}

// Pages is [Registry.Page] as several records, to be written in their order:
// pieces of at most limit bytes, before the first of which stands what
// [Machine.Deltas] would have returned. They count when the last of them is
// replayed; until then the state is the one before. Other records may come in
// between.
func (g *Registry) Pages(m *Machine, limit int) [][]byte {
	limit = max(limit, minPage)
	state := m.AppendState(nil)
	if len(state) <= limit {
		return [][]byte{g.Page(m)}
	}
	var pages [][]byte
	before := m.Deltas() // what comes between the parts may build on it
	for piece := range slices.Chunk(state, limit) {
		body := append(binary.AppendUvarint(nil, uint64(len(pages))), piece...)
		kind := kindPart
		if (len(pages)+1)*limit >= len(state) {
			kind = kindLast
		}
		pages = append(pages, appendGroup(before, kind, m.incarnation, body))
		before = nil
	}
	return pages
}

// minPage keeps a page from being all heads.
const minPage = 256

// EndCheckpoint returns the record that ends a checkpoint.
func (g *Registry) EndCheckpoint() []byte { return appendGroup(nil, kindEnd, 0, nil) }

// parts is a page that is not whole, and the deltas that came meanwhile, which
// lie behind it.
type parts struct {
	n      uint64
	state  []byte
	deltas []byte
}

var (
	errBroken = errors.New("a record of consumers cannot be read")
	errLater  = errors.New("a record of consumers is of a later version of the broker: start that version, or a later one")
)

// Apply replays one record of the log: any number of groups one after the
// other. Deltas of a consumer that is not known are passed over: they lie
// before its page, or after its end. After an error the registry must not be
// used.
func (g *Registry) Apply(record []byte) error {
	for r := (reader{b: record}); len(r.b) > 0; {
		kind := r.byte()
		body := reader{b: r.bytes()}
		number := body.upTo(maxNumber)
		switch {
		case kind>>4 > version:
			return errLater
		case r.wrong || body.wrong:
			return errBroken
		}
		if err := g.apply(kind, number, &body); err != nil {
			return fmt.Errorf("%w (kind %#x of number %d)", err, kind, number)
		}
	}
	return nil
}

func (g *Registry) apply(kind byte, number uint64, r *reader) error {
	switch kind {
	case kindDeltas:
		return g.replayDeltas(number, r)
	case kindCreate, kindPage:
		return g.replayMachine(kind, number, r)
	case kindPart, kindLast:
		return g.replayPart(kind, number, r)
	case kindDelete:
		g.last = max(g.last, number, r.upTo(maxNumber))
		if m := g.byNumber[number]; m != nil {
			g.drop(m)
		}
		delete(g.parts, number)
	case kindBegin:
		g.last = max(g.last, number)
		g.parts = nil
		for _, m := range g.order {
			m.paged = false
		}
	case kindEnd:
		g.parts = nil
		for _, m := range slices.Clone(g.order) {
			if !m.paged {
				g.drop(m)
			}
		}
	default:
		return errBroken
	}
	if r.wrong || len(r.b) > 0 {
		return errBroken
	}
	return nil
}

func (g *Registry) replayDeltas(number uint64, r *reader) error {
	if p := g.parts[number]; p != nil {
		p.deltas = append(p.deltas, r.b...)
	}
	m := g.byNumber[number]
	if m == nil {
		return nil
	}
	err := m.replay(r)
	g.last = max(g.last, m.generation)
	return err
}

func (g *Registry) replayPart(kind byte, number uint64, r *reader) error {
	n := r.number()
	p := g.parts[number]
	if n == 0 { // what is there is of a page that never was whole
		p = new(parts)
		if g.parts == nil {
			g.parts = make(map[uint64]*parts)
		}
		g.parts[number] = p
	}
	if r.wrong || p == nil || p.n != n {
		return errBroken
	}
	p.n++
	p.state = append(p.state, r.b...)
	if kind == kindPart {
		return nil
	}
	if err := g.replayMachine(kindPage, number, &reader{b: p.state}); err != nil {
		return err
	}
	return g.replayDeltas(number, &reader{b: p.deltas})
}

func (g *Registry) replayMachine(kind byte, number uint64, r *reader) error {
	m := Machine{incarnation: number, paged: true}
	if kind == kindPage {
		delete(g.parts, number)
		if err := m.replayState(r); err != nil {
			return err
		}
	} else if m.replayHead(r); r.wrong || len(r.b) > 0 {
		return errBroken
	}
	g.last = max(g.last, number, m.generation)
	is := g.byNumber[number]
	switch {
	case is == nil:
		g.put(&m)
	case kind == kindCreate: // its page came first, and knows more
		is.paged = true
	case is.name == m.name:
		*is = m // who holds the machine sees its new state
	default:
		return errBroken
	}
	return nil
}
