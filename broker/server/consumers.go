package server

import (
	"context"
	"iter"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/protocol"
)

// Bounds of a fetch.
var (
	maxFetch     = protocol.LimitFetch.Default()
	maxFetchWait = protocol.LimitFetchWait.DefaultTime()
)

const defaultFetch = 10 // messages

// fetch is POST /v1/consumers/{name}/fetch: messages of a consumer, which are in
// flight to nobody in particular until they are settled or their time is over.
func (s *Server) fetch(w http.ResponseWriter, r *http.Request) {
	result, size, err := s.fetchSome(r)
	if err != nil {
		writeProblem(w, err)
		return
	}
	defer s.pages.leave(size)
	end := strconv.AppendUint([]byte(`],"generation":`), result.Generation, 10)
	if len(result.Gaps) > 0 {
		gaps := make([]*gap, 0, len(result.Gaps))
		for _, g := range result.Gaps {
			gaps = append(gaps, gapOf(g))
		}
		end = appendJSON(append(end, `,"gaps":`...), gaps)
	}
	s.writeMessages(w, messagesOf(result.Chunks), append(end, "}\n"...))
}

// fetchSome returns what was fetched and the bytes that it holds until leave.
func (s *Server) fetchSome(r *http.Request) (result broker.FetchResult, size int64, err *protocol.Error) {
	who, name, err := s.consumerOf(r)
	if err != nil {
		return result, 0, err
	}
	req, err := fetchRequest(r)
	if err != nil {
		return result, 0, err
	}
	// Before anything is taken: what is in flight and not written comes again only
	// when its time is over.
	if err := s.pages.full(); err != nil {
		return result, 0, err
	}
	if !who.Expires.IsZero() {
		req.Wait = min(req.Wait, time.Until(who.Expires))
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.draining.ctx, cancel)() // nobody waits longer than the broker lives
	if s.draining.Load() {
		return result, 0, errDraining
	}
	if result, err = s.broker.Fetch(ctx, who, name, req); err != nil {
		return result, 0, s.refusal("fetch", err)
	}
	for i := range result.Chunks {
		size += int64(len(result.Chunks[i].Records)) + int64(result.Chunks[i].Count)*messageOverhead
	}
	s.pages.held.Add(size)
	return result, size, nil
}

// messagesOf yields the messages of chunks that the log made.
func messagesOf(chunks []protocol.Chunk) iter.Seq[protocol.Message] {
	return func(yield func(protocol.Message) bool) {
		for i := range chunks {
			for m, err := range chunks[i].Messages() {
				if err != nil {
					panic(err)
				}
				if !yield(m) {
					return
				}
			}
		}
	}
}

// consumerOf says who asks, and for which consumer.
func (s *Server) consumerOf(r *http.Request) (who *broker.Identity, name string, err *protocol.Error) {
	if who, err = s.admit(r); err != nil {
		return nil, "", err
	}
	name = r.PathValue("name")
	return who, name, protocol.CheckConsumer(name)
}

func fetchRequest(r *http.Request) (*broker.FetchRequest, *protocol.Error) {
	q, err := parseQuery(r, "max", "wait", "filter", "from", "stream")
	if err != nil {
		return nil, err
	}
	if r.ContentLength != 0 {
		return nil, protocol.Errorf(protocol.CodeBadRequest, "a fetch has no body: write max, wait, filter and from into the query")
	}
	req := &broker.FetchRequest{Max: defaultFetch}
	if q.Has("max") {
		if req.Max, err = parseMax(q.Get("max")); err != nil {
			return nil, err
		}
	}
	if q.Has("wait") {
		if req.Wait, err = parseWait(q.Get("wait")); err != nil {
			return nil, err
		}
	}
	if req.Stream, err = parseStream(q); err != nil {
		return nil, err
	}
	for name, into := range map[string]*string{"filter": &req.Filter, "from": &req.From} {
		if *into = q.Get(name); *into == "" && q.Has(name) {
			return nil, protocol.Errorf(protocol.CodeBadRequest, "%s is empty: leave it out, or is a variable not set?", name)
		}
	}
	return req, nil
}

func parseMax(text string) (int, *protocol.Error) {
	n, err := strconv.Atoi(text)
	if err == nil && n > maxFetch {
		return 0, protocol.Exceeded(protocol.LimitFetch, "max is %d, at most %d messages are fetched at once", n, maxFetch)
	}
	if err != nil || n < 1 {
		return 0, protocol.Errorf(protocol.CodeBadRequest, "max is %.20q, which is not a number from 1 to %d", text, maxFetch)
	}
	return n, nil
}

// parseWait reads seconds, or a duration with units.
func parseWait(text string) (time.Duration, *protocol.Error) {
	withUnit := text
	if text != "" && strings.Trim(text, "0123456789.") == "" {
		withUnit += "s"
	}
	d, err := time.ParseDuration(withUnit)
	if err == nil && d > maxFetchWait {
		return 0, protocol.Exceeded(protocol.LimitFetchWait, "wait is %v, at most %v are waited: ask again after that", d, maxFetchWait)
	}
	if err != nil || d < 0 {
		return 0, protocol.Errorf(protocol.CodeBadRequest, "wait is %.20q, which is not a duration from 0s to %v", text, maxFetchWait)
	}
	return d, nil
}

// settled is the answer to what was settled.
type settled struct {
	Settled int       `json:"settled"`
	Refused []refused `json:"refused"`
}

type refused struct {
	Position string `json:"position"`
	Code     string `json:"code"`
}

// ack is POST /v1/consumers/{name}/ack: what became of messages. The answer means
// that it is stored.
func (s *Server) ack(w http.ResponseWriter, r *http.Request) {
	answer, err := s.settle(w, r)
	if err != nil {
		writeProblem(w, err)
		return
	}
	writeAdmin(w, answer)
}

func (s *Server) settle(w http.ResponseWriter, r *http.Request) (*settled, *protocol.Error) {
	who, name, err := s.consumerOf(r)
	if err != nil {
		return nil, err
	}
	if _, err := parseQuery(r); err != nil {
		return nil, err
	}
	if err := wantsJSON(r); err != nil {
		return nil, err
	}
	all, err := s.readSettles(w, r)
	if err != nil {
		w.Header().Set("Connection", "close") // what is left of the body is not worth reading
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), publishTimeout)
	defer cancel()
	answer := &settled{Refused: []refused{}}
	for _, frames := range byTerm(all) {
		n, ranges, perr := s.broker.Settle(ctx, who, name, frames)
		if perr != nil {
			return nil, s.refusal("settle", perr)
		}
		answer.Settled += n
		for _, r := range ranges {
			at := protocol.Position{Term: frames[0].Term, Partition: r.Partition, Offset: r.From}
			answer.Refused = append(answer.Refused, refused{at.String(), r.Code})
		}
	}
	return answer, nil
}

func (s *Server) readSettles(w http.ResponseWriter, r *http.Request) ([]*protocol.Settle, *protocol.Error) {
	limit := int64(s.limits().FrameBytes)
	body, err := s.readUpTo(w, r, limit, func(int64) *protocol.Error {
		return protocol.Errorf(protocol.CodePayloadTooLarge, "the body has more than the %d bytes that are allowed: send several requests", limit)
	})
	if err != nil {
		return nil, err
	}
	all, failed := protocol.DecodeSettles(body)
	return all, protocol.AsError(failed)
}

// byTerm puts together what is of one term, since an answer names offsets alone.
func byTerm(all []*protocol.Settle) (groups [][]*protocol.Settle) {
	index := make(map[protocol.Term]int, 1)
	for _, f := range all {
		i, ok := index[f.Term]
		if !ok {
			i = len(groups)
			index[f.Term] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], f)
	}
	return groups
}

// wantsJSON refuses a body that is not said to be JSON.
func wantsJSON(r *http.Request) *protocol.Error {
	if err := checkEncoding(r); err != nil {
		return err
	}
	given := r.Header.Get("Content-Type")
	media, params, err := mime.ParseMediaType(given)
	charset := params["charset"]
	switch {
	case err != nil || media != jsonType:
		return protocol.Errorf(protocol.CodeUnsupported, "the body must have the Content-Type %s, not %.80q", jsonType, given)
	case charset != "" && !strings.EqualFold(charset, "utf-8"):
		return protocol.Errorf(protocol.CodeUnsupported, "the body is said to be in %.40q: send it in UTF-8", charset)
	}
	return nil
}
