package server

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/protocol"
)

const (
	defaultDead = 100
	maxDead     = 1000
	maxDeadIDs  = 1000 // in one request
)

// deadForm is a dead letter as operators see it.
type deadForm struct {
	ID       string `json:"id"`
	Topic    string `json:"topic"`
	Origin   string `json:"origin"` // where the message was first
	Attempts int    `json:"attempts"`
	Reason   string `json:"reason"`
	First    string `json:"first"`
	Last     string `json:"last"`
	Position string `json:"position"` // of the dead letter
}

// deadShown is one with its content, as the one form of messages has it.
type deadShown struct {
	deadForm
	Publisher   string            `json:"publisher,omitempty"`
	Key         string            `json:"key,omitempty"`
	ContentType string            `json:"content_type,omitempty"`
	Headers     map[string]string `json:"headers,omitempty"`
	protocol.PayloadJSON
}

func deadFormOf(d *broker.DeadLetter) deadForm {
	return deadForm{d.ID, d.Topic, d.Origin, d.Attempts, d.Reason, d.First, d.Last, d.Position.String()}
}

func deadShownOf(d *broker.DeadLetter) deadShown {
	m := &d.Message
	f := deadShown{deadForm: deadFormOf(d), Publisher: m.Publisher, Key: m.Key, ContentType: m.ContentType, PayloadJSON: protocol.PayloadForm(m.Payload)}
	if len(m.Headers) > 0 {
		f.Headers = make(map[string]string, len(m.Headers))
	}
	for _, h := range m.Headers {
		f.Headers[h.Name] = h.Value
	}
	return f
}

// deadLetters is GET /v1/consumers/{name}/dead: the newest first.
func (in *inspector) deadLetters(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuery(r, "limit", "before")
	limit := defaultDead
	if err == nil && q.Has("limit") {
		limit, err = parseLimit(q.Get("limit"), maxDead)
	}
	if err == nil && q.Has("before") {
		_, failed := protocol.ParsePosition(q.Get("before"))
		err = protocol.AsError(failed)
	}
	var list []broker.DeadLetter
	var next string
	if err == nil {
		list, next, err = in.server.broker.DeadLetters(r.Context(), r.PathValue("name"), q.Get("before"), limit)
	}
	if err != nil {
		writeProblem(w, in.server.refusal("list dead letters", err))
		return
	}
	forms := make([]deadForm, 0, len(list))
	for i := range list {
		forms = append(forms, deadFormOf(&list[i]))
	}
	body := map[string]any{"dead": forms}
	if next != "" {
		body["next"] = next
	}
	writeAdmin(w, body)
}

// parseLimit reads how many of something are wanted.
func parseLimit(text string, most int) (int, *protocol.Error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, protocol.Errorf(protocol.CodeBadRequest, "the limit %.20q is not a number from 1 to %d", text, most)
	}
	return n, nil
}

// deadLetter is GET /v1/consumers/{name}/dead/{id}.
func (in *inspector) deadLetter(w http.ResponseWriter, r *http.Request) {
	if _, err := parseQuery(r); err != nil {
		writeProblem(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), adminTime)
	defer cancel()
	letter, err := in.server.broker.DeadLetter(ctx, r.PathValue("name"), r.PathValue("id"))
	if err != nil {
		writeProblem(w, in.server.refusal("show a dead letter", err))
		return
	}
	writeAdmin(w, deadShownOf(&letter))
}

// selection says which dead letters are meant.
type selection struct {
	IDs []string `json:"ids"`
	All bool     `json:"all"`
}

func (s *selection) check() (broker.DeadSelection, *protocol.Error) {
	switch {
	case len(s.IDs) > maxDeadIDs:
		return broker.DeadSelection{}, protocol.Errorf(protocol.CodeBadRequest, "`ids` has %d ids, at most %d are allowed: send several requests", len(s.IDs), maxDeadIDs)
	case s.All == (len(s.IDs) > 0):
		return broker.DeadSelection{}, protocol.Errorf(protocol.CodeBadRequest, "say which dead letters: list them in `ids`, or write \"all\":true, and not both")
	}
	return broker.DeadSelection{IDs: s.IDs, All: s.All}, nil
}

// redrive is POST /v1/consumers/{name}/dead/redrive.
func (in *inspector) redrive(w http.ResponseWriter, r *http.Request) {
	var form struct { // not with a selection inside, whose name errors would tell
		IDs     []string `json:"ids"`
		All     bool     `json:"all"`
		Publish bool     `json:"publish"`
	}
	name := r.PathValue("name")
	err := in.read(w, r, &form)
	var selected broker.DeadSelection
	if err == nil {
		selected, err = (&selection{form.IDs, form.All}).check()
	}
	if err != nil {
		writeProblem(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), adminTime)
	defer cancel()
	n, perr := in.server.broker.Redrive(ctx, name, selected, form.Publish)
	if n > 0 { // perhaps not all of them
		in.server.log.Warn("dead letters were given back", "consumer", name, "count", n, "publish", form.Publish)
	}
	in.writeCount(w, n, perr)
}

// purgeDead is POST /v1/consumers/{name}/dead/purge.
func (in *inspector) purgeDead(w http.ResponseWriter, r *http.Request) {
	var form selection
	name := r.PathValue("name")
	err := in.read(w, r, &form)
	var selected broker.DeadSelection
	if err == nil {
		selected, err = form.check()
	}
	if err != nil {
		writeProblem(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), adminTime)
	defer cancel()
	n, perr := in.server.broker.PurgeDead(ctx, name, selected)
	if n > 0 {
		in.server.log.Warn("dead letters were purged", "consumer", name, "count", n)
	}
	in.writeCount(w, n, perr)
}

// writeCount answers how many dead letters something was done with.
func (in *inspector) writeCount(w http.ResponseWriter, n int, err *protocol.Error) {
	if err != nil {
		writeProblem(w, in.server.refusal("dead letters", err))
		return
	}
	writeAdmin(w, map[string]int{"count": n})
}

// foundForm is where a message is, and what consumers made of it.
type foundForm struct {
	Message   json.RawMessage `json:"message"` // the one form without the payload
	Stream    string          `json:"stream"`
	Consumers []verdictForm   `json:"consumers"`
}

type verdictForm struct {
	Name     string     `json:"name"`
	State    string     `json:"state"`
	Attempts int        `json:"attempts,omitempty"`
	Due      *time.Time `json:"due,omitempty"`
	Reason   string     `json:"reason,omitempty"`
}

func foundFormOf(m *broker.FoundMessage) (foundForm, error) {
	head, err := m.Message.MarshalHead()
	f := foundForm{Message: head, Stream: m.Stream, Consumers: []verdictForm{}}
	for _, c := range m.Consumers {
		f.Consumers = append(f.Consumers, verdictForm{c.Consumer, c.State, c.Attempts, unlessZero(c.Due), c.Reason})
	}
	return f, err
}

// message is GET /v1/messages/{id}: where a message is and what became of it.
func (in *inspector) message(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	q, err := parseQuery(r, "topic")
	if err == nil && q.Has("topic") {
		err = protocol.CheckTopic(q.Get("topic"))
	}
	if err != nil {
		writeProblem(w, err)
		return
	}
	select {
	case in.finding <- struct{}{}: // it may look through whole streams
		defer func() { <-in.finding }()
	case <-r.Context().Done():
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), adminTime)
	defer cancel()
	found, err := in.server.broker.FindMessage(ctx, id, q.Get("topic"))
	if err == nil && len(found) == 0 {
		err = protocol.Errorf(protocol.CodeNotFound, "no stored message has the id %.80q: it was never stored, or retention has taken it", id)
	}
	if err != nil {
		writeProblem(w, in.server.refusal("find a message", err))
		return
	}
	forms := make([]foundForm, 0, len(found))
	for i := range found {
		f, failed := foundFormOf(&found[i])
		if failed != nil {
			panic(failed) // it was read from a record
		}
		forms = append(forms, f)
	}
	writeAdmin(w, map[string]any{"messages": forms})
}
