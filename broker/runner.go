package broker

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tidewire/tidewire/broker/consumer"
)

// runner looks after all consumers on one goroutine: it tells them of new
// messages and wakes them when something is due. A consumer for which there is
// nothing to do costs it nothing.
type runner struct {
	kick chan struct{} // has a token when told or timed has changed

	mu    sync.Mutex
	told  []listener // have news
	timed timetable
}

// listener is told by apply of what a consumer gets.
type listener interface {
	heard() *hearsay
	lookAfter()
}

// hearsay is what a listener was told and has not looked at. The runner's mu guards it.
type hearsay struct {
	told bool
	news []news // by strand
}

func (h *hearsay) heard() *hearsay { return h }

// agenda is what the runner has for a consumer. The runner's mu guards it.
type agenda struct {
	due int64 // microseconds; 0 if nothing is
	at  int   // index in the timetable, if due is set
}

// news says that something matching lies above after, up to through.
type news struct{ after, through uint64 }

func newRunner() *runner { return &runner{kick: make(chan struct{}, 1)} }

// tell notes that a commit has messages for a consumer. apply calls it, so it
// does next to nothing.
func (r *runner) tell(w watcher, after, through uint64) {
	r.mu.Lock()
	a := w.listener.heard()
	n := &a.news[w.strand]
	if n.through == 0 {
		n.after = after
	}
	n.through = through
	if !a.told {
		a.told = true
		r.told = append(r.told, w.listener)
	}
	r.mu.Unlock()
	poke(r.kick)
}

// at has a consumer looked after at a time; 0 for never.
func (r *runner) at(d *dispatcher, due int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := &d.agenda
	switch {
	case a.due == due:
		return
	case due == 0:
		heap.Remove(&r.timed, a.at)
		a.due = 0
		return
	case a.due == 0:
		a.due = due
		heap.Push(&r.timed, d)
	default:
		a.due = due
		heap.Fix(&r.timed, a.at)
	}
	if a.at == 0 {
		poke(r.kick)
	}
}

// run works until ctx ends.
func (r *runner) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.kick:
		case <-timer.C:
		}
		for _, d := range r.takeTold() {
			d.lookAfter()
		}
		now := nowOf()
		for d := r.takeDue(now); d != nil; d = r.takeDue(now) {
			d.lookAfter()
		}
		timer.Reset(r.pause())
	}
}

func (r *runner) takeTold() []listener {
	r.mu.Lock()
	defer r.mu.Unlock()
	told := r.told
	r.told = nil
	return told
}

// takeNews hands out what a listener was told, by strand.
func (r *runner) takeNews(l listener, hear func(strand int, n news)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := l.heard()
	for i := range a.news {
		hear(i, a.news[i])
		a.news[i] = news{}
	}
	a.told = false
}

// takeDue takes a consumer whose time has come out of the timetable.
func (r *runner) takeDue(now int64) *dispatcher {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.timed) == 0 || r.timed[0].agenda.due > now {
		return nil
	}
	d := heap.Pop(&r.timed).(*dispatcher)
	d.agenda.due = 0
	return d
}

// pause returns how long nothing is due.
func (r *runner) pause() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.timed) == 0 {
		return time.Hour
	}
	return max(time.Duration(r.timed[0].agenda.due-nowOf())*time.Microsecond, 0)
}

// lookAfter takes news in and does what is due. News are taken under mu: whoever
// finds none there knows that all have been heard.
func (d *dispatcher) lookAfter() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broker.consumers.runner.takeNews(d, func(strand int, n news) { d.sources[strand].hear(n) })
	if d.gone || d.resting() {
		return
	}
	d.machine.Advance(consumer.Moment{Now: nowOf(), Random: rand.Int64N})
	d.conclude(nil)
}

// hear takes news in. What lies between the last read and the news has been
// passed by without a match, for the consumer would have been told.
func (s *source) hear(n news) {
	if n.through == 0 {
		return
	}
	if !s.behind() && len(s.ahead) == 0 {
		s.read = max(s.read, n.after)
	}
	s.news = max(s.news, n.through)
}

// hearAll has everything that is stored looked at: who published a moment ago, and
// was answered, must find it, although the news may still be on its way.
func (d *dispatcher) hearAll() {
	heads := headsOf(d.strands)
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.sources {
		d.sources[i].news = max(d.sources[i].news, ofStrand(&heads, i).Offset)
	}
}

// conclude ends whatever has changed a consumer: what was decided goes to the
// control log, done is told when it is durable, dying messages are buried,
// members that have something to do are woken. Callers hold mu.
func (d *dispatcher) conclude(done func(stored)) {
	d.journal.put(d.machine.Deltas(), done)
	now := nowOf()
	if d.machine.Dying() > 0 && !d.burial.busy && now >= d.burial.due && !d.gone {
		d.burial.busy = true
		go d.buryAll()
	}
	d.wake(now)
	due := d.machine.Timer(now)
	if d.machine.Dying() > 0 && !d.burial.busy {
		due = earlier(due, d.burial.due)
	}
	if d.gone {
		due = 0
	}
	d.broker.consumers.runner.at(d, due)
}

func earlier(a, b int64) int64 {
	if a == 0 {
		return b
	}
	return min(a, b)
}

// wake wakes a member, if there is something that it could take; when it has
// taken its part it wakes the next one. Callers hold mu.
func (d *dispatcher) wake(now int64) {
	if !d.available(now) && len(d.gaps) == 0 {
		return
	}
	for i := range d.members {
		m := d.members[(d.next+i)%len(d.members)]
		if m.idle && m.window > d.machine.HeldBy(m.id) {
			m.idle = false
			d.next = (d.next + i + 1) % len(d.members)
			m.wake()
			return
		}
	}
}

// available reports whether there is something to take.
func (d *dispatcher) available(now int64) bool {
	if d.machine.Ready(now) > 0 {
		return true
	}
	if d.machine.Blocked(0) != "" {
		return false
	}
	for src := range d.sources {
		if s := &d.sources[src]; len(s.ahead) > 0 || s.behind() {
			return true
		}
	}
	return false
}

// timetable is a heap of consumers by the time at which something is due.
type timetable []*dispatcher

func (t timetable) Len() int           { return len(t) }
func (t timetable) Less(i, j int) bool { return t[i].agenda.due < t[j].agenda.due }
func (t timetable) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].agenda.at, t[j].agenda.at = i, j
}

// Push and Pop are for package heap.
func (t *timetable) Push(x any) {
	d := x.(*dispatcher)
	d.agenda.at = len(*t)
	*t = append(*t, d)
}

func (t *timetable) Pop() any {
	last := len(*t) - 1
	d := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	return d
}
