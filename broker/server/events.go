package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/tidewire/tidewire/broker"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// eventsQuiet is how long a stream may be quiet: then a comment shows proxies,
// and us, that both ends are there.
const eventsQuiet = 15 * time.Second

// eventsRetry is how long a browser waits before it connects again.
const eventsRetry = "retry: 1000\n\n"

// events is GET /v1/events: a subscription as server-sent events. The id of an
// event is its position, with which a browser comes back by itself.
//
// A stream has one filter. With several, one Last-Event-ID would have to stand
// for several places: a filter that is still catching up when the stream breaks
// would skip what it had not reached.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	rules := s.rules.Load()
	request, who, err := s.eventsRequest(r)
	if err != nil {
		writeProblem(w, err)
		return
	}
	st := &stream{server: s, w: w, r: r, control: http.NewResponseController(w), woken: make(chan struct{}, 1)}
	st.session = s.broker.NewSession(broker.SessionOptions{Identity: who, Codec: sse{}, Wake: st.wake})
	defer st.session.Close()
	if err := s.streams.add(st); err != nil {
		writeProblem(w, err)
		return
	}
	defer s.streams.remove(st)
	s.reviewLate(st.session, rules)
	s.metrics.streams.Inc()
	defer s.metrics.streams.Dec()
	if !who.Expires.IsZero() {
		expiry := time.AfterFunc(time.Until(who.Expires), func() {
			st.session.End(protocol.Errorf(protocol.CodeTokenExpired, "the token has expired: come back with a new one"))
		})
		defer expiry.Stop()
	}
	st.session.Subscribe(request)
	st.run()
}

// eventsRequest reads what a stream begins with. Whether its filter is right
// and allowed, the session says.
func (s *Server) eventsRequest(r *http.Request) (*tidewirev1.Subscribe, *broker.Identity, *protocol.Error) {
	who, err := s.admit(r)
	if err != nil {
		return nil, nil, err
	}
	if n := len(r.URL.Query()["filter"]); n > 1 {
		return nil, nil, protocol.Errorf(protocol.CodeBadRequest, "there are %d filters, a stream has one, since it has one Last-Event-ID: use a pattern, or a stream for each", n)
	}
	q, err := parseQuery(r, "filter", "from", "stream", "slow", "conflate_ms")
	if err != nil {
		return nil, nil, err
	}
	if !q.Has("filter") {
		return nil, nil, protocol.Errorf(protocol.CodeInvalidFilter, "the filter is missing: write /v1/events?filter=room.42.chat")
	}
	request := &tidewirev1.Subscribe{Sub: 1, Filter: q.Get("filter"), Slow: q.Get("slow")}
	if request.Stream, err = parseStream(q); err != nil {
		return nil, nil, err
	}
	if q.Has("conflate_ms") {
		ms, err := strconv.ParseUint(q.Get("conflate_ms"), 10, 32)
		if err != nil {
			return nil, nil, protocol.Errorf(protocol.CodeBadRequest, "conflate_ms is %.40q, write milliseconds such as 200", q.Get("conflate_ms"))
		}
		request.ConflateMs = uint32(ms)
	}
	if q.Has("from") {
		if _, err := parseFrom(q.Get("from")); err != nil {
			return nil, nil, err
		}
		request.From = q.Get("from")
	}
	// A browser repeats its first address on each reconnect: the id is newer.
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		if _, err := protocol.ParseVector(id); err != nil {
			e := protocol.AsError(err)
			return nil, nil, protocol.Errorf(e.Code, "Last-Event-ID: %s", e.Message)
		}
		request.From = id
	}
	return request, who, nil
}

// stream is one request for events. All of it belongs to the request's
// goroutine, but wake.
type stream struct {
	server  *Server
	session *broker.Session
	w       http.ResponseWriter
	r       *http.Request
	control *http.ResponseController
	woken   chan struct{}
	begun   bool
}

func (st *stream) wake() {
	select {
	case st.woken <- struct{}{}:
	default:
	}
}

// run writes events until the session or the request ends.
func (st *stream) run() {
	// A client that goes ends the session, and so what is under way for it.
	defer context.AfterFunc(st.r.Context(), func() {
		st.session.End(protocol.Errorf(protocol.CodeGoingAway, "the client has gone"))
	})()
	quiet := time.NewTimer(eventsQuiet)
	defer quiet.Stop()
	var frames []broker.Frame
	for {
		clear(frames) // what was written may be freed
		var end *protocol.Error
		frames, end = st.session.Take(frames[:0])
		if len(frames) > 0 {
			if !st.write(frames) {
				return
			}
			quiet.Reset(eventsQuiet)
			continue
		}
		if end != nil {
			return
		}
		select {
		case <-st.woken:
		case <-quiet.C:
			quiet.Reset(eventsQuiet)
			st.session.Progress()
			if !st.send([]byte(":\n\n")) {
				return
			}
		case <-st.r.Context().Done():
			return
		}
	}
}

// write sends events, and reports whether the stream goes on.
func (st *stream) write(frames []broker.Frame) bool {
	if !st.begun {
		st.begun = true
		if frames = st.begin(frames); frames == nil {
			return false
		}
	}
	var b []byte
	if len(frames) == 1 {
		b = frames[0].Tail
	} else {
		for i := range frames {
			b = append(b, frames[i].Tail...)
		}
	}
	return st.send(b) && !bytes.HasPrefix(frames[len(frames)-1].Tail, errorEvent)
}

// begin answers the request, now that the session has said whether the
// subscription stands, and returns the frames to write; nil if it does not.
func (st *stream) begin(frames []broker.Frame) []broker.Frame {
	if data, refused := bytes.CutPrefix(frames[0].Tail, errorEvent); refused {
		writeProblem(st.w, refusalOf(data))
		return nil
	}
	// The first event tells where the subscription begins. If a gap follows, only
	// that may tell: who is cut off in between would never hear of the gap.
	if len(frames) > 1 && bytes.HasPrefix(frames[1].Tail, gapEvent) {
		frames = frames[1:]
	}
	h := st.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	st.w.WriteHeader(http.StatusOK)
	if st.r.Method == http.MethodHead || !st.send([]byte(eventsRetry)) {
		return nil
	}
	return frames
}

// send writes and flushes, in bounded time.
func (st *stream) send(b []byte) bool {
	_ = st.control.SetWriteDeadline(time.Now().Add(st.server.limits().WriteTimeout))
	n, err := st.w.Write(b)
	st.server.metrics.bytesOut.Add(float64(n))
	if err == nil {
		err = st.control.Flush()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		st.server.metrics.limits.Met(protocol.LimitWrite)
	}
	return err == nil
}

func refusalOf(data []byte) *protocol.Error {
	var p problem
	if err := json.Unmarshal(data, &p); err != nil {
		return protocol.Errorf(protocol.CodeInternal, "something went wrong inside the broker; its log says more")
	}
	return &protocol.Error{Code: p.Code, Message: p.Detail, RetryAfter: time.Duration(p.RetryAfterMS) * time.Millisecond}
}
