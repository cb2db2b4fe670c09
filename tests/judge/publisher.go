package judge

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// outgoing is a message on its way. It is kept until it is answered.
type outgoing struct {
	topic, id string
	key       string // for the order
	n         int
	payload   []byte
	binary    bool // not valid UTF-8
	first     time.Time
	tries     int
	settled   bool // answered, or refused for good
}

// publisher sends its messages in turns. A turn goes over WebSocket, with a
// window of unanswered messages, or over HTTP, one by one; what a turn leaves
// unanswered is the head of the next one, over whatever that takes. So repeats
// cross from one way to the other, and the order holds all the same.
type publisher struct {
	load  *Load
	index int
	log   *journal
	rng   *rand.Rand

	queue  []*outgoing // not settled, in order
	made   int
	recent []*outgoing // some that were answered, to be sent again on purpose
	conn   *conn
	// notBefore is when a broker that sent us away wants us back.
	notBefore time.Time
	ref       uint32
	resume    bool // the connection refuses everything until it hears resume
	opened    int
	failures  int // in a row
	heard     time.Time
}

const (
	turnMessages = 200
	keepRecent   = 256
)

func newPublisher(l *Load, index int) (*publisher, error) {
	log, err := openJournal(l.plan.Dir, fmt.Sprintf("pub-%03d.jsonl", index))
	if err != nil {
		return nil, err
	}
	return &publisher{
		load: l, index: index, log: log, rng: l.random(1<<40 + uint64(index)),
		heard: time.Now(), opened: index,
	}, nil
}

// run publishes until the plan is done. Its error is one of the files.
func (p *publisher) run(ctx context.Context) error {
	complete := false
	for ctx.Err() == nil {
		p.fill()
		if len(p.queue) == 0 {
			complete = true
			break
		}
		// One patience for an answer to a turn, then the repeats get theirs.
		if time.Since(p.heard) > 3*p.load.plan.Tuning.Patience {
			break
		}
		over := p.overWebSocket
		if p.rng.Float64() < p.load.plan.HTTPShare {
			over = p.overHTTP
		}
		ok := over(ctx, p.queue)
		p.queue = slices.DeleteFunc(p.queue, func(m *outgoing) bool { return m.settled })
		if ok && p.rng.Float64() < p.load.plan.Tuning.Repeats {
			over(ctx, p.repeats())
		}
	}
	if p.conn != nil {
		p.conn.close()
	}
	if ctx.Err() == nil {
		p.log.add(pubEvent{Event: evEnd, At: p.load.now(), Complete: complete})
	}
	return p.log.close()
}

// fill adds new messages to the queue up to the size of a turn, as long as
// there are to be any.
func (p *publisher) fill() {
	plan := &p.load.plan
	if p.load.stop.fired() {
		p.queue = slices.DeleteFunc(p.queue, func(m *outgoing) bool { return m.tries == 0 })
		return
	}
	for len(p.queue) < turnMessages && (plan.Messages == 0 || p.made < plan.Messages) {
		p.made++
		m := &outgoing{
			topic: plan.topic(p.rng.IntN(plan.Topics)),
			id:    fmt.Sprintf("%x-%d-%d", plan.Seed, p.index, p.made),
			n:     p.made, binary: p.rng.IntN(16) == 0,
		}
		if plan.Keys > 0 && p.rng.IntN(5) > 0 {
			m.key = fmt.Sprintf("k%d", p.rng.IntN(plan.Keys))
		}
		m.payload = p.payload(m)
		p.queue = append(p.queue, m)
	}
}

// awkward is text that a careless encoder spoils.
var awkward = []string{"a", "7", " ", "\"", "\\", "\n", "<&>", "é", "\u2028", "😀", "\x01"}

func (p *publisher) payload(m *outgoing) []byte {
	b := fmt.Appendf(nil, "%s %d ", m.id, m.n)
	for len(b) < p.load.plan.PayloadBytes {
		b = append(b, awkward[p.rng.IntN(len(awkward))]...)
	}
	if m.binary {
		b = append(b, 0xff, 0xfe)
	}
	return b
}

// repeats picks answered messages to be sent once more.
func (p *publisher) repeats() []*outgoing {
	var again []*outgoing
	for range min(3, len(p.recent)) {
		m := *p.recent[p.rng.IntN(len(p.recent))]
		m.settled = false
		again = append(again, &m)
	}
	return again
}

// intend logs an attempt. The caller flushes before it sends.
func (p *publisher) intend(m *outgoing, via string) {
	if m.tries == 0 {
		m.first = time.Now()
	}
	m.tries++
	p.log.add(pubEvent{
		Event: evIntent, At: p.load.now(), Topic: m.topic, ID: m.id, N: m.n,
		Key: m.key, Sum: sumOf(m.payload), Via: via,
	})
}

func (p *publisher) answer(m *outgoing, via, position string, duplicate bool) {
	p.log.add(pubEvent{
		Event: evAnswer, At: p.load.now(), Topic: m.topic, ID: m.id, Via: via,
		Position: position, Duplicate: duplicate,
	})
	m.settled = true
	p.heard, p.failures = time.Now(), 0
	if at, err := parsePlace(position); err == nil { // else the verdict tells
		p.load.noteAnswer(key{m.topic, m.id}, at)
	}
	if len(p.recent) < keepRecent {
		p.recent = append(p.recent, m)
	} else {
		p.recent[p.rng.IntN(keepRecent)] = m
	}
}

func (p *publisher) refused(m *outgoing, via, code string) {
	p.log.add(pubEvent{Event: evRefused, At: p.load.now(), Topic: m.topic, ID: m.id, Via: via, Code: code})
	m.settled = true
	p.heard = time.Now()
}

// stumble notes a failure and waits before the next attempt. A verdict that
// coming back will not change is logged.
func (p *publisher) stumble(ctx context.Context, err error) {
	if fatal, ok := errors.AsType[*fatalError](err); ok {
		p.log.add(pubEvent{Event: evRefused, At: p.load.now(), Code: fatal.code})
	}
	p.failures++
	rest(ctx, p.load.backoff(p.rng, p.failures))
}
