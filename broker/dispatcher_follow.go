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
