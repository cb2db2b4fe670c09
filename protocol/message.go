package protocol

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of the parts of a message. The size of the payload is configured, see
// [Message.Check].
const (
	MaxIDBytes          = 128
	MaxKeyBytes         = 255
	MaxContentTypeBytes = 255
	MaxPublisherBytes   = 255
	MaxHeaders          = 32
	MaxHeaderNameBytes  = 64
	MaxHeaderValueBytes = 4096
	MaxHeaderTotalBytes = 8192

	// MaxMessageOverhead bounds what a record has beside its payload.
	MaxMessageOverhead = 16 << 10
)

// A Header is one application header of a message.
type Header struct {
	Name  string // lower-case letters, digits, '-', '_' and '.'
	Value string // UTF-8 without control characters
}

// A Message is what is published, stored and delivered. Publishing fills the
// first group; the broker sets the second, and for deliveries of a consumer the
// third; the zero value of a field means that it is absent.
type Message struct {
	Topic       string
	ID          string // identity within the topic; see [Chunk.Messages] for messages without one
	Payload     []byte
	ContentType string
	Headers     []Header // sorted by name
	Key         string   // ordering key
	ExpiresAt   time.Time
	Ephemeral   bool

	Publisher string    // authenticated subject, empty if anonymous
	Position  Position  // zero if it was never stored
	Time      time.Time // when the broker stored it
	Origin    uint64    // stands for the session that published it; 0 if there is none

	Attempt    uint32 // which delivery of a consumer this is, from 1 on; 0 if it is none
	Generation uint64 // of the consumer that delivered it
}

// Check returns nil if the broker may take m from a client, and sorts its
// headers by name. maxPayload is in bytes.
func (m *Message) Check(maxPayload int) *Error {
	if err := CheckTopic(m.Topic); err != nil {
		return err
	}
	if IsReserved(m.Topic) {
		return Errorf(CodeReservedTopic, "the topic %s begins with '$': such topics belong to the broker, choose another first character", quote(m.Topic))
	}
	if len(m.Payload) > maxPayload {
		return Exceeded(LimitPayload, "the payload has %d bytes, at most %d are allowed", len(m.Payload), maxPayload)
	}
	if err := checkText(m.ID, MaxIDBytes, CodeInvalidID, "id"); err != nil {
		return err
	}
	if err := checkText(m.Key, MaxKeyBytes, CodeInvalidKey, "ordering key"); err != nil {
		return err
	}
	if err := checkText(m.ContentType, MaxContentTypeBytes, CodeInvalidMessage, "content type"); err != nil {
		return err
	}
	if !m.ExpiresAt.IsZero() && !hasMicros(m.ExpiresAt) {
		return errExpiry(m.ExpiresAt)
	}
	return m.checkHeaders()
}

func (m *Message) checkHeaders() *Error {
	if len(m.Headers) == 0 {
		return nil
	}
	if len(m.Headers) > MaxHeaders {
		return Exceeded(LimitHeaders, "the message has more than %d headers", MaxHeaders)
	}
	total := 0
	for i := range m.Headers {
		h := &m.Headers[i]
		h.Name = lowerASCII(h.Name)
		if err := checkHeader(*h); err != nil {
			return err
		}
		total += len(h.Name) + len(h.Value)
	}
	if total > MaxHeaderTotalBytes {
		return Exceeded(LimitHeaderTotal, "the headers have %d bytes in all, at most %d are allowed", total, MaxHeaderTotalBytes)
	}
	slices.SortFunc(m.Headers, func(a, b Header) int { return strings.Compare(a.Name, b.Name) })
	for i := 1; i < len(m.Headers); i++ {
		if m.Headers[i].Name == m.Headers[i-1].Name {
			return Errorf(CodeInvalidHeader, "the header %s is given twice", quote(m.Headers[i].Name))
		}
	}
	return nil
}

// lowerASCII folds A to Z alone: strings.ToLower would turn the Kelvin sign into
// a k, and so let it pass.
func lowerASCII(s string) string {
	upper := func(c rune) bool { return c >= 'A' && c <= 'Z' }
	if !strings.ContainsFunc(s, upper) {
		return s
	}
	b := []byte(s)
	for i, c := range b {
		if upper(rune(c)) {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// errExpiry refuses a time of expiry that the wire cannot carry.
func errExpiry(t time.Time) *Error {
	return Errorf(CodeInvalidMessage, "the expiry %s is outside the years 1970 to 9999 in UTC", t.UTC().Format(time.RFC3339))
}

func checkHeader(h Header) *Error {
	if h.Name == "" || len(h.Name) > MaxHeaderNameBytes {
		err := Errorf(CodeInvalidHeader, "the header name %s has %d bytes, 1 to %d are allowed", quote(h.Name), len(h.Name), MaxHeaderNameBytes)
		if h.Name != "" {
			err = err.of(LimitHeaderName)
		}
		return err
	}
	for _, c := range []byte(h.Name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return Errorf(CodeInvalidHeader, "the header name %s has a character other than letters, digits, '-', '_' and '.'", quote(h.Name))
		}
	}
	return checkText(h.Value, MaxHeaderValueBytes, CodeInvalidHeader, "value of the header "+h.Name)
}

// textLimits are the limits of the short texts, by the code of what breaks their
// rules.
var textLimits = map[Code]Limit{
	CodeInvalidID:      LimitID,
	CodeInvalidKey:     LimitKey,
	CodeInvalidMessage: LimitContentType,
	CodeInvalidHeader:  LimitHeaderValue,
	CodeBadRequest:     LimitReason,
}

// checkText checks a short text: bounded, UTF-8, no control characters.
func checkText(s string, limit int, code Code, what string) *Error {
	switch {
	case len(s) > limit:
		return Errorf(code, "the %s has %d bytes, at most %d are allowed", what, len(s), limit).of(textLimits[code])
	case !utf8.ValidString(s):
		return Errorf(code, "the %s is not valid UTF-8", what)
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return Errorf(code, "the %s contains the control character %U", what, r)
		}
	}
	return nil
}
