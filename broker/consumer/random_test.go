package consumer_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tidewire/tidewire/broker/consumer"
	"github.com/tidewire/tidewire/protocol"
)

// seed returns the seed of a random test, from SEED if that is set.
func seed(t testing.TB) uint64 {
	n := uint64(time.Now().UnixNano())
	if text := os.Getenv("SEED"); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SEED=%d", n)
	return n
}

// world is a registry, the models of its consumers, and the log that is written.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	g      *consumer.Registry
	models map[string]*model
	now    int64
	step   string

	log     [][]byte
	begins  []int // where checkpoints begin
	ends    []int // where those end that have one, in the same order
	written map[string]written
	highest uint64 // number that is in the log
	kept    []kept // what replaying the log up to there must give; one more than log
	open    []string
	parts   [][]byte // of the page that is being written
	partsOf string
	late    int // replays from a checkpoint
}

// written is what the log says of a consumer.
type written struct {
	model *model
	state []byte
}

type kept struct {
	written map[string]written
	highest uint64
}

var names = []string{"alpha", "beta", "gamma"}

// TestRandom does random things to machines and models, crashes at random
// places of the log, and goes on from what is replayed. SEED repeats a run.
func TestRandom(t *testing.T) {
	runs, late, start := 30, 0, time.Now()
	soak, _ := time.ParseDuration(os.Getenv("TIDEWIRE_SOAK"))
	if testing.Short() {
		runs = 8
	}
	first := seed(t)
	for i := 0; i < runs || time.Since(start) < soak; i++ {
		w := &world{t: t, rng: rand.New(rand.NewPCG(first+uint64(i), 1)), now: 1e15, g: &consumer.Registry{}}
		w.models, w.written = map[string]*model{}, map[string]written{}
		w.keep()
		for n := range 1500 {
			w.act()
			if !t.Failed() {
				w.compare()
			}
			if t.Failed() {
				t.Fatalf("SEED=%d, step %d: %s", first+uint64(i), n, w.step)
			}
		}
		late += w.late
	}
	if late == 0 {
		t.Error("nothing was replayed from a checkpoint")
	}
}

func (w *world) chance(percent int) bool { return w.rng.IntN(100) < percent }

func (w *world) act() {
	switch p := w.rng.IntN(1000); {
	case p < 8 || len(w.models) == 0:
		w.create()
	case p < 11:
		w.delete()
	case p < 110:
		w.commit(70)
	case p < 190:
		w.checkpoint()
	case p < 196:
		w.crash()
	default:
		names := slices.Sorted(maps.Keys(w.models))
		name := names[w.rng.IntN(len(names))]
		w.decide(w.g.Get(name), w.models[name])
	}
}

func (w *world) settings() consumer.Settings {
	s := consumer.DefaultSettings()
	s.Filter, s.Stream = "a.>", "main"
	s.AckWait = time.Duration(1+w.rng.IntN(5)) * time.Second
	s.Backoff = consumer.Backoff{
		Base: time.Duration(w.rng.IntN(3)) * time.Second, Cap: time.Duration(3+w.rng.IntN(8)) * time.Second,
		Factor: float64(1 + w.rng.IntN(3)), Jitter: w.chance(50),
	}
	s.MaxDeliver, s.MaxInFlight, s.MaxWaiting = 1+w.rng.IntN(5), 1+w.rng.IntN(12), 1+w.rng.IntN(20)
	s.MaxInFlightBytes = int64(1024 + w.rng.IntN(4000))
	s.Ordered = w.chance(75)
	return s
}

// places are behind, at or before where the consumer is.
func (w *world) places(m *model) consumer.Places {
	move := func(p protocol.Position) protocol.Position {
		p.Offset += uint64(w.rng.IntN(6))
		p.Offset -= min(p.Offset, uint64(w.rng.IntN(12)))
		p.Term = protocol.Term(1 + w.rng.IntN(2))
		return p
	}
	return consumer.Places{Main: move(m.cursors[0]), Redrive: move(m.cursors[1])}
}

func (w *world) create() {
	name := names[w.rng.IntN(len(names))]
	to, s := w.places(&model{}), w.settings()
	m, err := w.g.Create(name, s, to, w.now)
	w.step = "create " + name
	if _, exists := w.models[name]; exists != (err != nil) {
		w.t.Errorf("create: %v", err)
	}
	if err == nil {
		w.models[name] = &model{name: name, s: s, generation: m.Generation(), cursors: [2]protocol.Position{to.Main, to.Redrive}}
		w.wrote(m)
		w.commit(20)
	}
}

func (w *world) delete() {
	name := names[w.rng.IntN(len(names))]
	w.step = "delete " + name
	_, exists := w.models[name]
	if w.g.Delete(name) != exists {
		w.t.Error("delete says something else")
	}
	delete(w.models, name)
	delete(w.written, name)
	if w.partsOf == name {
		w.parts = nil
	}
	w.commit(20)
}

// message is the next one of a source. The main source is even, the other odd.
func (w *world) message(m *model) consumer.Message {
	src := consumer.Source(w.rng.IntN(10) / 8)
	at := m.cursors[src]
	at.Offset += uint64(1 + w.rng.IntN(4))
	if at.Offset%2 != uint64(src) {
		at.Offset++
	}
	if w.chance(3) {
		at.Term++
	}
	return consumer.Message{Source: src, At: at, Key: uint64(w.rng.IntN(5)), Size: 1 + w.rng.IntN(1500)}
}

func (w *world) decide(its *consumer.Machine, m *model) {
	w.now += int64(w.rng.IntN(400_000))
	if w.chance(1) {
		w.now -= 3_000_000
	}
	draw := w.rng.Int64()
	at := consumer.Moment{Now: w.now, Random: func(n int64) int64 { return draw % n }}
	holder := uint64(1 + w.rng.IntN(3))
	var offset uint64
	if top := max(m.cursors[0].Offset, m.cursors[1].Offset); len(m.entries) > 0 && w.chance(90) {
		offset = m.entries[w.rng.IntN(len(m.entries))].Offset
	} else {
		offset = uint64(w.rng.IntN(int(top) + 4))
	}
	generation := uint64(0)
	if w.chance(50) {
		generation = m.generation
	} else if w.chance(5) {
		generation = m.generation + 1 - 2*uint64(w.rng.IntN(2))
	}
	w.step = fmt.Sprintf("%s: now %d, offset %d, generation %d, holder %d", m.name, w.now, offset, generation, holder)
	var got, want any
	switch p := w.rng.IntN(100); {
	case p < 35:
		for range 1 + w.rng.IntN(4) {
			msg := w.message(m)
			if m.blocked(msg.Size) != "" && w.chance(95) {
				break
			}
			a, b := its.Take(msg, holder, w.now)
			c, d := m.take(msg, holder, w.now)
			got, want = fmt.Sprint("take ", msg, a, b), fmt.Sprint("take ", msg, c, d)
		}
	case p < 48:
		a, b := its.Retry(holder, w.now)
		c, d := m.retry(holder, w.now)
		got, want = fmt.Sprint("retry", a, b), fmt.Sprint("retry", c, d)
	case p < 60:
		got, want = its.Ack(generation, offset), m.ack(generation, offset)
	case p < 70:
		var delay *time.Duration
		if w.chance(50) {
			d := time.Duration(w.rng.IntN(3000)) * time.Millisecond
			delay = &d
		}
		got, want = its.Nack(generation, offset, delay, at), m.nack(generation, offset, delay, at)
	case p < 74:
		by := time.Duration(w.rng.IntN(3)) * time.Second
		got, want = its.Extend(generation, offset, by, w.now), m.extend(generation, offset, by, w.now)
	case p < 77:
		got, want = its.Reject(generation, offset, "no "+m.name), m.reject(generation, offset, "no "+m.name)
	case p < 82:
		w.step += " advance"
		its.Advance(at)
		m.advance(at)
	case p < 86:
		for _, o := range its.UpTo(generation, offset, holder) {
			got, want = its.Ack(generation, o), m.ack(generation, o)
		}
	default:
		w.decideRarely(its, m, offset, holder)
	}
	if got != want {
		w.t.Errorf("%v, want %v", got, want)
	}
}

func (w *world) decideRarely(its *consumer.Machine, m *model, offset, holder uint64) {
	p := w.rng.IntN(100)
	w.step += fmt.Sprint(" rarely ", p)
	switch {
	case p < 15:
		src := consumer.Source(w.rng.IntN(2))
		at := m.cursors[src]
		at.Offset += uint64(w.rng.IntN(4))
		its.Skip(src, at)
		m.skip(src, at)
	case p < 50:
		w.bury(its, m)
	case p < 60:
		others := w.chance(60)
		its.Release(holder, w.now, others)
		m.release(holder, w.now, others)
	case p < 65:
		w.pauseOrChange(its, m)
	case p < 70:
		generation := w.g.NextGeneration()
		its.TakeOver(generation, w.now)
		m.takeOver(generation, w.now)
	case p < 72:
		generation, to := w.g.NextGeneration(), w.places(m)
		its.Seek(generation, to)
		m.seek(generation, to)
	case p < 75:
		to := w.places(m)
		its.Rewind(to)
		m.rewind(to)
	case p < 80:
		its.Lost(offset)
		m.done(offset)
	case p < 85:
		its.Expired(offset)
		if e := m.find(offset); e != nil && e.State != consumer.Dying {
			m.done(offset)
		}
	case p < 90:
		its.Bury(offset, "by hand")
		if e := m.find(offset); e != nil && e.State != consumer.Dying {
			m.die(offset, "by hand")
		}
	case p < 97:
		if len(m.dead) > 0 {
			at := w.rng.IntN(len(m.dead))
			its.Undead(m.dead[at], 77777)
			m.dead = slices.Delete(m.dead, at, at+1)
		}
	default:
		if len(m.dead) > 0 {
			at := w.rng.IntN(len(m.dead))
			its.UndeadThrough(m.dead[at])
			m.dead = slices.Delete(m.dead, 0, at+1)
		}
	}
}

func (w *world) bury(its *consumer.Machine, m *model) {
	its.EachDying(func(e consumer.Entry) bool {
		dead := uint64(w.rng.IntN(500))
		its.Buried(e.Offset, dead)
		m.done(e.Offset)
		if dead != 0 && !slices.Contains(m.dead, dead) {
			m.dead = append(m.dead, dead)
			slices.Sort(m.dead)
		}
		return w.chance(80)
	})
}

func (w *world) pauseOrChange(its *consumer.Machine, m *model) {
	if w.chance(60) {
		m.paused = !m.paused && w.chance(50)
		its.SetPaused(m.paused)
		return
	}
	s := w.settings()
	if w.chance(50) {
		s = m.s
		s.Ordered = !s.Ordered
	}
	its.SetSettings(s)
	m.setSettings(s)
}

// write appends a record to the log.
func (w *world) write(record []byte) {
	w.log = append(w.log, record)
	w.keep()
}

func (w *world) keep() { w.kept = append(w.kept, kept{maps.Clone(w.written), w.highest}) }

// wrote notes that all that was decided of the consumer comes into the log with
// the next record.
func (w *world) wrote(m *consumer.Machine) {
	w.written[m.Name()] = written{w.models[m.Name()].clone(), m.AppendState(nil)}
	w.highest = max(w.highest, m.Generation())
}

// commit writes what was created and deleted, and of some consumers what was
// decided.
func (w *world) commit(percent int) {
	record := w.g.Deltas()
	for m := range w.g.All() {
		if w.chance(percent) {
			record = m.AppendDeltas(record)
			w.wrote(m)
		}
	}
	if record != nil {
		w.write(record)
	}
}

// checkpoint does the next step of one. Once in a while it begins anew.
func (w *world) checkpoint() {
	w.step = "checkpoint"
	switch {
	case len(w.begins) == len(w.ends) || w.chance(2):
		w.begins = append(w.begins[:len(w.ends)], len(w.log))
		w.open, w.parts = slices.Sorted(maps.Keys(w.models)), nil
		w.write(w.g.BeginCheckpoint())
	case len(w.parts) > 0:
		w.write(w.parts[0])
		w.parts = w.parts[1:]
	case len(w.open) > 0:
		w.partsOf, w.open = w.open[0], w.open[1:]
		if m := w.g.Get(w.partsOf); m != nil {
			w.parts = w.g.Pages(m, 300)
			w.wrote(m)
			w.write(w.parts[0])
			w.parts = w.parts[1:]
		}
	default:
		w.write(w.g.EndCheckpoint())
		w.ends = append(w.ends, len(w.log))
	}
}

// crash loses the end of the log, replays the rest from its beginning and from
// the last whole checkpoint, and goes on with one of them.
func (w *world) crash() {
	length := len(w.log) - w.rng.IntN(min(30, len(w.log)+1))
	w.step = fmt.Sprintf("crash at record %d of %d", length, len(w.log))
	for len(w.ends) > 0 && w.ends[len(w.ends)-1] > length {
		w.ends = w.ends[:len(w.ends)-1]
	}
	w.begins = w.begins[:len(w.ends)]
	w.log, w.kept = w.log[:length], w.kept[:length+1]
	is := w.kept[length]
	all, late := w.replay(0), &consumer.Registry{}
	w.check(all, is)
	if n := len(w.begins); n > 0 {
		late = w.replay(w.begins[n-1])
		w.check(late, is)
		w.late++
	}
	w.g, w.models, w.written, w.highest = all, map[string]*model{}, maps.Clone(is.written), is.highest
	if len(w.begins) > 0 && w.chance(50) {
		w.g = late
	}
	for name, x := range is.written {
		w.models[name] = x.model.clone()
		for i := range w.models[name].entries {
			w.models[name].entries[i].Holder = 0
		}
	}
	w.open, w.parts = nil, nil
}

func (w *world) replay(from int) *consumer.Registry {
	g := &consumer.Registry{}
	for i, record := range w.log[from:] {
		if err := g.Apply(record); err != nil {
			w.t.Fatalf("%s: record %d: %v", w.step, from+i, err)
		}
	}
	return g
}

func (w *world) check(g *consumer.Registry, is kept) {
	if g.Len() != len(is.written) {
		w.t.Errorf("%d consumers, want %d", g.Len(), len(is.written))
	}
	for m := range g.All() {
		if !bytes.Equal(m.AppendState(nil), is.written[m.Name()].state) {
			w.t.Errorf("%s is another after replay:\n%v %v\nwant\n%+v", m.Name(), slices.Collect(m.Entries()), m, is.written[m.Name()].model)
		}
		if m.Deltas() != nil {
			w.t.Errorf("%s has decided something in replay", m.Name())
		}
	}
	if n := g.NextGeneration(); n <= is.highest {
		w.t.Errorf("the number %d again, %d was given before", n, is.highest)
	}
}

// compare asks machines and models everything.
func (w *world) compare() {
	if !slices.Equal(slices.Sorted(maps.Keys(w.models)), slices.Collect(func(yield func(string) bool) {
		for m := range w.g.All() {
			if !yield(m.Name()) {
				return
			}
		}
	})) {
		w.t.Error("other consumers, or in another order")
		return
	}
	for name, m := range w.models {
		w.compareOne(w.g.Get(name), m)
	}
}

func (w *world) compareOne(its *consumer.Machine, m *model) {
	same := func(what string, got, want any) {
		if fmt.Sprint(got) != fmt.Sprint(want) {
			w.t.Errorf("%s: %s is %v, want %v", m.name, what, got, want)
		}
	}
	same("entries", slices.Collect(its.Entries()), m.entries)
	same("cursors", []any{its.Position(0), its.Position(1), its.Cursor(0), its.Position(1).Term}, []any{m.cursors[0], m.cursors[1], m.cursors[0].Offset, m.cursors[1].Term})
	flying, bytes := its.InFlight()
	same("counts", []any{flying, bytes, its.Waiting(), its.Held(), its.Dying(), its.Pending()}, []any{
		len(m.with(consumer.InFlight)), m.bytes(), len(m.with(consumer.Waiting)), len(m.with(consumer.Held)), len(m.with(consumer.Dying)), len(m.entries),
	})
	same("dead", its.Dead(), m.dead)
	same("rest", []any{its.Generation(), its.Paused(), its.Settings(), its.DeadCount()}, []any{m.generation, m.paused, m.s, len(m.dead)})
	same("blocked", its.Blocked(700), m.blocked(700))
	same("ready", its.Ready(w.now), m.ready(w.now))
	due, ok := its.NextDue()
	wantDue, wantOK := m.nextDue()
	same("next due", []any{due, ok}, []any{wantDue, wantOK})
	for holder := range uint64(4) {
		same("held by", its.HeldBy(holder+1), len(m.upTo(0, protocol.MaxOffset, holder+1)))
		middle := uint64(w.rng.IntN(int(m.cursors[0].Offset) + 1))
		same("up to", its.UpTo(0, middle, holder+1), m.upTo(0, middle, holder+1))
	}
	if len(m.entries) > 0 {
		e, ok := its.Oldest()
		same("oldest", []any{e, ok}, []any{m.entries[0], true})
		middle := m.entries[w.rng.IntN(len(m.entries))].Offset
		below := slices.DeleteFunc(slices.Clone(m.entries), func(e consumer.Entry) bool { return e.Offset > middle })
		same("below", its.Below(middle), below)
	}
	var dying []uint64
	its.EachDying(func(e consumer.Entry) bool { dying = append(dying, e.Offset); return true })
	slices.Sort(dying)
	var wantDying []uint64
	for _, e := range m.with(consumer.Dying) {
		wantDying = append(wantDying, e.Offset)
	}
	same("dying", dying, wantDying)
	w.invariants(m)
}

// invariants hold for every state that a model can be in.
func (w *world) invariants(m *model) {
	waiting := map[uint64]uint64{}
	for _, e := range m.entries {
		if e.State == consumer.Held && len(m.rivals(e.Key, e.Offset, consumer.InFlight, consumer.Waiting)) == 0 {
			w.t.Errorf("%d is held by nobody", e.Offset)
		}
		if e.State == consumer.Waiting && m.s.Ordered && e.Key != 0 {
			if waiting[e.Key] != 0 {
				w.t.Errorf("%d and %d wait, of one key", waiting[e.Key], e.Offset)
			}
			waiting[e.Key] = e.Offset
		}
		if e.Offset > m.cursors[e.Source].Offset {
			w.t.Errorf("%d is above its cursor", e.Offset)
		}
		if (e.Attempts == 0) != (e.First == 0) || e.State == consumer.InFlight && e.Attempts == 0 || e.State == consumer.Waiting && e.Attempts >= m.s.MaxDeliver && e.Attempts > 0 {
			w.t.Errorf("%d is %v with %d attempts, first at %d", e.Offset, e.State, e.Attempts, e.First)
		}
	}
}
