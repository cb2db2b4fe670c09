package broker

import "github.com/tidewire/tidewire/broker/consumer"

// follow has apply tell the dispatcher of what a source gets from now on. What
// was applied before counts as news. To call it again changes nothing.
//
// What is redriven comes from here alone, so that source is followed when there is
// something: most consumers never need the group for it.
func (d *dispatcher) follow(src consumer.Source) {
	st := d.stream
	st.mu.Lock()
	if d.watch[src] != nil {
		st.mu.Unlock()
		return
	}
	g := st.group(d.sources[src].filter)
	g.watchers = append(g.watchers, watcher{d, src})
	d.watch[src] = g
	head := st.applied
	st.mu.Unlock()

	d.mu.Lock()
	d.sources[src].news = max(d.sources[src].news, head)
	gone := d.gone
	d.mu.Unlock()
	if gone { // deleted meanwhile
		d.unfollow()
	}
}

// unfollow ends that.
func (d *dispatcher) unfollow() {
	st := d.stream
	st.mu.Lock()
	defer st.mu.Unlock()
	for src, g := range d.watch {
		if g != nil {
			g.unwatch(d)
			st.drop(g)
			d.watch[src] = nil
		}
	}
}

// follow has apply tell the station of what the consumer gets.
func (s *station) follow(src consumer.Source) {
	st := s.stream
	st.mu.Lock()
	if s.watch[src] != nil {
		st.mu.Unlock()
		return
	}
	filter := s.filter
	if src == consumer.Redrive {
		filter = mustFilter(redriveTopic(s.name))
	}
	g := st.group(filter)
	g.watchers = append(g.watchers, watcher{s, src})
	s.watch[src] = g
	head := st.applied
	st.mu.Unlock()

	s.shared.mu.Lock()
	if src == consumer.Main {
		s.ear.news = max(s.ear.news, head)
	}
	gone := s.gone
	s.shared.mu.Unlock()
	if gone {
		s.unfollow()
	}
	s.lookAfter() // something may have been there already
}

func (s *station) unfollow() {
	st := s.stream
	st.mu.Lock()
	defer st.mu.Unlock()
	for src, g := range s.watch {
		if g != nil {
			g.unwatch(s)
			st.drop(g)
			s.watch[src] = nil
		}
	}
}

// lookAfter takes news in, and wakes who was granted what has come.
func (s *station) lookAfter() {
	sh := s.shared
	sh.mu.Lock()
	n := s.broker.consumers.runner.takeNews(s)
	s.ear.news = max(s.ear.news, n[consumer.Main].through)
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
