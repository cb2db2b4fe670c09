package judge

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// sub is one subscription of a subscriber, over all its connections.
type sub struct {
	want
	index    int    // in the files
	number   uint32 // on the wire; a new one after each hole
	position string // handled up to here; empty before the first subscribed
	cursors  map[uint32]uint64
	caughtUp bool // since it was last begun
	refused  bool // for good
}

// subscriber holds several subscriptions on one connection, follows the client
// rules of docs/protocol.md, and writes down every frame as it came: nothing is
// filtered out that a client would drop.
type subscriber struct {
	load *Load
	log  *journal
	rng  *rand.Rand
	subs []*sub

	conn     *conn
	byNumber map[uint32]*sub
	lastNum  uint32
	dials    int
	failures int  // in a row
	slow     bool // pauses
	wait     time.Duration
	moved    time.Time // the last time that anything got further
}

func newSubscriber(l *Load, file string, wants []want, stream uint64) (*subscriber, error) {
	log, err := openJournal(l.plan.Dir, file)
	if err != nil {
		return nil, err
	}
	s := &subscriber{load: l, log: log, rng: l.random(stream), dials: int(stream % 1024)}
	s.slow = s.rng.Float64() < l.plan.Tuning.SlowShare
	for i, w := range wants {
		s.subs = append(s.subs, &sub{want: w, index: i, cursors: map[uint32]uint64{}})
		log.add(subEvent{Event: evWant, At: l.now(), Sub: i, Filter: w.filter, From: w.from})
	}
	return s, log.flush()
}

// run subscribes until everything that was answered has come, or patience has
// ended. Its error is one of the file.
func (s *subscriber) run(ctx context.Context, late bool) error {
	if late {
		select {
		case <-s.load.late.c:
		case <-s.load.final.c:
		case <-ctx.Done():
		}
	}
	s.moved = time.Now()
	for ctx.Err() == nil && !s.complete() && !s.inVain() {
		if err := s.session(ctx); err != nil && !errors.Is(err, errLeave) {
			s.stumble(ctx, err)
		}
	}
	if ctx.Err() == nil {
		s.log.add(subEvent{Event: evEnd, At: s.load.now(), Complete: s.complete()})
	}
	return s.log.close()
}

// complete reports whether every subscription is beyond the last answered
// message that it matches, and beyond what was stored when it was begun.
func (s *subscriber) complete() bool {
	if !s.load.final.fired() {
		return false
	}
	for _, u := range s.subs {
		if !u.caughtUp {
			return false
		}
	}
	s.load.mu.Lock()
	defer s.load.mu.Unlock()
	for topic, head := range s.load.heads {
		for _, u := range s.subs {
			if matches(u.filter, topic) && u.cursors[head.partition] < head.offset {
				return false
			}
		}
	}
	return true
}

// inVain counts only once the publishers have ended: before, there may be
// nothing to get.
func (s *subscriber) inVain() bool {
	for _, u := range s.subs {
		if u.refused {
			return true
		}
	}
	if !s.load.final.fired() {
		s.moved = time.Now()
	}
	return time.Since(s.moved) > s.load.plan.Tuning.Patience
}

// errLeave ends a session because the broker said so.
var errLeave = errors.New("told to go away")

// session holds one connection. It returns nil if the subscriber is done or
// dropped the connection of its own accord.
func (s *subscriber) session(ctx context.Context) error {
	if err := s.connect(ctx); err != nil {
		return err
	}
	defer s.conn.close()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	cut, pause := s.timer(s.load.plan.Tuning.CutEvery), s.pause()
	for {
		select {
		case f, ok := <-s.conn.frames:
			if !ok {
				return s.conn.err
			}
			if err := s.take(ctx, f); err != nil {
				return err
			}
		case <-tick.C:
			if s.complete() || s.inVain() {
				return nil
			}
		case <-cut:
			if !s.load.final.fired() { // from then on it is to reach the end
				return nil
			}
		case <-pause:
			rest(ctx, time.Duration(s.rng.Int64N(int64(s.load.plan.Tuning.PauseFor))))
			pause = s.pause()
		case <-ctx.Done():
			return nil
		}
	}
}

// timer fires once, at a random time around the mean; never if that is 0.
func (s *subscriber) timer(mean time.Duration) <-chan time.Time {
	if mean <= 0 {
		return nil
	}
	return time.After(time.Duration(float64(mean) * (0.2 + 1.6*s.rng.Float64())))
}

// pause fires when the subscriber is to stop reading for a while.
func (s *subscriber) pause() <-chan time.Time {
	if !s.slow {
		return nil
	}
	return s.timer(s.load.plan.Tuning.PauseEvery)
}

// caller says where to connect next.
func (s *subscriber) caller() caller {
	to := caller{base: s.load.url(s.dials), token: s.load.plan.Tuning.Token}
	if s.slow && s.load.plan.Tuning.SlowShare < 1 {
		to.client = newNarrow()
	}
	return to
}

func (s *subscriber) connect(ctx context.Context) error {
	var forms []subscribeForm
	s.byNumber = map[uint32]*sub{}
	for _, u := range s.subs {
		forms = append(forms, s.form(u))
	}
	if s.wait > 0 { // go_away said so
		rest(ctx, s.wait)
		s.wait = 0
	}
	c, err := dial(ctx, s.caller(), forms)
	s.dials++
	if err != nil {
		return err
	}
	s.conn, s.failures = c, 0
	s.log.add(subEvent{Event: evReconnect, At: s.load.now()})
	return s.log.flush()
}

// form gives the subscription a new number and says where to begin.
func (s *subscriber) form(u *sub) subscribeForm {
	s.lastNum++
	u.number, u.caughtUp = s.lastNum, false
	s.byNumber[u.number] = u
	from := u.position
	if from == "" {
		from = u.from
	}
	return subscribeForm{Sub: u.number, Filter: u.filter, From: from}
}

func (s *subscriber) stumble(ctx context.Context, err error) {
	if fatal, ok := errors.AsType[*fatalError](err); ok {
		s.log.add(subEvent{Event: evRefused, At: s.load.now(), Reason: fatal.code})
	}
	s.failures++
	rest(ctx, s.load.backoff(s.rng, s.failures))
}
