package tidewire

import (
	"errors"
	"math"
	"time"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
)

// SlowPolicy says what a broker does with a subscription that cannot keep up.
type SlowPolicy string

// The policies.
const (
	SlowCatchUp    SlowPolicy = "catch_up"   // it gets everything, later
	SlowConflate   SlowPolicy = "conflate"   // while it is behind it gets only the newest message of each topic
	SlowDisconnect SlowPolicy = "disconnect" // the connection is closed, and the client comes back
)

// flow is the credit of a subscription: how many bytes the broker may still send
// for it. As a rule the client gives back what the loop has handled, so that the
// broker never has more under way than the window, and a slow loop is felt by the
// broker, which reads the log for it later. Subscription.mu guards it.
type flow struct {
	window  int64 // 0 if there is no credit
	manual  bool  // the program gives credit
	balance int64 // manual: given and not used up
	held    int64 // else: what was received and not yet handled,
	owed    int64 // and what was handled and not yet given back
}

// begin returns the credit of a new subscribe.
func (f *flow) begin() *uint32 {
	switch {
	case f.manual:
		f.balance = max(f.balance, 0)
		return new(clamp(f.balance))
	case f.window == 0:
		return nil
	}
	f.owed = 0
	return new(clamp(f.window - f.held))
}

// received notes a frame that was put into the queue.
func (f *flow) received(size int) {
	f.balance -= int64(size)
	f.held += int64(size)
}

// dropped notes a frame that nobody will handle.
func (f *flow) dropped(size int) {
	f.balance -= int64(size)
	f.owed += int64(size)
}

// handled notes a frame that was received. It reports whether it is time to give
// credit back.
func (f *flow) handled(size int) bool {
	f.held -= int64(size)
	f.owed += int64(size)
	return f.due()
}

// due reports whether enough is owed. Half of the window is: the broker never
// runs dry with a loop that keeps up, and a frame goes back for many.
func (f *flow) due() bool { return !f.manual && f.window > 0 && 2*f.owed >= f.window }

func clamp(n int64) uint32 { return uint32(min(max(n, 0), math.MaxUint32)) }

// Grant lets the broker send so many more bytes, where the program gives the
// credit, see SubscribeOptions.ManualCredit; else it does nothing.
func (s *Subscription) Grant(bytes uint32) {
	s.mu.Lock()
	manual := s.flow.manual
	if manual {
		s.flow.balance += int64(bytes)
	}
	s.mu.Unlock()
	if manual {
		s.client.give(s, func() uint32 { return bytes })
	}
}

// giveBack sends the credit that is owed.
func (c *Client) giveBack(s *Subscription) {
	c.give(s, func() uint32 {
		if !s.flow.due() {
			return 0
		}
		n := clamp(s.flow.owed)
		s.flow.owed -= int64(n)
		return n
	})
}

// give sends credit, unless the running session does not have the subscription:
// it gets its credit with Subscribe then. amount is called under Subscription.mu.
func (c *Client) give(s *Subscription, amount func() uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil {
		return
	}
	s.mu.Lock()
	number, n := s.cursor.number, uint32(0)
	if number != 0 && (s.cursor.phase == phaseAsked || s.cursor.phase == phaseOn) {
		n = amount()
	}
	s.mu.Unlock()
	if n > 0 {
		c.session.send(&tidewirev1.Flow{Sub: number, Credit: n})
	}
}

// newFlow reads the options.
func newFlow(o *SubscribeOptions) (flow, error) {
	switch {
	case o.Slow == SlowDisconnect && o.ManualCredit:
		return flow{}, errors.New("with SlowDisconnect the broker does not wait for credit: leave out ManualCredit or the policy")
	case o.ConflateEvery < 0 || o.ConflateEvery%time.Millisecond != 0 || o.ConflateEvery > math.MaxUint32*time.Millisecond:
		return flow{}, errors.New("ConflateEvery is not a number of whole milliseconds")
	case o.Slow == SlowDisconnect:
		return flow{}, nil
	case o.ManualCredit:
		return flow{manual: true, balance: int64(o.Credit), window: math.MaxUint32}, nil
	}
	return flow{window: max(int64(o.QueueBytes/8), 1)}, nil
}
