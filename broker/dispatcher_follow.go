package broker

import "github.com/tidewire/tidewire/broker/consumer"

// follow has apply tell the dispatcher of what a source gets from now on. What
// was applied before counts as news. To call it again changes nothing.
//
// What is redriven comes from here alone, so that source is followed when there is
// something: most consumers never need the group for it.
func (d *dispatcher) follow(src consumer.Source) {
	for i := range d.sources {
		if s := &d.sources[i]; s.source == src {
			d.followStrand(i, s)
		}
	}
	d.mu.Lock()
	gone := d.gone
	d.mu.Unlock()
	if gone { // deleted meanwhile
		d.unfollow()
	}
}

func (d *dispatcher) followStrand(i int, s *source) {
	head, is := s.strand.watch(&s.watch, watcher{d, i})
	if !is {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s.news = max(s.news, head)
}

// watch puts a watcher into the group of the strand, unless it is in one, and returns
// up to where commits are applied.
func (l *strand) watch(in **group, w watcher) (head uint64, is bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if *in != nil {
		return 0, false
	}
	*in = l.group(l.filter)
	(*in).watchers = append((*in).watchers, w)
	return l.applied, true
}

// unwatch takes it out.
func (l *strand) unwatch(in **group, who listener) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if *in != nil {
		(*in).unwatch(who)
		l.drop(*in)
		*in = nil
	}
}

// unfollow ends that.
func (d *dispatcher) unfollow() {
	for i := range d.sources {
		d.strands[i].unwatch(&d.sources[i].watch, d)
	}
}

// follow has apply tell the station of what the consumer gets.
func (s *station) follow(src consumer.Source) {
	for i := range s.strands {
		if s.strands[i].source != src {
			continue
		}
		head, is := s.strands[i].watch(&s.ears[i].watch, watcher{s, i})
		if !is {
			continue
		}
		s.shared.mu.Lock()
		s.ears[i].news = max(s.ears[i].news, head)
		s.shared.mu.Unlock()
	}
	s.shared.mu.Lock()
	gone := s.gone
	s.shared.mu.Unlock()
	if gone {
		s.unfollow()
	}
	s.lookAfter() // something may have been there already
}

func (s *station) unfollow() {
	for i := range s.strands {
		s.strands[i].unwatch(&s.ears[i].watch, s)
	}
}

// lookAfter takes news in, and wakes who was granted what has come.
func (s *station) lookAfter() {
	sh := s.shared
	sh.mu.Lock()
	s.broker.consumers.runner.takeNews(s, func(strand int, n news) {
		s.ears[strand].news = max(s.ears[strand].news, n.through)
	})
	var woken []*member
	for _, m := range s.members {
		if m.idle && len(m.granted.work) > 0 {
			m.idle = false
			woken = append(woken, m)
		}
	}
	sh.mu.Unlock()
	for _, m := range woken {
		m.wake()
	}
}
