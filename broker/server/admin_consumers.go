package server

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/tidewire/tidewire/broker"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

const (
	adminBodyBytes = 256 << 10        // of a request of operators
	adminTime      = 30 * time.Second // for what it asks
)

// consumerForm is a consumer as operators see it.
type consumerForm struct {
	Name string `json:"name"`
	consumerSettings
	consumerState
	Members []memberForm `json:"members"`
}

// consumerSettings are those of a consumer. putForm takes them by the same names.
type consumerSettings struct {
	Stream           string      `json:"stream"`
	Filter           string      `json:"filter"`
	Mode             string      `json:"mode"`
	Ordered          bool        `json:"ordered"`
	AckWait          string      `json:"ack_wait"`
	Backoff          backoffForm `json:"backoff"`
	MaxDeliver       int         `json:"max_deliver"`
	MaxInFlight      int         `json:"max_in_flight"`
	MaxInFlightBytes int64       `json:"max_in_flight_bytes"`
	MaxWaiting       int         `json:"max_waiting"`
}

type backoffForm struct {
	Base   string  `json:"base"`
	Factor float64 `json:"factor"`
	Cap    string  `json:"cap"`
	Jitter bool    `json:"jitter"`
}

// consumerState is how a consumer stands.
type consumerState struct {
	Generation uint64       `json:"generation"`
	Created    time.Time    `json:"created"`
	Paused     bool         `json:"paused"`
	Position   string       `json:"position"`
	Lag        uint64       `json:"lag"` // at most so many messages of the filter lie above position
	InFlight   int          `json:"in_flight"`
	Waiting    int          `json:"waiting"`
	Held       int          `json:"held"`
	Dead       int          `json:"dead"`
	NextDue    *time.Time   `json:"next_due,omitempty"`
	Oldest     *pendingForm `json:"oldest,omitempty"`
	Blocked    string       `json:"blocked"`
}

type pendingForm struct {
	Position string     `json:"position"`
	Attempts int        `json:"attempts"`
	State    string     `json:"state"`
	Due      *time.Time `json:"due,omitempty"`
}

type memberForm struct {
	Session  string `json:"session,omitempty"` // empty of a fetch over HTTP
	Client   string `json:"client,omitempty"`
	Subject  string `json:"subject,omitempty"`
	Window   int    `json:"window"`
	InFlight int    `json:"in_flight"`
}

func consumerFormOf(i *broker.ConsumerInfo) consumerForm {
	set := i.Settings
	f := consumerForm{
		Name: i.Name,
		consumerSettings: consumerSettings{
			Stream: set.Stream, Filter: set.Filter, Mode: modeShared, Ordered: set.Ordered, AckWait: briefly(set.AckWait),
			Backoff:    backoffForm{briefly(set.Backoff.Base), set.Backoff.Factor, briefly(set.Backoff.Cap), set.Backoff.Jitter},
			MaxDeliver: set.MaxDeliver, MaxInFlight: set.MaxInFlight, MaxInFlightBytes: set.MaxInFlightBytes, MaxWaiting: set.MaxWaiting,
		},
		consumerState: consumerState{
			Generation: i.Generation, Created: i.Created, Paused: i.Paused, Position: i.Position.String(), Lag: i.Lag,
			InFlight: i.InFlight, Waiting: i.Waiting, Held: i.Held, Dead: i.Dead, NextDue: unlessZero(i.NextDue), Blocked: i.Blocked,
		},
		Members: []memberForm{},
	}
	if set.Exclusive {
		f.Mode = modeExclusive
	}
	if i.Oldest != nil {
		f.Oldest = &pendingForm{i.Oldest.Position.String(), i.Oldest.Attempts, i.Oldest.State, unlessZero(i.Oldest.Due)}
	}
	for _, m := range i.Members {
		f.Members = append(f.Members, memberForm{Session: m.Session, Client: m.Client, Subject: m.Subject, Window: m.Window, InFlight: m.InFlight})
	}
	return f
}

// The modes of a consumer.
const (
	modeShared    = "shared"
	modeExclusive = "exclusive"
)

// briefly writes a duration without parts that are zero: 1m, not 1m0s.
func briefly(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func unlessZero(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// putForm describes a consumer that is to be there. What is left out has its
// default, or stays as it is.
type putForm struct {
	Filter           string   `json:"filter"`
	Stream           string   `json:"stream"`
	From             string   `json:"from"`
	Mode             *string  `json:"mode"`
	Ordered          *bool    `json:"ordered"`
	AckWait          *string  `json:"ack_wait"`
	Backoff          *putWait `json:"backoff"`
	MaxDeliver       *uint32  `json:"max_deliver"`
	MaxInFlight      *uint32  `json:"max_in_flight"`
	MaxInFlightBytes *uint64  `json:"max_in_flight_bytes"`
	MaxWaiting       *uint32  `json:"max_waiting"`
}

type putWait struct {
	Base   *string  `json:"base"`
	Factor *float64 `json:"factor"`
	Cap    *string  `json:"cap"`
	Jitter *bool    `json:"jitter"`
}

func (f *putForm) request() (*broker.ConsumerRequest, *protocol.Error) {
	set := &tidewirev1.ConsumerSettings{
		Ordered: f.Ordered, MaxDeliver: f.MaxDeliver, MaxInFlight: f.MaxInFlight, MaxInFlightBytes: f.MaxInFlightBytes, MaxWaiting: f.MaxWaiting,
	}
	if f.Mode != nil {
		if *f.Mode != modeShared && *f.Mode != modeExclusive {
			return nil, protocol.Errorf(protocol.CodeBadRequest, "the mode is %.40q: write %s or %s", *f.Mode, modeShared, modeExclusive)
		}
		set.Exclusive = new(*f.Mode == modeExclusive)
	}
	times := []givenTime{{"ack_wait", f.AckWait, &set.AckWaitMs}}
	if b := f.Backoff; b != nil {
		set.BackoffFactor, set.BackoffJitter = b.Factor, b.Jitter
		times = append(times, givenTime{"backoff.base", b.Base, &set.BackoffBaseMs}, givenTime{"backoff.cap", b.Cap, &set.BackoffCapMs})
	}
	for _, t := range times {
		if err := t.read(); err != nil {
			return nil, err
		}
	}
	return &broker.ConsumerRequest{Filter: f.Filter, Stream: f.Stream, From: f.From, Settings: set}, nil
}

// givenTime is a duration that may be given as text.
type givenTime struct {
	name string
	text *string
	into **uint64 // milliseconds
}

func (t givenTime) read() *protocol.Error {
	if t.text == nil {
		return nil
	}
	d, err := time.ParseDuration(*t.text)
	if err != nil || d < 0 || d%time.Millisecond != 0 {
		return protocol.Errorf(protocol.CodeBadRequest, "%s is %.40q, which is no duration such as 30s or 500ms", t.name, *t.text)
	}
	*t.into = new(uint64(d.Milliseconds()))
	return nil
}

// consumers is GET /v1/consumers.
func (in *inspector) consumers(w http.ResponseWriter, r *http.Request) {
	if _, err := parseQuery(r); err != nil {
		writeProblem(w, err)
		return
	}
	forms := []consumerForm{}
	for _, info := range in.server.broker.Consumers() {
		forms = append(forms, consumerFormOf(&info))
	}
	writeAdmin(w, map[string]any{"consumers": forms})
}

// consumer is GET /v1/consumers/{name}.
func (in *inspector) consumer(w http.ResponseWriter, r *http.Request) {
	if _, err := parseQuery(r); err != nil {
		writeProblem(w, err)
		return
	}
	info, err := in.server.broker.Consumer(r.PathValue("name"))
	in.writeConsumer(w, info, err)
}

// writeConsumer answers with a consumer as it is now.
func (in *inspector) writeConsumer(w http.ResponseWriter, info broker.ConsumerInfo, err *protocol.Error) {
	if err != nil {
		writeProblem(w, in.server.refusal("consumer", err))
		return
	}
	writeAdmin(w, consumerFormOf(&info))
}

// putConsumer is PUT /v1/consumers/{name}.
func (in *inspector) putConsumer(w http.ResponseWriter, r *http.Request) {
	var form putForm
	name := r.PathValue("name")
	err := in.read(w, r, &form)
	if err == nil {
		err = protocol.CheckConsumer(name)
	}
	var req *broker.ConsumerRequest
	if err == nil {
		req, err = form.request()
	}
	if err != nil {
		writeProblem(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), adminTime)
	defer cancel()
	info, created, perr := in.server.broker.PutConsumer(ctx, name, req)
	if perr == nil && created {
		in.server.log.Info("a consumer was created", "consumer", name)
		w.Header().Set("Content-Type", jsonType)
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusCreated)
	}
	in.writeConsumer(w, info, perr)
}

// deleteConsumer is DELETE /v1/consumers/{name}.
func (in *inspector) deleteConsumer(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	ctx, done, err := in.change(r)
	if err == nil {
		defer done()
		err = in.server.broker.DeleteConsumer(ctx, name)
	}
	if err != nil {
		writeProblem(w, in.server.refusal("delete a consumer", err))
		return
	}
	in.server.log.Warn("a consumer was deleted", "consumer", name)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

// pause is POST /v1/consumers/{name}/pause, and /resume if paused is false.
func (in *inspector) pause(paused bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, done, err := in.change(r)
		var info broker.ConsumerInfo
		if err == nil {
			defer done()
			info, err = in.server.broker.PauseConsumer(ctx, r.PathValue("name"), paused)
		}
		in.writeConsumer(w, info, err)
	}
}

// seekConsumer is POST /v1/consumers/{name}/seek.
func (in *inspector) seekConsumer(w http.ResponseWriter, r *http.Request) {
	var form struct {
		To string `json:"to"`
	}
	name := r.PathValue("name")
	if err := in.read(w, r, &form); err != nil {
		writeProblem(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), adminTime)
	defer cancel()
	info, err := in.server.broker.SeekConsumer(ctx, name, form.To)
	if err == nil {
		in.server.log.Warn("a consumer was moved", "consumer", name, "to", info.Position.String())
	}
	in.writeConsumer(w, info, err)
}

// change checks a request without a body that changes something, and bounds it.
func (in *inspector) change(r *http.Request) (context.Context, context.CancelFunc, *protocol.Error) {
	if _, err := parseQuery(r); err != nil {
		return nil, nil, err
	}
	if err := notOfAPage(r); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), adminTime)
	return ctx, cancel, nil
}

// read reads the JSON body of a request that changes something.
func (in *inspector) read(w http.ResponseWriter, r *http.Request, form any) *protocol.Error {
	if _, err := parseQuery(r); err != nil {
		return err
	}
	if err := notOfAPage(r); err != nil {
		return err
	}
	if err := wantsJSON(r); err != nil {
		return err
	}
	body, err := in.body(w, r)
	if err != nil {
		return err
	}
	return protocol.DecodeStrict("the body", body, form)
}

// body reads the body of a request of operators, in bounded time.
func (in *inspector) body(w http.ResponseWriter, r *http.Request) ([]byte, *protocol.Error) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(in.server.limits().BodyTimeout))
	return in.server.readUpTo(w, r, adminBodyBytes, func(int64) *protocol.Error {
		return protocol.Errorf(protocol.CodePayloadTooLarge, "the body has more than the %d bytes that are allowed", adminBodyBytes)
	})
}

// notOfAPage refuses what a browser sends for a page: the listener asks nobody who
// they are, so no page may change anything.
func notOfAPage(r *http.Request) *protocol.Error {
	if r.Header.Get("Origin") != "" {
		return protocol.Errorf(protocol.CodeBadOrigin, "pages may not change consumers: use `tidewire consumers`, or curl")
	}
	return nil
}
