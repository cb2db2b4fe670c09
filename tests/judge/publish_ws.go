package judge

import (
	"context"
	"time"
)

const viaWebSocket = "ws"

// maxFrameMessages keeps frames of many messages far below the frame limit.
const maxFrameMessages = 8

// turn is one turn of a publisher over its WebSocket.
type turn struct {
	p        *publisher
	conn     *conn
	unsent   []*outgoing
	inFlight map[uint32]*outgoing
	sizes    map[uint32]int // messages of a frame, by its first ref
	window   int
	halted   bool // send no more in this turn: refused, or the broker goes away
	leave    bool // drop the connection at the end of the turn
	wait     time.Duration
}

// overWebSocket sends messages that are not settled, in order, and waits for
// their answers. It reports whether all went well; if not it has waited a
// while, and the caller comes again with what is left.
func (p *publisher) overWebSocket(ctx context.Context, messages []*outgoing) bool {
	if err := p.connect(ctx); err != nil {
		p.stumble(ctx, err)
		return false
	}
	t := &turn{
		p: p, conn: p.conn, unsent: messages,
		inFlight: map[uint32]*outgoing{}, sizes: map[uint32]int{},
		window: p.load.plan.Tuning.Window,
	}
	if limit := p.conn.welcome.Limits.InFlight; limit > 0 {
		t.window = min(t.window, limit)
	}
	err := t.run(ctx)
	_ = p.log.flush() // its error is told at the end
	if err != nil || t.leave {
		p.conn.close()
		p.conn = nil
	}
	if err != nil {
		p.stumble(ctx, err)
		return false
	}
	if t.halted {
		rest(ctx, max(t.wait, p.load.plan.Tuning.ReconnectMin))
	}
	return !t.halted
}

// toldToGo remembers when the broker wants the publisher back.
func (p *publisher) toldToGo(f *goAway) {
	p.notBefore = time.Now().Add(time.Duration(f.ReconnectAfterMs) * time.Millisecond)
}

// glance leaves the idle connection if the broker said so, or has closed it.
func (p *publisher) glance() {
	if p.conn == nil {
		return
	}
	select {
	case f, ok := <-p.conn.frames:
		told, isGoAway := f.(*goAway)
		if isGoAway {
			p.toldToGo(told)
		}
		if isGoAway || !ok {
			p.conn.close()
			p.conn = nil
		}
	default:
	}
}

func (p *publisher) connect(ctx context.Context) error {
	if p.conn != nil {
		return nil
	}
	rest(ctx, time.Until(p.notBefore))
	c, err := dial(ctx, caller{base: p.load.url(p.opened), token: p.load.plan.Tuning.Token}, nil)
	p.opened++
	if err != nil {
		return err
	}
	if p.opened > p.index+1 {
		p.log.add(pubEvent{Event: evReconnect, At: p.load.now()})
	}
	p.conn, p.resume = c, false
	return nil
}

func (t *turn) run(ctx context.Context) error {
	var pace <-chan time.Time
	for {
		if pace == nil && t.maySend() {
			pace = time.After(t.p.load.pace(1))
		}
		if pace == nil && len(t.inFlight) == 0 {
			return nil
		}
		patience := time.NewTimer(t.p.load.plan.Tuning.Patience)
		select {
		case <-pace:
			pace = nil
			if !t.maySend() {
				break
			}
			if err := t.send(ctx); err != nil {
				return err
			}
		case f, ok := <-t.conn.frames:
			if !ok {
				return t.conn.err
			}
			t.take(f)
		case <-patience.C:
			return context.DeadlineExceeded
		case <-ctx.Done():
			return ctx.Err()
		}
		patience.Stop()
	}
}

func (t *turn) maySend() bool {
	if t.halted || len(t.unsent) == 0 || len(t.inFlight) >= t.window {
		return false
	}
	return t.unsent[0].tries > 0 || !t.p.load.stop.fired()
}

// send sends the next one or few messages in one frame.
func (t *turn) send(ctx context.Context) error {
	p := t.p
	n := 1 + p.rng.IntN(min(maxFrameMessages, len(t.unsent), t.window-len(t.inFlight)))
	if limit := t.conn.welcome.Limits.PublishMessages; limit > 0 {
		n = min(n, limit)
	}
	batch := t.unsent[:n]
	t.unsent = t.unsent[n:]
	frame := publishForm{Type: "publish", Ref: p.ref + 1, Resume: p.resume}
	t.sizes[frame.Ref] = n
	for _, m := range batch {
		p.ref++
		t.inFlight[p.ref] = m
		if m.tries > 0 {
			frame.RepeatAgeMs = max(frame.RepeatAgeMs, time.Since(m.first).Milliseconds(), 1)
		}
		p.intend(m, viaWebSocket)
		frame.Messages = append(frame.Messages, m.form())
	}
	p.load.pace(n - 1)
	if err := p.log.flush(); err != nil {
		return err
	}
	p.resume = false
	return t.conn.send(ctx, frame)
}

func (m *outgoing) form() message {
	form := message{Topic: m.topic, ID: m.id, Key: m.key}
	if m.binary {
		form.PayloadBase64 = m.payload
	} else {
		text := string(m.payload)
		form.Payload = &text
	}
	return form
}

func (t *turn) take(f any) {
	switch f := f.(type) {
	case *published:
		for i := range f.Results {
			t.settle(f.Results[i].Ref, &f.Results[i])
		}
		_ = t.p.log.flush() // its error is told at the end
	case *failure: // a whole frame, or the reason of the close that follows
		first := f.Ref
		for i := range t.sizes[first] {
			t.settle(first+uint32(i), &result{Error: f})
		}
	case *goAway:
		t.halted, t.leave = true, true
		t.p.toldToGo(f)
	}
}

// settle takes the answer to one message. After a refusal that may be repeated
// nothing more is sent in this turn; the next one begins with the refused
// message and says resume, as the protocol wants it.
func (t *turn) settle(ref uint32, r *result) {
	m := t.inFlight[ref]
	if m == nil {
		return
	}
	delete(t.inFlight, ref)
	delete(t.sizes, ref)
	switch {
	case r.Error == nil:
		t.p.answer(m, viaWebSocket, r.Position, r.Duplicate)
	case r.Error.Retryable:
		t.halted, t.p.resume = true, true
		t.wait = max(t.wait, time.Duration(r.Error.RetryAfterMs)*time.Millisecond)
	default:
		t.p.refused(m, viaWebSocket, r.Error.Code)
	}
}
