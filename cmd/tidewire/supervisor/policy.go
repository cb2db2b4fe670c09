package supervisor

import (
	"slices"
	"time"
)

// How often and how soon a broker is started again.
const (
	forgetAfter  = time.Minute      // a death that is longer ago does not count
	atOnce       = 5                // so many deaths in that time are followed by a start at once
	firstPause   = time.Second      // then it doubles
	longestPause = 10 * time.Second //
	maxFailures  = 5                // starts in a row that came to nothing
)

// policy decides whether and when a broker that died is started again. The first
// start must succeed: what is wrong then (a port in use, a mistake in the
// configuration) no other attempt mends, and the broker has said what it is.
type policy struct {
	begun    bool // one start has succeeded
	failures int  // starts in a row that have not
	deaths   []time.Time
}

// died notes a death at a time. ready says that the broker has taken requests
// before. It returns how long to wait, or false to give up.
func (p *policy) died(now time.Time, ready bool) (pause time.Duration, again bool) {
	if ready {
		p.begun, p.failures = true, 0
	} else if p.failures++; !p.begun || p.failures >= maxFailures {
		return 0, false
	}
	p.deaths = slices.DeleteFunc(p.deaths, func(at time.Time) bool { return now.Sub(at) >= forgetAfter })
	p.deaths = append(p.deaths, now)
	more := len(p.deaths) - atOnce
	if !ready {
		more = max(more, p.failures)
	}
	if more <= 0 {
		return 0, true
	}
	return min(firstPause<<min(more-1, 10), longestPause), true
}
