package judge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// A Consumer says who shares the messages. Name and Members are needed.
type Consumer struct {
	Name        string        // new in the broker
	Members     int           // at WebSockets; they create it
	Fetchers    int           // over HTTP
	Exclusive   bool          // the members take over from each other
	Unordered   bool          // ordering keys do not count
	AckWait     time.Duration // (1 s)
	BackoffBase time.Duration // (50 ms)
	BackoffCap  time.Duration // (500 ms)
	MaxDeliver  int           // (4)
}

func (c *Consumer) setDefaults() {
	setDefault(&c.AckWait, time.Second)
	setDefault(&c.BackoffBase, 50*time.Millisecond)
	setDefault(&c.BackoffCap, 500*time.Millisecond)
	setDefault(&c.MaxDeliver, 4)
}

func (c *Consumer) settings() *settingsForm {
	return &settingsForm{
		AckWaitMs: c.AckWait.Milliseconds(), BackoffBaseMs: c.BackoffBase.Milliseconds(),
		BackoffCapMs: c.BackoffCap.Milliseconds(), MaxDeliver: c.MaxDeliver,
		Exclusive: c.Exclusive, Ordered: !c.Unordered,
	}
}

// A Consumer's files have evRefused, evEnd and these.
const (
	evJoin    = "join"    // a session of a member was begun; one fetch is one
	evLeave   = "leave"   // it has ended
	evReceive = "receive" // messages came
	evSettle  = "settle"  // about to be sent: ack, nack, extend or reject
	evSettled = "settled" // the answer to it
	evDead    = "dead"    // dead letters as they are stored
)

// conEvent is a line of a member. What comes between evJoin and evLeave belongs
// to that session.
type conEvent struct {
	Event      string         `json:"e"`
	At         int64          `json:"at"`
	Clean      bool           `json:"clean,omitempty"` // nothing that was sent to the session can have been missed
	Generation uint64         `json:"generation,omitempty"`
	Messages   []conReceipt   `json:"messages,omitempty"`
	Ref        uint32         `json:"ref,omitempty"` // of evSettle and its evSettled, unique in the file
	Kind       string         `json:"kind,omitempty"`
	Confirm    bool           `json:"confirm,omitempty"` // the answer is to come when it is on disk
	Positions  []string       `json:"positions,omitempty"`
	Settled    int            `json:"settled,omitempty"` // -1: counted together with other kinds
	Refused    []refusedRange `json:"refused,omitempty"`
	Code       string         `json:"code,omitempty"`
	Dead       []deadLetter   `json:"dead,omitempty"`
	Complete   bool           `json:"complete,omitempty"`
}

type conReceipt struct {
	receipt
	Attempt int `json:"attempt"`
}

// deadLetter is what a message of the topic of dead letters tells.
type deadLetter struct {
	At       int64  `json:"at"` // stored
	Topic    string `json:"topic"`
	ID       string `json:"id"`
	Position string `json:"position"`
	Attempts string `json:"attempts"`
	Reason   string `json:"reason"`
	Sum      uint32 `json:"sum"`
}

// group is the run of one consumer, and what is known of its messages meanwhile.
type group struct {
	Consumer
	load  *Load
	index int
	log   *journal // the group's own: probes and dead letters
	over  signal   // the members are to end: nothing is left, or in vain

	mu sync.Mutex // guards what follows
	// open are the messages that were answered to their publisher and are
	// neither known as acknowledged nor as dead letters.
	open map[key]place
	sent map[key]place // an acknowledgement was sent, what became of it is not known
	done map[key]bool
	// moved is the last time that anything was delivered or done.
	moved time.Time
	ref   uint32
}

func (r *Load) startConsumers(ctx context.Context) error {
	if len(r.plan.Consumers) == 0 {
		return nil
	}
	var err error
	if r.crashes, err = openJournal(r.plan.Dir, crashFile); err != nil {
		return err
	}
	for i, c := range r.plan.Consumers {
		g := &group{
			Consumer: c, load: r, index: i, over: newSignal(),
			open: map[key]place{}, sent: map[key]place{}, done: map[key]bool{},
		}
		if g.log, err = openJournal(r.plan.Dir, g.file("group")); err != nil {
			return err
		}
		r.groups = append(r.groups, g)
	}
	for _, g := range r.groups {
		if err := g.start(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (r *Load) endConsumers() {
	if r.crashes != nil {
		r.fail(r.crashes.close())
	}
}

const crashFile = "crashes.jsonl"

// Crash is to be called around whatever ends the broker's process, once it is
// dead and before it is started again: what a crash excuses is not held against
// the broker then, and only then.
func (r *Load) Crash(kill func()) {
	kill()
	if r.crashes != nil {
		r.crashes.add(conEvent{Event: "crash", At: r.now()})
		r.fail(r.crashes.flush())
	}
}

func (g *group) file(who string) string { return fmt.Sprintf("con-%02d-%s.jsonl", g.index, who) }

func (g *group) filter() string { return g.load.plan.Prefix + ".>" }

func (g *group) start(ctx context.Context) error {
	for i := range g.Members {
		m, err := newMember(g, i)
		if err != nil {
			return err
		}
		g.load.subscribers.Go(func() { g.load.fail(m.run(ctx)) })
	}
	for i := range g.Fetchers {
		f, err := newFetcher(g, i)
		if err != nil {
			return err
		}
		g.load.subscribers.Go(func() { g.load.fail(f.run(ctx)) })
	}
	g.load.subscribers.Go(func() { g.load.fail(g.run(ctx)) })
	return nil
}

func (g *group) noteAnswer(k key, at place) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.done[k] {
		g.open[k] = at
	}
}

// noteSent: an acknowledgement is about to be sent.
func (g *group) noteSent(k key, at place) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.done[k] {
		g.sent[k] = at
	}
}

func (g *group) noteDone(k key) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.done[k] = true
	delete(g.open, k)
	delete(g.sent, k)
	g.moved = time.Now()
}

func (g *group) noteMoved() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.moved = time.Now()
}

func (g *group) left() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.open)
}

func (g *group) inVain() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Since(g.moved) > g.load.plan.Tuning.Patience
}

// run waits for the publishers, and then until every message is acknowledged or
// a dead letter. After that the members stay for a while: what was acknowledged
// might come again.
func (g *group) run(ctx context.Context) error {
	select {
	case <-g.load.final.c:
	case <-ctx.Done():
	}
	g.noteMoved()
	cursor, n := "earliest", 0
	for ctx.Err() == nil && !g.inVain() {
		var err error
		if cursor, err = g.readDead(ctx, cursor, n); err == nil {
			err = g.probe(ctx, n)
		}
		n++
		if refused, ok := errors.AsType[*errAnswer](err); ok && !retryableStatus(refused.status) {
			g.log.add(conEvent{Event: evRefused, At: g.load.now(), Code: refused.Error()})
		}
		if err == nil && g.left() == 0 {
			break
		}
		rest(ctx, 100*time.Millisecond)
	}
	complete := g.left() == 0
	if complete {
		rest(ctx, g.AckWait+g.BackoffCap+100*time.Millisecond)
		_, err := g.readDead(ctx, cursor, n) // a dead letter that came too late
		complete = err == nil
	}
	g.over.fire()
	if ctx.Err() == nil {
		g.log.add(conEvent{Event: evEnd, At: g.load.now(), Complete: complete})
	}
	return g.log.close()
}

// readDead writes down the dead letters after the cursor.
func (g *group) readDead(ctx context.Context, cursor string, n int) (string, error) {
	for {
		target, err := endpoint(g.load.url(n), "http", "/v1/topics/$dead."+g.Name+"/messages")
		if err != nil {
			return cursor, err
		}
		var page struct {
			Messages []message `json:"messages"`
			Next     string    `json:"next"`
		}
		if err := g.load.call(ctx, http.MethodGet, target+"?limit=1000&from="+cursor, nil, &page); err != nil {
			return cursor, err
		}
		if len(page.Messages) == 0 {
			return cursor, nil
		}
		event := conEvent{Event: evDead, At: g.load.now()}
		for i := range page.Messages {
			event.Dead = append(event.Dead, deadLetterOf(&page.Messages[i]))
		}
		g.log.add(event)
		for _, d := range event.Dead {
			g.noteDone(key{d.Topic, d.ID})
		}
		cursor = page.Next
	}
}

func deadLetterOf(m *message) deadLetter {
	d := deadLetter{
		Topic: m.Headers["tidewire-dead-topic"], ID: m.Headers["tidewire-dead-id"],
		Position: m.Headers["tidewire-dead-position"], Attempts: m.Headers["tidewire-dead-attempts"],
		Reason: m.Headers["tidewire-dead-reason"], Sum: m.sum(),
	}
	if at, err := time.Parse(time.RFC3339Nano, m.Time); err == nil { // else it is 0, which the verdict tells
		d.At = at.UnixMicro()
	}
	return d
}

const probeMessages = 500

// probe asks for acknowledgements that were sent and never answered, by sending
// them once more: they are done then, whatever was the case before.
func (g *group) probe(ctx context.Context, n int) error {
	g.mu.Lock()
	var some []held
	for k, at := range g.sent {
		if len(some) < probeMessages {
			some = append(some, held{key: k, position: at.String(), at: at})
		}
	}
	g.mu.Unlock()
	if len(some) == 0 {
		return nil
	}
	g.ref += 4
	return g.settleHTTP(ctx, g.log, n, httpSettle{ref: g.ref, ack: some})
}

// errAnswer is a status of HTTP that is no success.
type errAnswer struct {
	status int
	code   string
}

func (e *errAnswer) Error() string { return fmt.Sprintf("status %d, %s", e.status, e.code) }

// call sends a request with a JSON body, if there is one, and reads the answer.
func (r *Load) call(ctx context.Context, method, target string, body, answer any) error {
	text, err := marshalBody(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, target, text)
	if err != nil {
		return err
	}
	req.Header = bearer(r.plan.Tuning.Token)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var problem struct {
			Code string `json:"code"`
		}
		_ = json.NewDecoder(resp.Body).Decode(&problem) // without a code the status tells
		return &errAnswer{resp.StatusCode, problem.Code}
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return errors.Join(errors.New("the answer cannot be read"), err)
	}
	return nil
}
