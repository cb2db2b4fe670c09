package judge

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// fake is a broker in memory that does what it is told to do wrong. It shares
// no code with the real one.
type fake struct {
	server *httptest.Server

	mu     sync.Mutex // guards what follows
	log    []message  // offset n is at n-1; an empty topic is a hole
	byKey  map[key]int
	grown  chan struct{} // closed and replaced when the log grows
	kill   context.CancelFunc
	life   context.Context // of all connections
	wrongs map[wrong]int   // how many chances to let pass before doing it once
	done   map[wrong]bool

	consumers map[string]*fakeConsumer
	ended     chan struct{} // closed at the end of the test
}

// wrong is something that a broker must not do.
type wrong string

const (
	dropDelivered    wrong = "drop a delivered message"
	dropFrame        wrong = "drop a whole frame" // which the client notices
	doubleDelivered  wrong = "deliver twice"
	doubleStored     wrong = "store twice"
	forgetID         wrong = "store a repeat as new"
	swallow          wrong = "answer and not store"
	swapDelivered    wrong = "deliver in another order"
	swapStored       wrong = "store in another order"
	falseGap         wrong = "announce a gap that is none"
	falseRetention   wrong = "announce a retention that has not happened"
	wrongDuplicate   wrong = "answer a repeat with another position"
	falseDuplicate   wrong = "answer a first attempt as a repeat"
	falseConflict    wrong = "answer a repeat with id_conflict"
	damagePayload    wrong = "change a payload"
	invent           wrong = "deliver what nobody sent"
	neverAnswer      wrong = "never answer"
	neverCaughtUp    wrong = "never say caught_up"
	skipOnResume     wrong = "skip on resume without a word"
	refuseForGood    wrong = "refuse a good message"
	refuseForNow     wrong = "refuse with storage_full"          // which is allowed
	loseAnswerOnKill wrong = "store, then die without answering" // which is allowed
	closeForGood     wrong = "close with a code that says stay away"
)

const fakeTerm = "1z141z3"

func newFake(t *testing.T) *fake {
	f := &fake{byKey: map[key]int{}, grown: make(chan struct{}), wrongs: map[wrong]int{}, done: map[wrong]bool{}, ended: make(chan struct{})}
	f.life, f.kill = context.WithCancel(context.Background())
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/ws", f.serveWebSocket)
	mux.HandleFunc("POST /v1/topics/{topic}/messages", f.servePost)
	f.serveConsumers(mux)
	f.server = httptest.NewServer(mux)
	t.Cleanup(func() {
		close(f.ended)
		f.dieNow()
		f.server.Close()
	})
	return f
}

// dieNow drops every connection. What is stored stays, as after a kill -9.
func (f *fake) dieNow() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dieLocked()
}

func (f *fake) dieLocked() {
	f.kill()
	f.life, f.kill = context.WithCancel(context.Background())
}

// willLocked reports whether the wrong is to be done now.
func (f *fake) willLocked(w wrong) bool {
	left, planned := f.wrongs[w]
	if !planned || f.done[w] {
		return false
	}
	f.wrongs[w] = left - 1
	f.done[w] = left <= 0 && w != skipOnResume && w != neverFence // which a cut may undo
	return left <= 0
}

// plannedLocked reports whether the wrong is one that the fake does.
func (f *fake) plannedLocked(w wrong) bool {
	_, planned := f.wrongs[w]
	return planned
}

// chancesLeft reports whether the wrong has not been done yet.
func (f *fake) chancesLeft(w wrong) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wrongs[w] >= 0
}

func (f *fake) position(offset int) string { return fmt.Sprintf("p%s-%d", fakeTerm, offset) }

func (f *fake) appendLocked(m message) int {
	f.log = append(f.log, m)
	close(f.grown)
	f.grown = make(chan struct{})
	return len(f.log)
}

// publish stores a message and returns the answer; ok is false if there is to
// be none.
func (f *fake) publish(m message) (r result, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.willLocked(refuseForNow) {
		return result{Error: &failure{Code: "storage_full", Retryable: true}}, true
	}
	if f.willLocked(refuseForGood) {
		return result{Error: &failure{Code: "invalid_topic"}}, true
	}
	k := key{m.Topic, m.ID}
	if first, repeat := f.byKey[k]; repeat && !f.willLocked(forgetID) {
		return f.repeatLocked(first), true
	}
	if f.willLocked(swallow) {
		f.appendLocked(message{})
		f.byKey[k] = len(f.log)
		return result{Position: f.position(len(f.log))}, true
	}
	offset := f.appendLocked(m)
	f.byKey[k] = offset
	if f.willLocked(doubleStored) {
		f.appendLocked(m)
	}
	if f.willLocked(loseAnswerOnKill) {
		f.dieLocked()
		return result{}, false
	}
	return result{Position: f.position(offset), Duplicate: f.willLocked(falseDuplicate)}, !f.willLocked(neverAnswer)
}

func (f *fake) repeatLocked(first int) result {
	switch {
	case f.willLocked(falseConflict):
		return result{Error: &failure{Code: "id_conflict"}}
	case f.willLocked(wrongDuplicate):
		return result{Position: f.position(first + 1), Duplicate: true}
	default:
		return result{Position: f.position(first), Duplicate: true}
	}
}

func (f *fake) will(w wrong) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.willLocked(w)
}

func (f *fake) servePost(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	m := message{Topic: r.PathValue("topic"), ID: r.Header.Get("Idempotency-Key"), Key: r.Header.Get("Tidewire-Key")}
	m.setPayload(body)
	answer, ok := f.publish(m)
	switch {
	case !ok:
		panic(http.ErrAbortHandler)
	case answer.Error != nil && answer.Error.Retryable:
		w.WriteHeader(http.StatusServiceUnavailable)
	case answer.Error != nil:
		w.WriteHeader(http.StatusConflict)
		_ = json.NewEncoder(w).Encode(map[string]any{"code": answer.Error.Code})
	default:
		_ = json.NewEncoder(w).Encode(map[string]any{
			"id": m.ID, "topic": m.Topic, "position": answer.Position, "duplicate": answer.Duplicate, "stored": true,
		})
	}
}

func (m *message) setPayload(b []byte) {
	text := string(b)
	if strings.ToValidUTF8(text, "") == text {
		m.Payload = &text
	} else {
		m.PayloadBase64 = b
	}
}

// fakeConn is one connection of the fake.
type fakeConn struct {
	*fake
	ws      *websocket.Conn
	ctx     context.Context // of the connection
	writing sync.Mutex      // held for a whole write; guards broken
	// broken is set by the first write that fails. Nothing may follow it: a
	// frame after one that was lost would be a hole that the fake did not plan.
	broken bool
	mu     sync.Mutex // guards subs
	// subs by number; the deliverer of each ends when its context does.
	subs     map[uint32]context.CancelFunc
	member   *fakeMember
	consumer *fakeConsumer
	// refusing is set after a retryable refusal, until resume.
	refusing bool
}

func (f *fake) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{subprotocol}})
	if err != nil {
		return
	}
	defer func() { _ = ws.CloseNow() }()
	f.mu.Lock()
	life := f.life
	f.mu.Unlock()
	ctx, cancel := context.WithCancel(life)
	defer cancel()
	if f.will(closeForGood) {
		_ = ws.Close(3501, "")
		return
	}
	c := &fakeConn{fake: f, ws: ws, ctx: ctx, subs: map[uint32]context.CancelFunc{}}
	for {
		_, text, err := ws.Read(ctx)
		if err != nil {
			return
		}
		if !c.take(text) {
			return
		}
	}
}

func (c *fakeConn) write(form map[string]any) {
	text, _ := json.Marshal(form)
	c.writing.Lock()
	defer c.writing.Unlock()
	if !c.broken {
		c.broken = c.ws.Write(c.ctx, websocket.MessageText, text) != nil
	}
}

func (c *fakeConn) take(text []byte) bool {
	var form struct {
		Type          string          `json:"type"`
		Ref           uint32          `json:"ref"`
		Sub           uint32          `json:"sub"`
		Filter        string          `json:"filter"`
		From          string          `json:"from"`
		Subscriptions []subscribeForm `json:"subscriptions"`
		Messages      []message       `json:"messages"`
		Resume        bool            `json:"resume"`
	}
	if json.Unmarshal(text, &form) != nil {
		return false
	}
	switch form.Type {
	case "connect":
		c.write(map[string]any{"type": "welcome", "ref": form.Ref, "ping_interval_ms": 20000, "ping_timeout_ms": 10000})
		c.write(map[string]any{"type": "ping", "seq": 1})
		for _, s := range form.Subscriptions {
			c.subscribe(s)
		}
	case "subscribe":
		c.subscribe(subscribeForm{Sub: form.Sub, Filter: form.Filter, From: form.From})
	case kindAck, kindNack, kindExtend, kindReject:
		var form settleForm
		if json.Unmarshal(text, &form) != nil {
			return false
		}
		c.settle(form)
	case "unsubscribe":
		c.mu.Lock()
		end := c.subs[form.Sub]
		c.mu.Unlock()
		end()
	case "publish":
		return c.publishAll(form.Ref, form.Messages, form.Resume)
	}
	return true
}

func (c *fakeConn) publishAll(ref uint32, messages []message, resume bool) bool {
	order := make([]int, len(messages))
	for i := range order {
		order[i] = i
	}
	if len(order) > 1 && c.will(swapStored) {
		order[0], order[1] = 1, 0
	}
	c.refusing = c.refusing && !resume
	var results []map[string]any
	for _, i := range order {
		r, ok := result{Error: &failure{Code: "out_of_order", Retryable: true}}, true
		if !c.refusing {
			r, ok = c.publish(messages[i])
		}
		if !ok {
			continue
		}
		form := map[string]any{"ref": ref + uint32(i), "position": r.Position, "duplicate": r.Duplicate}
		if r.Error != nil {
			c.refusing = c.refusing || r.Error.Retryable
			form = map[string]any{"ref": ref + uint32(i), "error": map[string]any{"code": r.Error.Code, "retryable": r.Error.Retryable}}
		}
		results = append(results, form)
	}
	c.write(map[string]any{"type": "published", "results": results})
	return true
}

func (c *fakeConn) subscribe(s subscribeForm) {
	if s.Consumer != "" {
		c.join(s)
		return
	}
	c.fake.mu.Lock()
	head := len(c.log)
	start := head
	resumed := false
	switch at, err := parsePlace(s.From); {
	case err == nil:
		start, resumed = int(at.offset), true
		if start < head && s.Filter == "judge.>" && c.willLocked(skipOnResume) {
			start++
		}
	case s.From != "new" && s.From != "":
		start = 0 // close enough to last:N and durations: everything
	}
	c.fake.mu.Unlock()
	c.write(map[string]any{
		"type": "subscribed", "sub": s.Sub, "position": c.position(start), "resumed": resumed,
		"cursors": []map[string]any{{"offset": start}},
	})
	ctx, cancel := context.WithCancel(c.ctx)
	c.mu.Lock()
	c.subs[s.Sub] = cancel
	c.mu.Unlock()
	go c.deliver(ctx, s, start, head)
}

// deliver follows the log for one subscription.
func (c *fakeConn) deliver(ctx context.Context, s subscribeForm, cursor, head int) {
	caughtUp := false
	for ctx.Err() == nil {
		if !caughtUp && cursor >= head {
			if caughtUp = true; !c.will(neverCaughtUp) {
				c.write(map[string]any{"type": "caught_up", "sub": s.Sub})
			}
		}
		c.fake.mu.Lock()
		grown := c.grown
		through := min(len(c.log), cursor+20)
		chunk := slices.Clone(c.log[cursor:through])
		c.fake.mu.Unlock()
		if len(chunk) == 0 {
			select {
			case <-grown:
				continue
			case <-ctx.Done():
				return
			}
		}
		cursor = c.deliverChunk(ctx, s, chunk, cursor, through)
	}
}

func (c *fakeConn) deliverChunk(_ context.Context, s subscribeForm, chunk []message, after, through int) int {
	var matched []message
	for i, m := range chunk {
		if m.Topic != "" && matches(s.Filter, m.Topic) {
			m.Position = c.position(after + i + 1)
			matched = append(matched, m)
		}
	}
	if len(matched) == 0 {
		c.write(map[string]any{"type": "progress", "subs": []uint32{s.Sub}, "term": fakeTerm, "through": through, "position": c.position(through)})
		return through
	}
	c.fake.mu.Lock()
	matched, gone, again := c.spoilLocked(matched)
	// Only a frame that another one will follow: nothing else shows the hole.
	lost := s.Filter == "judge.>" && through < len(c.log) && c.willLocked(dropFrame)
	c.fake.mu.Unlock()
	if gone != "" {
		c.write(map[string]any{
			"type": "gap", "sub": s.Sub, "reason": gone, "term": fakeTerm, "after": after,
			"through": through, "position": c.position(through), "offset": through,
		})
		return through
	}
	frame := map[string]any{
		"type": "deliver", "sub": s.Sub, "after": after, "through": through,
		"position": c.position(through), "messages": matched,
	}
	if !lost {
		c.write(frame)
	}
	if again {
		c.write(frame)
	}
	return through
}

// spoilLocked does to the messages of a frame what is planned.
func (c *fakeConn) spoilLocked(matched []message) (out []message, gone string, again bool) {
	if len(matched) > 1 && c.willLocked(swapDelivered) {
		matched[0], matched[1] = matched[1], matched[0]
	}
	if c.willLocked(dropDelivered) {
		matched = matched[1:]
	}
	if len(matched) > 0 && c.willLocked(damagePayload) {
		matched[0].setPayload([]byte("something else"))
	}
	if c.willLocked(invent) {
		text := "hello"
		matched = append(matched, message{Topic: "judge.0.t0", ID: "nobody", Position: c.position(len(c.log)), Payload: &text})
	}
	switch {
	case c.willLocked(falseGap):
		gone = "rolled_back"
	case c.willLocked(falseRetention):
		gone = "retention"
	}
	return matched, gone, c.willLocked(doubleDelivered)
}

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}
