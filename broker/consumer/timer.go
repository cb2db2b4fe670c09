package consumer

// Timer is when the machine is to be looked at again although nothing happens: the
// end of an ack wait, or of a wait for the next delivery. Deliveries that are due
// already do not count, for a member takes them as soon as there is one with room.
// 0 if there is nothing to wait for.
func (m *Machine) Timer(now int64) int64 {
	var at int64
	if e := m.pending.flying.top(); e != nil {
		at = e.Due
	}
	if e := m.pending.waiting.top(); e != nil && e.Due > now && (at == 0 || e.Due < at) && m.full(e.Size) == "" {
		at = e.Due
	}
	return at
}
