package broker

// stance is where a subscription is with its session, in one partition. It begins
// behind.
type stance uint8

const (
	behind  stance = iota // the session's pump reads the log for it
	live                  // apply feeds it
	waiting               // behind, and out of credit: nothing is read
	resting               // behind, and conflated: its next round is not due
)

// setStance changes the stance of a subscription in a partition. Callers hold mu.
func (s *Session) setStance(sub *part, to stance) {
	if sub.stance == live && to != live {
		if sub.behind++; sub.behind == 1 {
			s.broker.metrics.behind.Inc()
		}
	} else if sub.stance != live && to == live {
		if sub.behind--; sub.behind == 0 {
			s.broker.metrics.behind.Dec()
		}
	}
	sub.stance = to
}

// fallBack makes a subscription a reader of the log, as soon as it has credit.
// Callers hold mu.
func (s *Session) fallBack(sub *part) {
	if sub.credit.exhausted() {
		s.setStance(sub, waiting)
		return
	}
	s.setStance(sub, behind)
	s.behind = append(s.behind, sub)
}

// forget takes a subscription that ends out of everything that mu guards.
// Callers hold mu.
func (s *Session) forget(sub *subscription) {
	sub.closed = true
	for _, p := range sub.parts {
		if p.latest.timer != nil {
			p.latest.timer.Stop()
		}
	}
	if sub.behind > 0 {
		s.broker.metrics.behind.Dec()
	}
	s.broker.giveSubscriptions()
}
