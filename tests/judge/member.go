package judge

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"
)

// held is a message that a member has, or had.
type held struct {
	key
	position string
	at       place
	// generation is that of the delivery; 0 leaves it to the broker.
	generation uint64
	due        time.Time // of one that is to be acknowledged later
}

// member is one member of a consumer at a WebSocket, over all its sessions. It
// does to its messages what draw says, and every now and then it leaves: with a
// word, without one, or it freezes, which is a process that reads and answers
// nothing any more.
type member struct {
	group *group
	load  *Load
	log   *journal
	rng   *rand.Rand
	index int

	conn     *conn
	ref      uint32
	asked    map[uint32]*asked
	later    []held // to be acknowledged when they are due
	frozen   bool
	leaving  <-chan time.Time // not nil: unsubscribed, and waiting so long for the answer
	leave    <-chan time.Time // when to go
	thaw     <-chan time.Time // when a frozen member goes on
	failures int              // in a row
	dials    int
}

// asked is a request that was not answered.
type asked struct {
	kind    string
	confirm bool
	held    []held
}

func newMember(g *group, index int) (*member, error) {
	log, err := openJournal(g.load.plan.Dir, g.file(fmt.Sprintf("m%02d", index)))
	if err != nil {
		return nil, err
	}
	stream := uint64(2<<40 + g.index<<20 + index)
	return &member{group: g, load: g.load, log: log, rng: g.load.random(stream), index: index, dials: index}, nil
}

// run goes on until the group is over. Its error is one of the file.
func (m *member) run(ctx context.Context) error {
	for ctx.Err() == nil && !m.group.over.fired() {
		if m.retired() {
			rest(ctx, 50*time.Millisecond)
			continue
		}
		err := m.session(ctx)
		switch {
		case errors.Is(err, errTakenOver):
			rest(ctx, time.Duration(m.rng.Int64N(int64(time.Second))))
		case err != nil:
			if fatal, ok := errors.AsType[*fatalError](err); ok {
				m.log.add(conEvent{Event: evRefused, At: m.load.now(), Code: fatal.code})
			}
			m.failures++
			rest(ctx, m.load.backoff(m.rng, m.failures))
		default:
			rest(ctx, time.Duration(m.rng.Int64N(int64(m.load.plan.Tuning.ReconnectMax))))
		}
	}
	if ctx.Err() == nil {
		m.log.add(conEvent{Event: evEnd, At: m.load.now(), Complete: true})
	}
	return m.log.close()
}

// retired: at the end the members of an exclusive consumer stop taking over from
// each other, and only the first goes on.
func (m *member) retired() bool {
	return m.group.Exclusive && m.index > 0 && m.load.final.fired()
}

var errTakenOver = errors.New("another member took over")

// theSub is the number of the only subscription of a session.
const theSub = 1

// session is one connection. It returns nil if the member left.
func (m *member) session(ctx context.Context) error {
	m.log.add(conEvent{Event: evJoin, At: m.load.now()})
	clean := false
	defer func() {
		m.log.add(conEvent{Event: evLeave, At: m.load.now(), Clean: clean})
		_ = m.log.flush() // its error is told at the end
	}()
	c, err := dial(ctx, caller{base: m.load.url(m.dials), token: m.load.plan.Tuning.Token}, []subscribeForm{m.form()})
	m.dials++
	if err != nil {
		op, ok := errors.AsType[*net.OpError](err)
		clean = ok && op.Op == "dial" // it never got as far as a subscription
		return err
	}
	defer c.close()
	m.conn, m.asked, m.frozen, m.leaving, m.failures = c, map[uint32]*asked{}, false, nil, 0
	clean, err = m.attend(ctx)
	return err
}

func (m *member) form() subscribeForm {
	form := subscribeForm{Sub: theSub, Filter: m.group.filter(), From: "earliest", Consumer: m.group.Name, Settings: m.group.settings()}
	if m.rng.IntN(2) == 0 {
		form.Window = 1 + m.rng.IntN(100)
	}
	return form
}

// errLeft ends a session with the broker's word that it has, errGone without.
var (
	errLeft = errors.New("left")
	errGone = errors.New("gone without a word")
)

// attend handles what comes until the session ends. clean tells that it ended
// with the broker's word.
func (m *member) attend(ctx context.Context) (clean bool, err error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	m.leave, m.thaw = m.timer(m.load.plan.Tuning.LeaveEvery), nil
	for err == nil {
		select {
		case f, ok := <-m.conn.frames:
			if !ok {
				return false, m.conn.err
			}
			err = m.take(ctx, f)
		case <-tick.C:
			err = m.routine(ctx)
		case <-m.leave:
			err = m.part(ctx)
		case <-m.thaw:
			m.frozen, m.thaw = false, nil
			m.conn.mute.Store(false)
			if m.rng.IntN(2) == 0 {
				err = errGone
			}
		case <-m.leaving:
			err = errors.New("no answer to unsubscribe")
		case <-ctx.Done():
			err = errGone
		}
	}
	if errors.Is(err, errLeft) || errors.Is(err, errGone) {
		return errors.Is(err, errLeft), nil
	}
	return false, err
}

// routine is what there is to do without being asked.
func (m *member) routine(ctx context.Context) error {
	if m.leaving == nil && (m.group.over.fired() || m.retired()) {
		if err := m.unsubscribe(ctx); err != nil {
			return err
		}
	}
	return m.settleLater(ctx)
}

func (m *member) unsubscribe(ctx context.Context) error {
	m.leaving = time.After(m.load.plan.Tuning.Patience)
	return m.conn.send(ctx, unsubscribeForm{"unsubscribe", theSub})
}

// part picks one of the ways to go, unless there is nobody left to publish: from
// then on a member is to do its work.
func (m *member) part(ctx context.Context) error {
	m.leave = nil
	if m.load.final.fired() || m.leaving != nil {
		return nil
	}
	switch m.rng.IntN(3) {
	case 0:
		return m.unsubscribe(ctx)
	case 1:
		m.frozen = true
		m.conn.mute.Store(true)
		m.thaw = time.After(time.Duration(m.rng.Int64N(int64(3 * m.group.AckWait))))
		return nil
	default:
		return errGone
	}
}

func (m *member) timer(mean time.Duration) <-chan time.Time {
	if mean <= 0 {
		return nil
	}
	return time.After(time.Duration(float64(mean) * (0.2 + 1.6*m.rng.Float64())))
}

// take writes down what came, and acts on it.
func (m *member) take(ctx context.Context, f any) error {
	var err error
	switch f := f.(type) {
	case *subscribed:
		m.group.noteMoved()
	case *unsubscribed:
		err = errLeft
	case *deliver:
		err = m.takeDeliver(ctx, f)
	case *acked:
		m.takeAcked(f)
	case *gap:
		m.log.add(conEvent{Event: evGap, At: m.load.now(), Code: f.Reason, Settled: int(f.Through)})
	case *failure:
		err = m.takeFailure(f)
	case *goAway:
		err = errors.New("told to go away")
	}
	return errors.Join(err, m.log.flush())
}

func (m *member) takeFailure(f *failure) error {
	if f.Code == "taken_over" && m.group.Exclusive {
		return errTakenOver
	}
	if !f.Retryable {
		m.log.add(conEvent{Event: evRefused, At: m.load.now(), Code: f.Code})
	}
	return errors.New("the broker answers: " + f.Message) // come again
}

func (m *member) takeDeliver(ctx context.Context, f *deliver) error {
	if len(f.Messages) == 0 {
		return nil
	}
	event := conEvent{Event: evReceive, At: m.load.now(), Generation: f.Messages[0].Generation}
	all := event.receive(f.Messages)
	for i := range f.Messages {
		if f.Messages[i].Generation != event.Generation {
			m.log.add(conEvent{Event: evRefused, At: m.load.now(), Code: "a frame with messages of two generations"})
		}
	}
	m.log.add(event)
	if err := m.log.flush(); err != nil {
		return err
	}
	m.group.noteMoved()
	m.load.received.Add(int64(len(f.Messages)))
	return m.handle(ctx, all)
}

// receive notes messages that came, of one generation, and returns what the member
// has then.
func (e *conEvent) receive(messages []message) (all []held) {
	for i := range messages {
		r := &messages[i]
		e.Messages = append(e.Messages, conReceipt{receipt: receipt{r.Topic, r.ID, r.Position, r.sum()}, Attempt: r.Attempt})
		if at, err := parsePlace(r.Position); err == nil { // else the verdict tells
			all = append(all, held{key: key{r.Topic, r.ID}, position: r.Position, at: at, generation: e.Generation})
		}
	}
	return all
}

// takeAcked notes an answer. What is not in it as refused is settled.
func (m *member) takeAcked(f *acked) {
	a := m.asked[f.Ref]
	if a == nil {
		m.log.add(conEvent{Event: evRefused, At: m.load.now(), Code: fmt.Sprintf("an answer to %d, which was not asked", f.Ref)})
		return
	}
	delete(m.asked, f.Ref)
	event := conEvent{Event: evSettled, At: m.load.now(), Ref: f.Ref, Settled: f.Settled, Refused: f.Refused}
	if f.Error != nil {
		event.Code = f.Error.Code
	}
	m.log.add(event)
	m.group.noteSettled(a, &event)
}

// noteSettled takes an answer to those that were asked about.
func (g *group) noteSettled(a *asked, answer *conEvent) {
	if answer.Code != "" || a.kind != kindAck {
		return
	}
	for _, h := range a.held {
		code := refusalOf(h.at, answer.Refused)
		if code == "" && a.confirm || code == "not_pending" { // else it comes again, or is asked about later
			g.noteDone(h.key)
		}
	}
}

// refusalOf returns the code with which a place was refused, or "".
func refusalOf(at place, refused []refusedRange) string {
	for _, r := range refused {
		from, err := parsePlace(r.From)
		if err != nil {
			continue
		}
		through := from
		if r.Through != "" {
			if through, err = parsePlace(r.Through); err != nil {
				continue
			}
		}
		if from.partition == at.partition && from.offset <= at.offset && at.offset <= through.offset {
			return r.Code
		}
	}
	return ""
}
