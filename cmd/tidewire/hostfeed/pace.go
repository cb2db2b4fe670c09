package hostfeed

import (
	"sync"
	"time"
)

const (
	fast   = 100 * time.Millisecond // between two messages while somebody listens
	slow   = time.Second
	linger = time.Minute // after the last listener has gone, or after the start: a tab may come back
	newest = time.Hour   // after the last newcomer: a forgotten tab is nobody
)

// A Pace says how often to publish.
type Pace struct {
	mu       sync.Mutex
	audience int
	came     time.Time // when the audience has grown last
	left     time.Time // when there was somebody last
}

// NewPace returns the pace of a feed that begins now.
func NewPace() *Pace { return &Pace{left: time.Now()} }

// SetAudience tells how many listen.
func (p *Pace) SetAudience(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n > p.audience {
		p.came = time.Now()
	}
	if p.audience > 0 && n == 0 {
		p.left = time.Now()
	}
	p.audience = n
}

// interval returns the time until the next message.
func (p *Pace) interval() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.audience > 0 && time.Since(p.came) < newest {
		return fast
	}
	if p.audience == 0 && time.Since(p.left) < linger {
		return fast
	}
	return slow
}
