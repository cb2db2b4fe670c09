package tidewire

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// run is the state machine of the connection: connect, be open, wait, again. It
// ends when the client is closed or a broker says that coming back is of no use.
func (c *Client) run() {
	r := &route{targets: c.targets}
	var b backoff
	for {
		c.enter(StateConnecting, nil)
		s, err := c.connect(r.next())
		var pause time.Duration
		if err == nil {
			c.enter(StateOpen, nil)
			c.announce(s)
			err = c.hold(s)
			c.detach()
			pause = c.afterSession(s, r, &b)
		} else {
			c.failure = err
			pause = afterFailure(err, r, &b)
		}
		if c.ctx.Err() != nil {
			err = ErrClosed
		}
		if c.ctx.Err() != nil || (final(err) && !c.mayShowAnother(err)) {
			c.finish(err)
			return
		}
		if pause > 0 && !c.wait(pause, err) {
			c.finish(ErrClosed)
			return
		}
	}
}

// announce lets Connect return, and the writer begin with what waits.
func (c *Client) announce(s *session) {
	select {
	case <-c.opened:
	default:
		close(c.opened)
	}
	s.kick()
}

// hold waits until a session has ended, and returns why.
func (c *Client) hold(s *session) error {
	select {
	case <-s.done:
		return s.err
	case <-c.ctx.Done():
	}
	s.leave()
	timer := time.NewTimer(byeTimeout)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-timer.C:
		s.fail(errLeft)
	}
	return s.err
}

// connect makes a session and waits until it is open.
func (c *Client) connect(t target) (*session, error) {
	ctx, cancel := context.WithTimeout(c.ctx, c.options.ConnectTimeout)
	defer cancel()
	s, err := c.newSession(ctx, t)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.addr, err)
	}
	select {
	case <-s.opened:
		return s, nil
	case <-s.done:
	case <-ctx.Done():
		s.fail(errors.New("the broker did not answer in time"))
	}
	c.detach()
	return nil, fmt.Errorf("%s: %w", t.addr, s.err)
}

// afterSession says how long to wait after a session has ended.
func (c *Client) afterSession(s *session, r *route, b *backoff) time.Duration {
	if time.Since(s.welcome) >= stableAfter {
		b.reset()
	}
	if s.away == nil {
		r.left(nil)
		return b.next()
	}
	r.left(elsewhere(s))
	b.reset()
	wish := time.Duration(s.away.ReconnectAfterMs) * time.Millisecond
	return max(wish-time.Since(s.away.at), time.Millisecond)
}

// elsewhere returns where a GoAway sends the client. It may not lead from an
// encrypted connection to a bare one, which would tell the token to the network.
func elsewhere(s *session) []target {
	var targets []target
	for _, text := range s.away.Elsewhere {
		if t, err := parseTarget(text); err == nil && (t.tls || !s.target.tls) {
			targets = append(targets, t)
		}
	}
	return targets
}

// afterFailure says how long to wait after an attempt has failed: not at all as
// long as there is another target to try.
func afterFailure(err error, r *route, b *backoff) time.Duration {
	if !r.failure() {
		return 0
	}
	pause := b.next()
	if e, ok := errors.AsType[*HandshakeError](err); ok {
		pause = max(pause, e.RetryAfter)
	}
	return pause
}

// wait waits until the next attempt. It reports whether there is to be one.
func (c *Client) wait(d time.Duration, err error) bool {
	c.enter(StateWaiting, err)
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// finish ends the client for good.
func (c *Client) finish(err error) {
	c.stop()
	c.mu.Lock()
	c.err = err
	c.outbox.giveUp(err)
	subs, consumers := c.subs, c.consumers
	c.subs, c.consumers = nil, nil
	c.mu.Unlock()
	for _, k := range consumers {
		k.end(err)
	}
	for _, sub := range subs {
		sub.end(err)
	}
	c.enter(StateClosed, err)
	close(c.ended)
}
