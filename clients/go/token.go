package tidewire

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"time"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

const (
	// maxLead is how long before its end a token is replaced; a quarter of its life
	// if that is less.
	maxLead = time.Minute
	// minRenewPause is the shortest pause between two attempts to replace one.
	minRenewPause = time.Second
	// refreshRef is the number of a Refresh. The outbox begins anew long before it.
	refreshRef = math.MaxUint32
)

// tokens is what the client knows of the tokens that Options.Token gave it.
// Client.mu guards it.
type tokens struct {
	shown   string // the one that the broker has seen last
	invalid bool   // the last session that was tried was refused as unauthorized
}

// ask gets a token for an attempt to connect.
func (c *Client) askToken(ctx context.Context) (string, error) {
	if c.options.Token == nil {
		return "", nil
	}
	token, err := c.options.Token(ctx)
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	c.tokens.shown = token
	c.mu.Unlock()
	return token, nil
}

// mayShowAnother reports whether the client may come back although the broker
// said that coming back is of no use: it said so of a token, and there is another
// one. A token that is not valid, and not merely old, is replaced once: who signs
// tokens with a wrong secret has many of them.
//
// The naive way, to come back whatever Options.Token gives, tries an expired token
// of a command line for ever, at the broker's cost, and tells nobody.
func (c *Client) mayShowAnother(err error) bool {
	code := refusedWith(err)
	if c.options.Token == nil || (code != protocol.CodeTokenExpired && code != protocol.CodeUnauthorized) {
		return false
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.options.ConnectTimeout)
	defer cancel()
	token, sourceErr := c.options.Token(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	again := c.tokens.invalid && code == protocol.CodeUnauthorized
	c.tokens.invalid = code == protocol.CodeUnauthorized
	// A source that fails for now may have another one later.
	return !again && (sourceErr != nil || token != c.tokens.shown)
}

// refusedWith returns the code with which a connection was refused or closed;
// empty if the broker said none.
func refusedWith(err error) Code {
	if e, ok := errors.AsType[*CloseError](err); ok {
		for _, info := range protocol.Codes() {
			if info.Close == e.Code {
				return info.Code
			}
		}
	}
	if e, ok := errors.AsType[*HandshakeError](err); ok && e.Err != nil {
		return e.Err.Code
	}
	return ""
}

// A renewal replaces the token of a session before it expires, so that the
// session goes on. Where that fails nothing is lost: the broker ends the session,
// and the client comes back with another token.
type renewal struct {
	session *session
	local   time.Time // when Welcome came ...
	remote  time.Time // ... by the broker's clock: the client's own may be wrong
	expires time.Time // by the broker's clock; zero if never
	refused string    // the broker did not take this one
}

// renew begins the renewal of a session whose token expires.
func (s *session) renew(f *tidewirev1.Welcome) {
	if f.ExpiresAt == 0 || s.client.options.Token == nil {
		return
	}
	r := &renewal{session: s, local: time.Now(), remote: protocol.Time(f.Time), expires: protocol.Time(f.ExpiresAt)}
	s.client.work.Go(r.run)
}

// run replaces one token after the other until the session ends.
func (r *renewal) run() {
	for !r.expires.IsZero() {
		left := r.left()
		lead := min(left/4, maxLead)
		// The randomness keeps clients apart whose tokens were issued together.
		if left <= 0 || !r.session.pause(left-lead-rand.N(lead/4+1)) {
			return
		}
		for !r.replace() {
			if r.left() <= 0 || !r.session.pause(max(lead/4, minRenewPause)) {
				return
			}
		}
	}
}

// left is how long the token is good for.
func (r *renewal) left() time.Duration {
	return r.expires.Sub(r.remote) - time.Since(r.local)
}

// replace asks for another token and shows it to the broker. It reports whether
// the broker has taken it.
func (r *renewal) replace() bool {
	c := r.session.client
	ctx, cancel := context.WithTimeout(c.ctx, c.options.ConnectTimeout)
	defer cancel()
	token, err := c.options.Token(ctx)
	c.mu.Lock()
	shown := c.tokens.shown
	c.mu.Unlock()
	if err != nil || token == shown || token == r.refused {
		return false
	}
	select {
	case <-r.session.refreshed: // came too late for the attempt before
	default:
	}
	r.session.send(&tidewirev1.Refresh{Ref: refreshRef, Token: token})
	select {
	case answer := <-r.session.refreshed:
		if answer == nil { // another one may be better
			r.refused = token
			return false
		}
		c.mu.Lock()
		c.tokens.shown = token
		c.mu.Unlock()
		r.expires = protocol.Time(answer.ExpiresAt)
		return true
	case <-ctx.Done():
	case <-r.session.done:
	}
	return false
}

// pause waits. It reports whether the session still lives.
func (s *session) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.done:
		return false
	}
}

// answeredRefresh hands the answer to a Refresh, nil for a refusal, to whoever
// waits for it.
func (s *session) answeredRefresh(f *tidewirev1.Refreshed) {
	select {
	case s.refreshed <- f:
	default:
	}
}
