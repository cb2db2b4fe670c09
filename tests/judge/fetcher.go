package judge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"
)

// fetcher is a member of a consumer over HTTP. Each fetch is a session.
type fetcher struct {
	group    *group
	load     *Load
	log      *journal
	rng      *rand.Rand
	ref      uint32
	calls    int // also says which broker is next
	failures int // in a row
}

func newFetcher(g *group, index int) (*fetcher, error) {
	log, err := openJournal(g.load.plan.Dir, g.file(fmt.Sprintf("f%02d", index)))
	if err != nil {
		return nil, err
	}
	stream := uint64(3<<40 + g.index<<20 + index)
	return &fetcher{group: g, load: g.load, log: log, rng: g.load.random(stream), calls: index}, nil
}

func (f *fetcher) run(ctx context.Context) error {
	for ctx.Err() == nil && !f.group.over.fired() {
		all, err := f.fetch(ctx)
		if err == nil {
			err = f.settle(ctx, all)
		}
		_ = f.log.flush() // its error is told at the end
		if err != nil {
			f.calls++
			f.stumble(ctx, err)
			continue
		}
		f.failures = 0
		if f.load.plan.Tuning.LeaveEvery > 0 && !f.load.final.fired() {
			rest(ctx, time.Duration(f.rng.Int64N(int64(100*time.Millisecond))))
		}
	}
	if ctx.Err() == nil {
		f.log.add(conEvent{Event: evEnd, At: f.load.now(), Complete: true})
	}
	return f.log.close()
}

func (f *fetcher) stumble(ctx context.Context, err error) {
	// It is not there before a member has created it.
	refused, ok := errors.AsType[*errAnswer](err)
	if ok && !retryableStatus(refused.status) && refused.code != "unknown_consumer" {
		f.log.add(conEvent{Event: evRefused, At: f.load.now(), Code: refused.Error()})
	}
	f.failures++
	rest(ctx, f.load.backoff(f.rng, f.failures))
}

func (f *fetcher) fetch(ctx context.Context) ([]held, error) {
	target, err := endpoint(f.load.url(f.calls), "http", "/v1/consumers/"+f.group.Name+"/fetch")
	if err != nil {
		return nil, err
	}
	f.log.add(conEvent{Event: evJoin, At: f.load.now()})
	var answer struct {
		Messages   []message `json:"messages"`
		Generation uint64    `json:"generation"`
	}
	err = f.load.call(ctx, http.MethodPost, fmt.Sprintf("%s?max=%d&wait=1s", target, 1+f.rng.IntN(30)), nil, &answer)
	_, answered := errors.AsType[*errAnswer](err)
	event := conEvent{Event: evReceive, At: f.load.now(), Generation: answer.Generation}
	all := event.receive(answer.Messages)
	if len(event.Messages) > 0 {
		f.log.add(event)
		f.group.noteMoved()
	}
	f.load.received.Add(int64(len(event.Messages)))
	f.log.add(conEvent{Event: evLeave, At: f.load.now(), Clean: err == nil || answered})
	return all, errors.Join(err, f.log.flush())
}

// settle does something with each message, in one request.
func (f *fetcher) settle(ctx context.Context, all []held) error {
	piles := sorted(f.rng, all, f.load.final.fired())
	f.ref += 4
	return f.group.settleHTTP(ctx, f.log, f.calls, httpSettle{
		ref: f.ref,
		ack: append(piles[ackQuietly], piles[ackAndAsk]...), nack: append(piles[nackNow], piles[nackDelay]...),
		extend: piles[extendIt], reject: piles[rejectIt],
	})
}

// httpSettle is a request to settle; its four kinds have the numbers from ref
// on, as four requests over a WebSocket would.
type httpSettle struct {
	ref                       uint32
	ack, nack, extend, reject []held
}

type positionForm struct {
	Position string `json:"position"`
	Delay    string `json:"delay,omitempty"`
	By       string `json:"by,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

type settleBody struct {
	Generation uint64         `json:"generation,omitempty"`
	Ack        []string       `json:"ack,omitempty"`
	Nack       []any          `json:"nack,omitempty"` // some with a delay
	Extend     []positionForm `json:"extend,omitempty"`
	Reject     []positionForm `json:"reject,omitempty"`
}

func (s *httpSettle) body() settleBody {
	var b settleBody
	for _, h := range s.ack {
		b.Ack = append(b.Ack, h.position)
		b.Generation = h.generation
	}
	for i, h := range s.nack {
		b.Generation = h.generation
		if i%2 == 0 {
			b.Nack = append(b.Nack, h.position)
		} else {
			b.Nack = append(b.Nack, positionForm{Position: h.position, Delay: "150ms"})
		}
	}
	for _, h := range s.extend {
		b.Generation = h.generation
		b.Extend = append(b.Extend, positionForm{Position: h.position, By: "1s"})
	}
	for _, h := range s.reject {
		b.Generation = h.generation
		b.Reject = append(b.Reject, positionForm{Position: h.position, Reason: rejectReason})
	}
	return b
}

// A kindOf is the part of an httpSettle of one kind.
type kindOf struct {
	kind string
	ref  uint32
	held []held
}

func (s *httpSettle) kinds() []kindOf {
	all := []kindOf{{kindAck, s.ref, s.ack}, {kindNack, s.ref + 1, s.nack}, {kindExtend, s.ref + 2, s.extend}, {kindReject, s.ref + 3, s.reject}}
	return slices.DeleteFunc(all, func(k kindOf) bool { return len(k.held) == 0 })
}

// settleHTTP settles over HTTP, and writes down request and answer.
func (g *group) settleHTTP(ctx context.Context, log *journal, n int, s httpSettle) error {
	body, count := s.body(), 0
	for _, k := range s.kinds() {
		count += len(k.held)
		event := conEvent{Event: evSettle, At: g.load.now(), Ref: k.ref, Kind: k.kind, Confirm: true, Generation: body.Generation}
		for _, h := range k.held {
			event.Positions = append(event.Positions, h.position)
			if k.kind == kindAck {
				g.noteSent(h.key, h.at)
			}
		}
		log.add(event)
	}
	if count == 0 {
		return nil
	}
	target, err := endpoint(g.load.url(n), "http", "/v1/consumers/"+g.Name+"/ack")
	if err == nil {
		err = log.flush()
	}
	if err != nil {
		return err
	}
	var answer httpSettled
	if err := g.load.call(ctx, http.MethodPost, target, body, &answer); err != nil {
		return err
	}
	if answer.Settled+len(answer.Refused) != count {
		log.add(conEvent{Event: evRefused, At: g.load.now(), Code: fmt.Sprintf(
			"an answer about %d settled and %d refused messages to a request about %d", answer.Settled, len(answer.Refused), count)})
	}
	for _, k := range s.kinds() {
		event := conEvent{Event: evSettled, At: g.load.now(), Ref: k.ref, Settled: -1, Refused: answer.refused(k.held)}
		log.add(event)
		g.noteSettled(&asked{k.kind, true, k.held}, &event)
	}
	return log.flush()
}

// httpSettled is the answer.
type httpSettled struct {
	Settled int `json:"settled"`
	Refused []struct {
		Position string `json:"position"`
		Code     string `json:"code"`
	} `json:"refused"`
}

// refused returns those of the messages that were.
func (a *httpSettled) refused(all []held) []refusedRange {
	codes := map[string]string{}
	for _, r := range a.Refused {
		codes[r.Position] = r.Code
	}
	var refused []refusedRange
	for _, h := range all {
		if code := codes[h.position]; code != "" {
			refused = append(refused, refusedRange{From: h.position, Code: code})
		}
	}
	return refused
}

func marshalBody(body any) (io.Reader, error) {
	if body == nil {
		return http.NoBody, nil
	}
	text, err := json.Marshal(body)
	return bytes.NewReader(text), err
}
