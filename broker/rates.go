package broker

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tidewire/tidewire/protocol"
)

// buckets bound how many messages each publisher publishes in a second. A
// bucket that is full is the same as none, so they are dropped.
type buckets struct {
	mu    sync.Mutex
	by    map[string]*rate.Limiter
	sweep int // size at which full ones are dropped
}

const leastSweep = 1024

// of returns the bucket of a publisher, for a rate that is not 0.
func (b *buckets) of(name string, perSecond int) *rate.Limiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.by[name]; l != nil {
		return withRate(l, perSecond)
	}
	if len(b.by) >= max(b.sweep, leastSweep) {
		now := time.Now()
		for name, l := range b.by {
			if l.TokensAt(now) >= float64(l.Burst()) {
				delete(b.by, name)
			}
		}
		b.sweep = 2 * len(b.by)
	}
	if b.by == nil {
		b.by = make(map[string]*rate.Limiter)
	}
	l := withRate(nil, perSecond)
	b.by[name] = l
	return l
}

// withRate returns the bucket if it has the rate, else a new one.
func withRate(l *rate.Limiter, perSecond int) *rate.Limiter {
	if l == nil || l.Burst() != perSecond {
		return rate.NewLimiter(rate.Limit(perSecond), perSecond)
	}
	return l
}

// spend takes n messages out of a bucket, or returns the refusal that says how
// long to wait. More than fit into the bucket wait for a full one, and leave it
// in debt.
func spend(l *rate.Limiter, n int) *protocol.Error {
	now := time.Now()
	r := l.ReserveN(now, min(n, l.Burst()))
	wait := r.DelayFrom(now)
	if wait <= 0 {
		for n -= l.Burst(); n > 0; n -= l.Burst() {
			l.ReserveN(now, min(n, l.Burst()))
		}
		return nil
	}
	r.CancelAt(now)
	err := protocol.Exceeded(protocol.LimitPublishRate, "more than %d messages in a second were published: wait for %v", l.Burst(), wait.Round(time.Millisecond))
	err.RetryAfter = wait
	return err
}

// mayPublishNow takes one message of a request out of its publisher's bucket.
func (b *Broker) mayPublishNow(who *Identity) *protocol.Error {
	perSecond := b.options().PublishRate
	if perSecond == 0 {
		return nil
	}
	name := "s" + who.Subject
	if who.Subject == "" {
		name = "a" + who.Source
	}
	return spend(b.buckets.of(name, perSecond), 1)
}

// overRate takes the messages of a frame out of their publisher's bucket. If it
// has not enough, all are refused: the next frame may not pass them.
func (s *Session) overRate(who *Identity, p *protocol.Publish) bool {
	perSecond := s.broker.options().PublishRate
	if perSecond == 0 {
		return false
	}
	s.mu.Lock()
	if s.pub.refusing && !p.Resume { // they are refused anyway
		s.mu.Unlock()
		return false
	}
	s.pub.rate = withRate(s.pub.rate, perSecond)
	bucket := s.pub.rate
	s.mu.Unlock()
	if who.Subject != "" {
		bucket = s.broker.buckets.of("s"+who.Subject, perSecond)
	}
	err := spend(bucket, len(p.Messages))
	if err == nil {
		return false
	}
	s.mu.Lock()
	s.pub.refusing = true
	for i := range p.Messages {
		s.broker.metrics.refused(err)
		s.pub.results = append(s.pub.results, protocol.PublishResult{Ref: p.Ref + uint32(i), Err: err})
	}
	s.checkHard()
	s.unlockAndWake()
	return true
}

// replay is how fast the subscriptions of a session that are behind may read
// the log. It is guarded by its session.
type replay struct {
	bucket *rate.Limiter // nil if the rate is off
	paused bool          // nothing is read until resumeReplay
}

// paceReplay counts what was read from the log, and pauses if it was too much.
func (s *Session) paceReplay(bytes int) {
	perSecond := s.broker.options().ReplayRate
	if perSecond == 0 {
		return
	}
	s.replay.bucket = withRate(s.replay.bucket, perSecond)
	now := time.Now()
	var wait time.Duration
	for bytes > 0 { // a chunk may be larger than the bucket
		n := min(bytes, perSecond)
		wait = s.replay.bucket.ReserveN(now, n).DelayFrom(now)
		bytes -= n
	}
	if wait <= 0 || s.replay.paused {
		return
	}
	s.replay.paused = true
	s.broker.metrics.limits.Met(protocol.LimitReplayRate)
	time.AfterFunc(wait, s.resumeReplay)
}

func (s *Session) resumeReplay() {
	s.mu.Lock()
	s.replay.paused = false
	s.unlockAndWake()
}

// reads reports whether there is something that Take may read from the log, now.
func (s *Session) reads() bool { return len(s.behind) > 0 && !s.replay.paused && !s.inLine }

// takeSubscription makes room for one more of the subscriptions that the broker
// may have; giveSubscriptions gives it back.
func (b *Broker) takeSubscription() *protocol.Error {
	most := b.options().MaxAllSubs
	if n := b.subscribed.Add(1); n > int64(most) {
		b.subscribed.Add(-1)
		return protocol.Exceeded(protocol.LimitAllSubs, "the broker has %d subscriptions, at most %d are allowed: try again later, or on another one", most, most)
	}
	b.metrics.subscriptions.Inc()
	return nil
}

func (b *Broker) giveSubscriptions() {
	b.subscribed.Add(-1)
	b.metrics.subscriptions.Dec()
}
