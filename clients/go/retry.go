package tidewire

import (
	"math/rand/v2"
	"time"
)

// The first retry comes after minDelay at the earliest; the bound of the random
// delay doubles with each failure up to maxDelay. Without the randomness all
// clients of a broker that restarts would come back at once, again and again.
const (
	minDelay = 500 * time.Millisecond
	maxDelay = 60 * time.Second

	// stableAfter is how long a session must have lasted for the next failure to
	// count as the first: a broker that accepts and closes at once is failing too.
	stableAfter = 10 * time.Second
)

// backoff counts failures. It has no lock of its own.
type backoff struct{ failures int }

// next counts a failure and returns how long to wait: full jitter between
// minDelay and the bound.
func (b *backoff) next() time.Duration {
	b.failures++
	bound := maxDelay
	if b.failures < 7 { // 2^7 * 0.5 s is above a minute
		bound = minDelay << b.failures
	}
	return minDelay + rand.N(bound-minDelay)
}

// reset is called after a success.
func (b *backoff) reset() { b.failures = 0 }

// A route is the order in which targets are tried: those that the broker names
// in a GoAway first, then the given ones in turn. Only Client.run uses it.
type route struct {
	targets []target
	prefer  []target
	at      int
	failed  int  // attempts in a row at the given ones that came to nothing
	aside   bool // the last attempt was at a preferred one
}

// next returns where to connect to.
func (r *route) next() target {
	r.aside = len(r.prefer) > 0
	if r.aside {
		t := r.prefer[0]
		r.prefer = r.prefer[1:]
		return t
	}
	return r.targets[r.at%len(r.targets)]
}

// left goes on to the next target after a session has ended: where its broker
// died or shuts down, another one is there already.
func (r *route) left(elsewhere []target) {
	r.prefer = elsewhere
	r.failed = 0
	r.at++
}

// failure goes on to the next target and reports whether all the given ones
// have failed since the last pause.
func (r *route) failure() bool {
	if r.aside {
		return false
	}
	r.at++
	r.failed++
	return r.failed%len(r.targets) == 0
}
