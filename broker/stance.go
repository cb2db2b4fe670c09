package broker

// stance is where a subscription is with its session. It begins behind.
type stance uint8

const (
	behind  stance = iota // the session's pump reads the log for it
	live                  // apply feeds it
	waiting               // behind, and out of credit: nothing is read
	resting               // behind, and conflated: its next round is not due
)

// setStance changes the stance of a subscription. Callers hold mu.
func (s *Session) setStance(sub *subscription, to stance) {
	if gauge := s.broker.metrics.behind; sub.stance == live && to != live {
		gauge.Inc()
	} else if sub.stance != live && to == live {
		gauge.Dec()
	}
	sub.stance = to
}

// fallBack makes a subscription a reader of the log, as soon as it has credit.
// Callers hold mu.
func (s *Session) fallBack(sub *subscription) {
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
	if sub.latest.timer != nil {
		sub.latest.timer.Stop()
	}
	if sub.stance != live {
		s.broker.metrics.behind.Dec()
	}
	s.broker.giveSubscriptions()
}
