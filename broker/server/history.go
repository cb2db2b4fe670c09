package server

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidewire/tidewire/broker"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

const defaultHistory = 100 // messages

// gap tells people and scripts of a gap.
type gap struct {
	Reason   string `json:"reason"`
	Term     string `json:"term,omitempty"`
	After    uint64 `json:"after"`
	Through  uint64 `json:"through"`
	Position string `json:"position"` // messages go on after it
	Missed   uint64 `json:"missed,omitempty"`
}

func gapOf(g *tidewirev1.Gap) *gap {
	if g == nil {
		return nil
	}
	return &gap{Reason: g.Reason, Term: g.Term, After: g.After, Through: g.Through, Position: g.Position, Missed: g.Missed}
}

// history is GET /v1/topics/{topic}/messages: what is stored on a topic.
func (s *Server) history(w http.ResponseWriter, r *http.Request) {
	p, size, err := s.readPage(r)
	if err != nil {
		writeProblem(w, err)
		return
	}
	defer s.pages.leave(size)
	s.writePage(w, p)
}

// readPage returns a page and the bytes that it holds until leave.
func (s *Server) readPage(r *http.Request) (*broker.Page, int64, *protocol.Error) {
	who, err := s.admit(r)
	if err != nil {
		return nil, 0, err
	}
	q, err := s.historyQuery(r)
	if err != nil {
		return nil, 0, err
	}
	if err := s.pages.enter(r.Context()); err != nil {
		return nil, 0, err
	}
	var size int64
	defer func() { s.pages.read(size) }()
	p, perr := s.broker.History(r.Context(), who, q)
	if perr != nil {
		return nil, 0, s.refusal("read history", perr)
	}
	for i := range p.Messages {
		size += int64(len(p.Messages[i].Payload)) + messageOverhead
	}
	return p, size, nil
}

// Bounds of the memory that history may take. A page is at most about 4 MiB.
const (
	pagesAtOnce     = 16  // that are being read
	messageOverhead = 512 // bytes that a message takes beside its payload
)

// pagesHeld bounds the bytes of those that are being written.
var pagesHeld = int64(protocol.LimitHistoryHeld.Default())

// pages bounds what history takes, however many ask and however slowly they
// read: pages are read a few at a time, and no more are read while too much
// waits to be taken.
type pages struct {
	once    sync.Once
	reading chan struct{} // has one for each page that is being read
	held    atomic.Int64
}

// enter waits until a page may be read. read or an error ends that.
func (p *pages) enter(ctx context.Context) *protocol.Error {
	p.once.Do(func() { p.reading = make(chan struct{}, pagesAtOnce) })
	select {
	case p.reading <- struct{}{}:
	case <-ctx.Done():
		return protocol.Errorf(protocol.CodeOverloaded, "too many read history at once: try again in a moment")
	}
	if err := p.full(); err != nil {
		<-p.reading
		return err
	}
	return nil
}

// full returns an error while too much waits to be taken.
func (p *pages) full() *protocol.Error {
	if p.held.Load() <= pagesHeld {
		return nil
	}
	err := protocol.Exceeded(protocol.LimitHistoryHeld, "too many answers wait to be read by their clients: try again in a moment, or follow /v1/events")
	err.RetryAfter = time.Second
	return err
}

// read says that a page was read and how large it is.
func (p *pages) read(size int64) {
	p.held.Add(size)
	<-p.reading
}

// leave says that a page was written.
func (p *pages) leave(size int64) { p.held.Add(-size) }

func (s *Server) historyQuery(r *http.Request) (broker.HistoryQuery, *protocol.Error) {
	var out broker.HistoryQuery
	q, err := parseQuery(r, "from", "limit", "before", "stream")
	if err != nil {
		return out, err
	}
	if q.Has("before") && q.Has("from") {
		return out, protocol.Errorf(protocol.CodeBadRequest, "from and before are both given: from=X gives the oldest messages after X, before=X the newest before it, leave one of them out")
	}
	topic := r.PathValue("topic")
	if err := protocol.CheckTopic(topic); err != nil {
		return out, err
	}
	filter, perr := protocol.ParseFilter(topic)
	if perr != nil {
		return out, protocol.AsError(perr)
	}
	out.Filter = filter
	if out.Stream, err = parseStream(q); err != nil {
		return out, err
	}
	if out.Limit, err = s.historyLimit(q.Get("limit"), q.Has("limit")); err != nil {
		return out, err
	}
	out.From = protocol.Start{Kind: protocol.StartEarliest}
	switch {
	case q.Has("before"):
		out.Back = true
		out.From, err = parseStart("before", q.Get("before"))
	case q.Has("from"):
		out.From, err = parseFrom(q.Get("from"))
	}
	return out, err
}

func (s *Server) historyLimit(text string, given bool) (int, *protocol.Error) {
	most := s.limits().HistoryMessages
	if !given {
		return min(defaultHistory, most), nil
	}
	n, err := strconv.Atoi(text)
	if err == nil && n > most {
		return 0, protocol.Exceeded(protocol.LimitHistory, "the limit %.20q is not a number from 1 to %d", text, most)
	}
	if err != nil || n < 1 {
		return 0, protocol.Errorf(protocol.CodeBadRequest, "the limit %.20q is not a number from 1 to %d", text, most)
	}
	return n, nil
}

// parseFrom reads `from`.
func parseFrom(text string) (protocol.Start, *protocol.Error) { return parseStart("from", text) }

// parseStart reads a parameter that names a place in the log. An empty one is
// more likely a variable that is not set than a wish to miss everything.
func parseStart(name, text string) (protocol.Start, *protocol.Error) {
	if text == "" {
		return protocol.Start{}, protocol.Errorf(protocol.CodeInvalidStart, "%s is empty: leave it out, or write new, earliest, last:N, -10m, a time or a position", name)
	}
	start, err := protocol.ParseStart(text)
	return start, protocol.AsError(err)
}

// parseStream reads `stream`.
func parseStream(q url.Values) (string, *protocol.Error) {
	name := q.Get("stream")
	if name == "" && q.Has("stream") {
		return "", protocol.Errorf(protocol.CodeUnknownStream, "stream is empty: leave it out, or write the name of the stream to read")
	}
	return name, nil
}

// writePiece is what may take a write timeout on its way to the client.
const writePiece = 256 << 10

// writePage writes a page.
func (s *Server) writePage(w http.ResponseWriter, p *broker.Page) {
	end := append(p.Next.AppendText([]byte(`],"next":"`)), '"')
	if p.Gap != nil {
		end = appendJSON(append(end, `,"gap":`...), gapOf(p.Gap))
	}
	s.writeMessages(w, slices.Values(p.Messages), append(end, "}\n"...))
}

// writeMessages writes an object that begins with messages piece by piece, so that
// only one piece is held as JSON, with a deadline for each. end is what follows
// the last message.
func (s *Server) writeMessages(w http.ResponseWriter, messages iter.Seq[protocol.Message], end []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	control := http.NewResponseController(w)
	b, whole, first := []byte(`{"messages":[`), true, true
	for m := range messages {
		text, err := m.MarshalJSON()
		if err != nil {
			panic(err) // it was read from a record
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		if b = append(b, text...); len(b) < writePiece {
			continue
		}
		if !s.writePart(w, control, b) {
			return
		}
		b, whole = b[:0], false
	}
	b = append(b, end...)
	if whole {
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	}
	if s.writePart(w, control, b) {
		_ = control.SetWriteDeadline(time.Time{})
	}
}

func (s *Server) writePart(w http.ResponseWriter, control *http.ResponseController, b []byte) bool {
	_ = control.SetWriteDeadline(time.Now().Add(s.limits().WriteTimeout))
	_, err := w.Write(b)
	if err == nil {
		err = control.Flush()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.metrics.limits.Met(protocol.LimitWrite)
	}
	return err == nil
}
