package broker

import (
	"time"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// wishes are what a subscription asks for beside its filter and its start. They
// never change.
type wishes struct {
	origin uint64        // leave out what the session of this number published; 0 for nothing
	slow   slowPolicy    // what to do when it cannot keep up
	every  time.Duration // of a conflated one: how often a topic is sent at most; 0 for no bound
}

// slowPolicy says what becomes of a subscription that cannot keep up.
type slowPolicy uint8

const (
	slowCatchUp    slowPolicy = iota // it reads the log and gets everything
	slowConflate                     // it gets the newest message of each topic
	slowDisconnect                   // its session ends
)

// maxConflateMs bounds conflate_ms: a minute. A longer one is a mistake in the
// unit, and would hold back a topic's last message for as long.
const maxConflateMs = 60_000

// wishesOf reads what a client asks for.
func (s *Session) wishesOf(req *tidewirev1.Subscribe) (wishes, *protocol.Error) {
	w := wishes{every: time.Duration(req.ConflateMs) * time.Millisecond}
	switch req.Slow {
	case "", "catch_up":
	case "conflate":
		w.slow = slowConflate
	case "disconnect":
		w.slow = slowDisconnect
	default:
		return w, protocol.Errorf(protocol.CodeBadRequest, "`slow` is %.40q: write catch_up, conflate or disconnect", req.Slow)
	}
	switch {
	case req.ConflateMs > 0 && w.slow != slowConflate:
		return w, protocol.Errorf(protocol.CodeBadRequest, "`conflate_ms` is for conflated subscriptions: add `slow` conflate, or leave it out")
	case req.ConflateMs > maxConflateMs:
		return w, protocol.Errorf(protocol.CodeBadRequest, "`conflate_ms` is %d, at most %d milliseconds are allowed", req.ConflateMs, maxConflateMs)
	case req.Credit != nil && w.slow == slowDisconnect:
		return w, protocol.Errorf(protocol.CodeBadRequest, "`credit` makes the broker wait and `slow` disconnect makes it hang up: leave out one of them")
	}
	if req.Echo != nil && !*req.Echo {
		w.origin = s.mark()
	}
	return w, nil
}

// credit is how much may be sent for a subscription before its client gives
// more. It may be overdrawn by one frame.
type credit struct {
	limited bool
	left    int64
}

// maxCredit bounds what a client can save up, so that sums stay exact.
const maxCredit = 1 << 53

func creditOf(req *tidewirev1.Subscribe) credit {
	if req.Credit == nil {
		return credit{}
	}
	return credit{limited: true, left: int64(*req.Credit)}
}

func (c *credit) add(n uint32)    { c.left = min(c.left+int64(n), maxCredit) }
func (c *credit) spend(n int)     { c.left -= int64(n) }
func (c *credit) exhausted() bool { return c.limited && c.left <= 0 }

// What a live subscription falls behind for; they label a metric.
const (
	behindOutbound   = "outbound"
	behindCredit     = "credit"
	behindDisconnect = "disconnect"
)

// slowness says why a subscription cannot keep up. Callers hold mu.
func (sub *subscription) slowness() string {
	switch {
	case sub.slow == slowDisconnect:
		return behindDisconnect
	case sub.credit.exhausted():
		return behindCredit
	}
	return behindOutbound
}

// Flow gives a subscription more credit.
func (s *Session) Flow(f *tidewirev1.Flow) {
	s.mu.Lock()
	sub := s.subs[f.Sub]
	switch {
	case sub == nil:
		s.mu.Unlock()
		s.Send(protocol.ErrorFrame(0, f.Sub, protocol.Errorf(protocol.CodeUnknownSubscription, "the session has no subscription %d", f.Sub)))
		return
	case !sub.credit.limited:
		s.mu.Unlock()
		s.Send(protocol.ErrorFrame(0, 0, protocol.Errorf(protocol.CodeBadRequest, "subscription %d has no credit that could be added to: give `credit` in subscribe", f.Sub)))
		return
	}
	sub.credit.add(f.Credit)
	for _, p := range sub.parts {
		if p.stance == waiting && !sub.credit.exhausted() && s.end == nil {
			s.fallBack(p)
		}
	}
	s.unlockAndWake()
}
