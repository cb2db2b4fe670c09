package judge

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// lateAfter is how many answers the late subscribers wait for, so that they
// have something to catch up with.
const lateAfter = 200

// A Load is what publishers and subscribers do to a broker, from [Start] to the
// end of [Load.Wait].
type Load struct {
	plan   Plan
	began  time.Time
	http   *http.Client
	ctx    context.Context // of everything that the load started
	cancel context.CancelCauseFunc

	moments

	publishers, subscribers sync.WaitGroup
	answered, received      atomic.Int64

	groups  []*group
	crashes *journal // nil without consumers

	mu sync.Mutex // guards what follows
	// heads is the highest answered place of each topic: what a subscriber
	// must have reached before it may end.
	heads map[string]place
	due   time.Time // when Rate lets the next message go
}

// moments are what the goroutines of a load wait for.
type moments struct {
	stop  signal // publishers end as soon as what they sent is answered
	late  signal // late subscribers begin
	final signal // all publishers have ended, heads stand
}

// Start begins a run. The caller may do to the broker what it likes, then
// calls [Load.Stop] if the plan has no bound of its own, and [Load.Wait]. The
// context aborts the run: what subscribers did not get by then is not judged.
func Start(ctx context.Context, plan Plan) (*Load, error) {
	plan = plan.withDefaults()
	if err := plan.check(); err != nil {
		return nil, err
	}
	if err := plan.save(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	r := &Load{
		plan: plan, began: time.Now(), ctx: ctx, cancel: cancel,
		http:    &http.Client{Timeout: plan.Tuning.Patience, Transport: &http.Transport{MaxIdleConnsPerHost: plan.Publishers}},
		moments: moments{stop: newSignal(), late: newSignal(), final: newSignal()},
		heads:   map[string]place{},
	}
	if err := r.startConsumers(ctx); err != nil {
		cancel(err)
		return nil, err
	}
	for i := range plan.Publishers {
		p, err := newPublisher(r, i)
		if err != nil {
			cancel(err)
			return nil, err
		}
		r.publishers.Go(func() { r.fail(p.run(ctx)) })
	}
	for i := range plan.Subscribers {
		s, err := newSubscriber(r, fmt.Sprintf("sub-%03d.jsonl", i), plan.wants(i), uint64(i))
		if err != nil {
			cancel(err)
			return nil, err
		}
		r.subscribers.Go(func() { r.fail(s.run(ctx, startsLate(i))) })
	}
	if plan.Duration > 0 {
		timer := time.AfterFunc(plan.Duration, r.Stop)
		context.AfterFunc(ctx, func() { timer.Stop() })
	}
	r.subscribers.Go(func() { r.audit(ctx) })
	return r, nil
}

// audit waits for the publishers and then reads the whole log once more: what
// is stored at the end, and whether it is what everybody was told.
func (r *Load) audit(ctx context.Context) {
	r.publishers.Wait()
	r.final.fire()
	s, err := newSubscriber(r, "sub-audit.jsonl", []want{{r.plan.Prefix + ".>", "earliest"}}, 1<<32)
	if err == nil {
		err = s.run(ctx, false)
	}
	r.fail(err)
}

// Stop makes the publishers end as soon as what they sent is answered.
func (r *Load) Stop() { r.stop.fire() }

// Wait returns when every publisher has its answers and every subscriber has
// everything that was answered, or has waited for it in vain.
func (r *Load) Wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		r.publishers.Wait()
		r.subscribers.Wait()
		r.endConsumers()
		close(done)
	}()
	select {
	case <-done:
		err := context.Cause(r.ctx) // set if a file could not be written
		r.cancel(errEnded)
		return err
	case <-ctx.Done():
		r.cancel(ctx.Err())
		<-done
		return ctx.Err()
	}
}

var errEnded = errors.New("the run is over")

// Answered returns how many messages were answered until now.
func (r *Load) Answered() int64 { return r.answered.Load() }

// Received returns how many messages all subscribers got until now.
func (r *Load) Received() int64 { return r.received.Load() }

// Run does what a plan says, to its end. [Verdict] then reads the files.
func Run(ctx context.Context, plan Plan) error {
	r, err := Start(ctx, plan)
	if err != nil {
		return err
	}
	return r.Wait(ctx)
}

// fail ends the run if its files cannot be written: without them it is worth
// nothing.
func (r *Load) fail(err error) {
	if err != nil {
		r.cancel(err)
	}
}

// now is one clock for all files, which never steps back.
func (r *Load) now() int64 { return r.began.UnixMicro() + time.Since(r.began).Microseconds() }

func (r *Load) random(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(r.plan.Seed, stream)) }

func (r *Load) noteAnswer(k key, at place) {
	r.mu.Lock()
	if at.offset > r.heads[k.topic].offset {
		r.heads[k.topic] = at
	}
	r.mu.Unlock()
	for _, g := range r.groups {
		g.noteAnswer(k, at)
	}
	if r.answered.Add(1) >= lateAfter {
		r.late.fire()
	}
}

// pace returns how long to wait before n more messages.
func (r *Load) pace(n int) time.Duration {
	if r.plan.Rate <= 0 {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.due.Before(now.Add(-100 * time.Millisecond)) {
		r.due = now // do not catch up with what a dead broker cost
	}
	wait := r.due.Sub(now)
	r.due = r.due.Add(time.Duration(n) * time.Second / time.Duration(r.plan.Rate))
	return max(wait, 0)
}

// url spreads connections over the brokers, and each reconnect takes the next.
func (r *Load) url(n int) string { return r.plan.URLs[n%len(r.plan.URLs)] }

// backoff draws a wait after the given number of failures in a row.
func (r *Load) backoff(rng *rand.Rand, failures int) time.Duration {
	t := r.plan.Tuning
	bound := min(t.ReconnectMin<<min(failures, 16), t.ReconnectMax)
	return t.ReconnectMin + time.Duration(rng.Int64N(int64(bound)+1))
}

// rest waits, and reports whether the context still stands.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// signal is fired once and stays so.
type signal struct {
	fire func()
	c    chan struct{} // closed when it is fired
}

func newSignal() signal {
	c := make(chan struct{})
	return signal{sync.OnceFunc(func() { close(c) }), c}
}

func (s signal) fired() bool {
	select {
	case <-s.c:
		return true
	default:
		return false
	}
}
