package server

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// publishTimeout bounds how long a request waits for its message to be stored.
// After it the outcome is unknown, and the client repeats with the same id.
var publishTimeout = protocol.LimitPublish.DefaultTime()

// published is the answer to a message that is stored, or ephemeral: then it has
// no position, and an id only if the publisher gave one.
type published struct {
	ID        string `json:"id,omitempty"`
	Topic     string `json:"topic"`
	Position  string `json:"position,omitempty"`
	Duplicate bool   `json:"duplicate"`
	Stored    bool   `json:"stored"`
}

// publish is POST /v1/topics/{topic}/messages: the body is the payload, the rest
// of the message is in the headers.
func (s *Server) publish(w http.ResponseWriter, r *http.Request) {
	answer, err := s.publishOne(w, r)
	if err != nil {
		writeProblem(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = writeJSON(w, answer)
}

func (s *Server) publishOne(w http.ResponseWriter, r *http.Request) (published, *protocol.Error) {
	who, err := s.publisher(r)
	if err != nil {
		return published{}, err
	}
	if _, err := parseQuery(r); err != nil {
		return published{}, err
	}
	m, age, err := readMessage(r)
	if err != nil {
		return published{}, err
	}
	// What can be refused without the body is: it may be long in coming.
	if err := m.Check(s.limits().PayloadBytes); err != nil {
		return published{}, err
	}
	if err := who.MayPublish(m.Topic); err != nil {
		return published{}, err
	}
	if m.Payload, err = s.readBody(w, r); err != nil {
		w.Header().Set("Connection", "close") // the rest of the body is not worth reading
		return published{}, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), publishTimeout)
	defer cancel()
	result, perr := s.broker.Publish(ctx, who, &m, age)
	if perr != nil {
		if r.Context().Err() == nil && ctx.Err() != nil {
			s.metrics.limits.Met(protocol.LimitPublish)
		}
		return published{}, s.refusal("publish", perr)
	}
	return *newPublished(m.ID, m.Topic, result), nil
}

// newPublished is the answer to a message that was taken.
func newPublished(id, topic string, r storage.Result) *published {
	p := &published{ID: id, Topic: topic, Duplicate: r.Duplicate, Stored: !r.Position.IsZero()}
	if p.Stored {
		p.Position = r.Position.String()
	}
	if p.ID == "" {
		p.ID = p.Position
	}
	return p
}

// refusal returns an error of the broker for the client. Of an internal one the
// client learns nothing, so it is logged.
func (s *Server) refusal(doing string, err error) *protocol.Error {
	e := protocol.AsError(err)
	if _, ours := errors.AsType[*protocol.Error](err); !ours && !errors.Is(err, context.Canceled) {
		s.log.Error("a request failed", "doing", doing, "error", err)
	}
	return e
}

// readBody reads the payload, within the limit and in the time that guard gives.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, *protocol.Error) {
	limit := int64(s.limits().PayloadBytes)
	return s.readUpTo(w, r, limit, func(n int64) *protocol.Error {
		if n > 0 {
			return protocol.Exceeded(protocol.LimitPayload, "the payload has %d bytes, at most %d are allowed", n, limit)
		}
		return protocol.Exceeded(protocol.LimitPayload, "the payload has more than the %d bytes that are allowed", limit)
	})
}

// readUpTo reads a body of bounded size. tooLarge makes the refusal of a larger
// one, whose size is 0 if it is not known.
func (s *Server) readUpTo(w http.ResponseWriter, r *http.Request, limit int64, tooLarge func(n int64) *protocol.Error) ([]byte, *protocol.Error) {
	if r.ContentLength > limit {
		return nil, tooLarge(r.ContentLength)
	}
	control := http.NewResponseController(w)
	in := &intake{from: &s.receiving, end: func() { _ = control.SetReadDeadline(time.Unix(1, 0)) }}
	defer in.leave()
	body, err := in.gather(http.MaxBytesReader(w, r.Body, limit))
	if err == nil {
		return body, nil // net/http drops the deadline where a body ends
	}
	if e, ok := errors.AsType[*protocol.Error](err); ok {
		return nil, e
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, tooLarge(0)
	}
	return nil, brokenBody(err, s.limits().BodyTimeout)
}

// brokenBody says why a body cannot be read to its end.
func brokenBody(err error, timeout time.Duration) *protocol.Error {
	if slow, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err); ok && slow.Timeout() {
		return protocol.Exceeded(protocol.LimitBody, "the body did not arrive within %s: send it faster, or in smaller parts", timeout)
	}
	return protocol.Errorf(protocol.CodeBadRequest, "the body ended too early: send as many bytes as Content-Length says")
}

// Prefixes and names of the headers that make a message.
const (
	headerPrefix    = "Tidewire-"
	headerApp       = "Tidewire-Header-"
	headerID        = "Idempotency-Key"
	headerKey       = "Tidewire-Key"
	headerExpires   = "Tidewire-Expires-At"
	headerEphemeral = "Tidewire-Ephemeral"
	headerAge       = "Tidewire-Repeat-Age"
)

// formType is what curl says when it is told nothing.
const formType = "application/x-www-form-urlencoded"

// readMessage makes a message, without its payload, of a request. age is how
// long ago the first attempt to publish it was.
func readMessage(r *http.Request) (m protocol.Message, age time.Duration, err *protocol.Error) {
	m.Topic = r.PathValue("topic")
	if err := checkEncoding(r); err != nil {
		return m, 0, err
	}
	for name, values := range r.Header {
		ours := name == headerID || name == "Content-Type" || strings.HasPrefix(name, headerPrefix)
		if !ours {
			continue
		}
		if len(values) > 1 {
			return m, 0, protocol.Errorf(protocol.CodeInvalidHeader, "the header %.80q is given %d times, give it once", name, len(values))
		}
		if err := setHeader(&m, &age, name, values[0]); err != nil {
			return m, 0, err
		}
	}
	if age > 0 && m.ID == "" {
		return m, 0, protocol.Errorf(protocol.CodeInvalidMessage, "%s says that this is a repeat, but without %s it would be stored twice: repeat with the key of the first attempt", headerAge, headerID)
	}
	return m, age, nil
}

// checkEncoding refuses an encoded body: subscribers would get it encoded, and
// would not know.
func checkEncoding(r *http.Request) *protocol.Error {
	for _, encoding := range r.Header.Values("Content-Encoding") {
		if encoding != "" && !strings.EqualFold(encoding, "identity") {
			return protocol.Errorf(protocol.CodeUnsupported, "the body has the Content-Encoding %.40q: send it as it is, or compress the payload yourself and say so in the content type", encoding)
		}
	}
	return nil
}

func setHeader(m *protocol.Message, age *time.Duration, name, value string) (err *protocol.Error) {
	switch name {
	case "Content-Type":
		if !strings.EqualFold(value, formType) {
			m.ContentType = value
		}
	case headerID:
		m.ID, err = parseIdempotencyKey(value)
	case headerKey:
		if m.Key = value; value == "" {
			err = protocol.Errorf(protocol.CodeInvalidKey, "%s is empty: leave it out, or is a variable not set?", name)
		}
	case headerExpires:
		m.ExpiresAt, err = parseExpiry(value)
	case headerEphemeral:
		m.Ephemeral, err = parseFlag(name, value)
	case headerAge:
		*age, err = parseAge(value)
	default:
		header, ok := strings.CutPrefix(name, headerApp)
		if !ok {
			return protocol.Errorf(protocol.CodeInvalidHeader, "the header %.80q is not known: there are %s, %s, %s, %s and %sNAME", name, headerKey, headerExpires, headerEphemeral, headerAge, headerApp)
		}
		m.Headers = append(m.Headers, protocol.Header{Name: strings.ToLower(header), Value: value})
	}
	return err
}

// parseIdempotencyKey reads a key as the draft of the header wants it, quoted,
// or as most people write it, bare. Both stand for the same id.
func parseIdempotencyKey(s string) (string, *protocol.Error) {
	bad := func(why string) (string, *protocol.Error) {
		return "", protocol.Errorf(protocol.CodeInvalidID, `%s %s: write it bare, abc, or quoted, "abc", with \" and \\ for '"' and '\'`, headerID, why)
	}
	if s == "" || s == `""` {
		return bad("is empty, perhaps a variable is not set")
	}
	if s[0] != '"' {
		if strings.Contains(s, `"`) {
			return bad("has a quote inside")
		}
		return s, nil
	}
	var id strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; c {
		case '"':
			if i != len(s)-1 {
				return bad("goes on after its closing quote")
			}
			return id.String(), nil
		case '\\':
			i++
			if i == len(s) || (s[i] != '"' && s[i] != '\\') {
				return bad(`has a '\' that stands before neither '"' nor '\'`)
			}
			id.WriteByte(s[i])
		default:
			id.WriteByte(c)
		}
	}
	return bad("has no closing quote")
}

func parseExpiry(s string) (time.Time, *protocol.Error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, protocol.Errorf(protocol.CodeInvalidMessage, "%s %.80q is not an RFC 3339 time such as 2026-01-02T15:04:05Z", headerExpires, s)
	}
	return t, nil
}

func parseFlag(name, s string) (bool, *protocol.Error) {
	switch s {
	case "true", "1", "?1":
		return true, nil
	case "false", "0", "?0":
		return false, nil
	}
	return false, protocol.Errorf(protocol.CodeInvalidHeader, "%s is %.80q, write true or false", name, s)
}

// maxAge bounds the age of a repeat, so that arithmetic on it is safe.
const maxAge = 10 * 365 * 24 * time.Hour

// parseAge reads seconds, or a duration with units.
func parseAge(s string) (time.Duration, *protocol.Error) {
	text := s
	if s != "" && strings.Trim(s, "0123456789.") == "" {
		text += "s"
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, protocol.Errorf(protocol.CodeInvalidHeader, "%s %.80q is not the age of the first attempt: write seconds, 90, or a duration, 1m30s", headerAge, s)
	}
	return min(d, maxAge), nil
}
