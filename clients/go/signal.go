package tidewire

// A latch tells all who wait that something has happened. It is closed once.
type latch chan struct{}

// close closes it, unless it is closed. Callers hold what guards it.
func (l latch) close() {
	select {
	case <-l:
	default:
		close(l)
	}
}

// A bell tells one who waits that there is something to do, or whoever comes next
// and looks. It has room for one token.
type bell chan struct{}

func (b bell) ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}
