package judge

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Wrongs of consumers.
const (
	forgetMessage  wrong = "never deliver a message to a consumer"
	forgetNacked   wrong = "forget a message that failed"
	redeliverAcked wrong = "deliver again after a confirmed acknowledgement"
	twoOfAKey      wrong = "deliver two of one key at once"
	keyBackwards   wrong = "deliver those of one key in another order"
	forgetDead     wrong = "forget a dead letter"
	buryTooEarly   wrong = "make a dead letter of what has deliveries left"
	buryInSilence  wrong = "make a dead letter without a reason"
	buryTwice      wrong = "make two dead letters of one message"
	countTwice     wrong = "deliver two attempts of one number"
	countAhead     wrong = "leave a number out"
	inventWork     wrong = "deliver to a consumer what nobody sent"
	neverFence     wrong = "let an overtaken member go on"
	refuseAck      wrong = "refuse an acknowledgement for good"
)

// fakeConsumer is a consumer of the fake. fake.mu guards it.
type fakeConsumer struct {
	*fake
	name       string
	settings   settingsForm
	cursor     int // everything up to here was taken from the log
	generation uint64
	pending    map[int]*fakeEntry // by offset
	dead       []message
	members    []*fakeMember
}

type fakeEntry struct {
	message
	offset   int
	inFlight bool
	holder   *fakeMember
	due      time.Time // of one in flight: when it is to be given to another
	// postponed: see keyBackwards.
	postponed bool
}

type fakeMember struct {
	conn       *fakeConn
	sub        uint32
	generation uint64
	out        chan map[string]any
}

const fakeInFlight = 100

func (f *fake) serveConsumers(mux *http.ServeMux) {
	f.consumers = map[string]*fakeConsumer{}
	mux.HandleFunc("POST /v1/consumers/{name}/fetch", f.serveFetch)
	mux.HandleFunc("POST /v1/consumers/{name}/ack", f.serveAck)
	mux.HandleFunc("GET /v1/topics/{topic}/messages", f.serveDead)
}

// join makes a connection a member. Its deliveries are written by a goroutine of
// its own.
func (c *fakeConn) join(s subscribeForm) {
	c.fake.mu.Lock()
	defer c.fake.mu.Unlock()
	q := c.consumers[s.Consumer]
	if q == nil {
		q = &fakeConsumer{fake: c.fake, name: s.Consumer, settings: *s.Settings, generation: 1, pending: map[int]*fakeEntry{}}
		c.consumers[s.Consumer] = q
		go q.keepTime()
	}
	if q.settings.Exclusive {
		q.generation++
		for _, old := range slices.Clone(q.members) {
			if q.willLocked(neverFence) {
				continue
			}
			old.out <- map[string]any{"type": "error", "sub": old.sub, "code": "taken_over", "message": "taken over"}
			q.leaveLocked(old)
		}
	}
	m := &fakeMember{conn: c, sub: s.Sub, generation: q.generation, out: make(chan map[string]any, 10_000)}
	q.members = append(q.members, m)
	m.out <- map[string]any{"type": "subscribed", "sub": s.Sub, "generation": q.generation}
	ctx, cancel := context.WithCancel(c.ctx)
	c.mu.Lock()
	c.subs[s.Sub] = func() {
		c.fake.mu.Lock()
		defer c.fake.mu.Unlock()
		q.leaveLocked(m)
		m.out <- map[string]any{"type": "unsubscribed", "sub": s.Sub}
	}
	c.member, c.consumer = m, q
	c.mu.Unlock()
	context.AfterFunc(ctx, func() {
		c.fake.mu.Lock()
		defer c.fake.mu.Unlock()
		q.leaveLocked(m)
	})
	go func() {
		defer cancel()
		for {
			select {
			case form := <-m.out:
				c.write(form)
			case <-ctx.Done():
				return
			}
		}
	}()
	q.pumpLocked()
}

// leaveLocked gives what the member has to the others.
func (q *fakeConsumer) leaveLocked(m *fakeMember) {
	q.members = slices.DeleteFunc(q.members, func(other *fakeMember) bool { return other == m })
	for _, e := range q.pending {
		if e.holder == m && e.inFlight {
			q.failLocked(e, "the member left", 0)
		}
	}
}

// keepTime looks every few milliseconds for what is due, while the fake exists.
func (q *fakeConsumer) keepTime() {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			q.mu.Lock()
			q.pumpLocked()
			q.mu.Unlock()
		case <-q.ended:
			return
		}
	}
}

// pumpLocked gives what is ready to the members in turn.
func (q *fakeConsumer) pumpLocked() {
	for n := 0; len(q.members) > 0; n++ {
		m := q.members[n%len(q.members)]
		messages := q.readyLocked(m, 5)
		if len(messages) == 0 {
			return
		}
		m.out <- map[string]any{"type": "deliver", "sub": m.sub, "messages": messages, "generation": q.generation}
	}
}

// readyLocked takes at most n messages that are to be delivered now.
func (q *fakeConsumer) readyLocked(m *fakeMember, n int) []message {
	q.fillLocked()
	now, inFlight := time.Now(), 0
	busy := map[string]bool{}
	var out []message
	for _, offset := range slices.Sorted(maps.Keys(q.pending)) {
		e := q.pending[offset]
		if e.inFlight && now.After(e.due) {
			q.failLocked(e, "no answer", -1)
			if q.pending[offset] == nil {
				continue
			}
		}
		taken := e.Key != "" && q.settings.Ordered && busy[e.Key]
		if e.inFlight {
			inFlight++
		}
		room := len(out) < n && inFlight < fakeInFlight
		if taken && e.Attempt == 0 && room && len(out) > 0 && out[len(out)-1].Key == e.Key && q.willLocked(twoOfAKey) {
			taken = false
		}
		ready := !taken && !e.inFlight && !now.Before(e.due)
		if ready && e.Key != "" && e.Attempt == 0 && q.rivalLocked(e) && q.willLocked(keyBackwards) {
			e.due, e.postponed = now.Add(500*time.Millisecond), true
			ready = false
		}
		busy[e.Key] = busy[e.Key] || ready || !e.postponed
		if !ready || !room {
			continue
		}
		out = append(out, q.deliverLocked(e, m))
		inFlight++
	}
	if len(out) > 0 && q.willLocked(inventWork) {
		text := "hello"
		out = append(out, message{Topic: "judge.0.t0", ID: "nobody", Position: q.position(1 << 40), Payload: &text, Attempt: 1, Generation: q.generation})
	}
	return out
}

// rivalLocked: another message of the key waits behind this one.
func (q *fakeConsumer) rivalLocked(e *fakeEntry) bool {
	for _, other := range q.pending {
		if other.Key == e.Key && other.offset > e.offset {
			return true
		}
	}
	return false
}

func (q *fakeConsumer) deliverLocked(e *fakeEntry, m *fakeMember) message {
	if e.Attempt == 0 || !q.willLocked(countTwice) {
		e.Attempt++
	}
	if q.willLocked(countAhead) {
		e.Attempt++
	}
	e.inFlight, e.holder = true, m
	e.due = time.Now().Add(time.Duration(q.settings.AckWaitMs) * time.Millisecond)
	out := e.message
	out.Generation = q.generation
	if m != nil {
		out.Generation = m.generation
	}
	return out
}

func (q *fakeConsumer) fillLocked() {
	for q.cursor < len(q.log) && len(q.pending) < 500 {
		q.cursor++
		m := q.log[q.cursor-1]
		if m.Topic == "" || q.willLocked(forgetMessage) {
			continue
		}
		m.Position = q.position(q.cursor)
		q.pending[q.cursor] = &fakeEntry{message: m, offset: q.cursor}
	}
}

// failLocked is a nack; a delay below 0 is the backoff.
func (q *fakeConsumer) failLocked(e *fakeEntry, reason string, delay time.Duration) {
	switch {
	case e.Attempt >= q.settings.MaxDeliver || q.willLocked(buryTooEarly):
		q.buryLocked(e, reason)
	case q.willLocked(forgetNacked):
		delete(q.pending, e.offset)
	default:
		if delay < 0 {
			delay = time.Duration(q.settings.BackoffBaseMs) * time.Millisecond
		}
		e.inFlight, e.holder, e.due = false, nil, time.Now().Add(delay)
	}
}

func (q *fakeConsumer) buryLocked(e *fakeEntry, reason string) {
	delete(q.pending, e.offset)
	if q.willLocked(buryInSilence) {
		reason = ""
	}
	d := e.message
	d.Time = time.Now().UTC().Format(time.RFC3339Nano)
	d.Headers = map[string]string{
		"tidewire-dead-topic": e.Topic, "tidewire-dead-id": e.ID, "tidewire-dead-position": e.Position,
		"tidewire-dead-attempts": strconv.Itoa(e.Attempt), "tidewire-dead-reason": reason,
	}
	if reason != rejectReason || !q.willLocked(forgetDead) {
		q.dead = append(q.dead, d)
	}
	if q.willLocked(buryTwice) {
		q.dead = append(q.dead, d)
	}
}

// settleLocked returns the code with which a message is refused, or "".
func (q *fakeConsumer) settleLocked(kind, position string, generation uint64, form settleForm) string {
	at, err := parsePlace(position)
	e := q.pending[int(at.offset)]
	switch {
	case err != nil || int(at.offset) > q.cursor:
		return "never_delivered"
	case generation != 0 && generation != q.generation && !q.plannedLocked(neverFence):
		return "fenced"
	case e == nil:
		return "not_pending"
	case e.Attempt == 0:
		return "never_delivered"
	}
	switch kind {
	case kindAck:
		if form.Confirm && q.willLocked(redeliverAcked) {
			e.inFlight, e.due = false, time.Now().Add(lateReceipt+time.Second)
		} else {
			delete(q.pending, e.offset)
		}
	case kindReject:
		q.buryLocked(e, form.Reason)
	case kindExtend:
		e.due = time.Now().Add(time.Duration(form.ByMs) * time.Millisecond)
	case kindNack:
		if !e.inFlight {
			return ""
		}
		delay := time.Duration(-1)
		if form.DelayMs != nil {
			delay = time.Duration(*form.DelayMs) * time.Millisecond
		}
		q.failLocked(e, "the member says so", delay)
	}
	return ""
}

func (c *fakeConn) settle(form settleForm) {
	c.mu.Lock()
	m, q := c.member, c.consumer
	c.mu.Unlock()
	c.fake.mu.Lock()
	defer c.fake.mu.Unlock()
	for _, r := range form.Ranges {
		form.Positions = append(form.Positions, r.From)
	}
	answer := map[string]any{"type": "acked", "ref": form.Ref, "sub": form.Sub}
	if form.Type == kindAck && q.willLocked(refuseAck) {
		answer["error"] = map[string]any{"code": "bad_request"}
		m.out <- answer
		return
	}
	var refused []map[string]any
	settled := 0
	for _, p := range form.Positions {
		if code := q.settleLocked(form.Type, p, form.Generation, form); code != "" {
			refused = append(refused, map[string]any{"from": p, "through": p, "code": code})
		} else {
			settled++
		}
	}
	if form.Confirm || len(refused) > 0 {
		answer["settled"], answer["refused"] = settled, refused
		m.out <- answer
	}
	q.pumpLocked()
}

func (f *fake) consumer(w http.ResponseWriter, r *http.Request) *fakeConsumer {
	q := f.consumers[r.PathValue("name")]
	if q == nil {
		w.WriteHeader(http.StatusNotFound)
		_ = json.NewEncoder(w).Encode(map[string]any{"code": "unknown_consumer"})
	}
	return q
}

func (f *fake) serveFetch(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q := f.consumer(w, r)
	if q == nil {
		return
	}
	most, _ := strconv.Atoi(r.URL.Query().Get("max"))
	messages := q.readyLocked(nil, most)
	if len(messages) == 0 {
		life := f.life
		f.mu.Unlock()
		rest(life, 50*time.Millisecond)
		f.mu.Lock()
		if life.Err() != nil {
			panic(http.ErrAbortHandler)
		}
		messages = q.readyLocked(nil, most)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"messages": messages, "generation": q.generation})
}

func (f *fake) serveAck(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Generation uint64            `json:"generation"`
		Ack        []json.RawMessage `json:"ack"`
		Nack       []json.RawMessage `json:"nack"`
		Extend     []json.RawMessage `json:"extend"`
		Reject     []json.RawMessage `json:"reject"`
	}
	_ = json.NewDecoder(r.Body).Decode(&body)
	f.mu.Lock()
	defer f.mu.Unlock()
	q := f.consumer(w, r)
	if q == nil {
		return
	}
	settled, refused := 0, []map[string]any{}
	for kind, all := range map[string][]json.RawMessage{kindAck: body.Ack, kindNack: body.Nack, kindExtend: body.Extend, kindReject: body.Reject} {
		for _, text := range all {
			var p positionForm
			if json.Unmarshal(text, &p.Position) != nil {
				_ = json.Unmarshal(text, &p)
			}
			form := settleForm{Reason: p.Reason, Confirm: true, ByMs: 1000}
			if code := q.settleLocked(kind, p.Position, body.Generation, form); code != "" {
				refused = append(refused, map[string]any{"position": p.Position, "code": code})
			} else {
				settled++
			}
		}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"settled": settled, "refused": refused})
}

// serveDead is history, of the topics of dead letters alone.
func (f *fake) serveDead(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := []message{}
	for _, q := range f.consumers {
		if r.PathValue("topic") == "$dead."+q.name {
			all = q.dead
		}
	}
	after := 0
	if at, err := parsePlace(cmp.Or(r.URL.Query().Get("from"), "earliest")); err == nil {
		after = int(at.offset)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"messages": all[after:], "next": fmt.Sprintf("p%s-%d", fakeTerm, len(all))})
}
