package bridge

import (
	"slices"
	"strings"
	"time"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/protocol"
)

// A message is a record of Kafka: its key is the topic, its value the payload,
// its time the message's, and the rest stands in headers. All of them are
// optional: a key and a value make a message.
//
// Every other header of a record is one of the message, if its name and value
// are as a message may have them; else it is left out. Names that mean something
// here get a prefix, so that every message comes back as it was.
const (
	headerID          = "tidewire-id"
	headerContentType = "content-type"
	headerKey         = "tidewire-key"        // the ordering key
	headerExpiresAt   = "tidewire-expires-at" // RFC 3339
	headerOrigin      = "tidewire-origin"     // see Origin; of brokers only

	ownPrefix    = "tidewire-"
	escapePrefix = "tidewire-header-"
)

// expiryForm is RFC 3339 with as many digits as there are.
const expiryForm = "2006-01-02T15:04:05.999999Z07:00"

// encode returns the record of a message, without an origin.
func encode(m *protocol.Message) kafka.Record {
	r := kafka.Record{
		Key:     []byte(m.Topic),
		Value:   m.Payload,
		Time:    m.Time,
		Headers: make([]kafka.Header, 0, len(m.Headers)+5),
	}
	if r.Value == nil {
		r.Value = []byte{} // null is no message
	}
	add := func(name, value string) {
		if value != "" {
			r.Headers = append(r.Headers, kafka.Header{Key: name, Value: []byte(value)})
		}
	}
	add(headerID, m.ID)
	add(headerContentType, m.ContentType)
	add(headerKey, m.Key)
	if !m.ExpiresAt.IsZero() {
		add(headerExpiresAt, m.ExpiresAt.UTC().Format(expiryForm))
	}
	for _, h := range m.Headers {
		if taken(h.Name) {
			h.Name = escapePrefix + h.Name
		}
		r.Headers = append(r.Headers, kafka.Header{Key: h.Name, Value: []byte(h.Value)})
	}
	return r
}

// taken reports whether a header of that name is no plain header of a message.
func taken(name string) bool {
	return name == headerContentType || strings.HasPrefix(name, ownPrefix)
}

// decoded is what the headers of a record say.
type decoded struct {
	message protocol.Message // without topic, payload and what only the origin says
	origin  []byte           // nil if there is none
	marks   int              // how many headers are an origin
	left    int              // headers that were left out
}

// decodeHeaders reads the headers. ok is false if one that begins with tidewire-
// is not as it must be, or is there twice.
func decodeHeaders(headers []kafka.Header) (d decoded, ok bool) {
	seen := 0
	once := func(bit int) bool {
		first := seen&bit == 0
		seen |= bit
		return first
	}
	ok = true
	var others []protocol.Header
	for _, h := range headers {
		switch h.Key {
		case headerOrigin:
			d.origin = h.Value
			d.marks++
		case headerID:
			ok = once(1) && ok
			d.message.ID = string(h.Value)
		case headerKey:
			ok = once(2) && ok
			d.message.Key = string(h.Value)
		case headerExpiresAt:
			at, good := parseExpiry(string(h.Value))
			ok = once(4) && good && ok
			d.message.ExpiresAt = at
		case headerContentType:
			d.message.ContentType = string(h.Value)
		default:
			if plain, good := plainHeader(h); good {
				others = append(others, plain)
			} else {
				d.left++
			}
		}
	}
	check := protocol.Message{Topic: "t", ContentType: d.message.ContentType}
	if check.Check(0) != nil { // a name that others use too: no reason to refuse
		d.message.ContentType = ""
		d.left++
	}
	d.message.Headers = fit(others)
	d.left += len(others) - len(d.message.Headers)
	check = d.message
	check.Topic = "t"
	return d, ok && check.Check(0) == nil
}

// plainHeader returns the header of a message that stands in one of a record.
func plainHeader(h kafka.Header) (protocol.Header, bool) {
	name, value := asciiLower(h.Key), string(h.Value)
	if rest, escaped := strings.CutPrefix(name, escapePrefix); escaped && taken(rest) {
		name = rest
	} else if taken(name) {
		return protocol.Header{}, false // of a later version, or misspelt
	}
	plain := protocol.Header{Name: name, Value: value}
	return plain, plain.Check() == nil
}

// asciiLower folds A to Z alone, as the rules for headers do.
func asciiLower(s string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'A' && c <= 'Z' {
			return c + 'a' - 'A'
		}
		return c
	}, s)
}

// fit returns the headers sorted by name, of several with one name the last, and
// of those as many as a message may have.
func fit(headers []protocol.Header) []protocol.Header {
	if len(headers) == 0 {
		return nil
	}
	sorted := slices.Clone(headers)
	slices.SortStableFunc(sorted, func(a, b protocol.Header) int { return strings.Compare(a.Name, b.Name) })
	total := 0
	kept := sorted[:0]
	for i, h := range sorted {
		if i+1 < len(sorted) && sorted[i+1].Name == h.Name {
			continue
		}
		size := len(h.Name) + len(h.Value)
		if len(kept) < protocol.MaxHeaders && total+size <= protocol.MaxHeaderTotalBytes {
			kept, total = append(kept, h), total+size
		}
	}
	return kept
}

func parseExpiry(text string) (time.Time, bool) {
	if text == "" {
		return time.Time{}, true
	}
	at, err := time.Parse(time.RFC3339, text)
	return at.UTC().Truncate(time.Microsecond), err == nil && !at.IsZero()
}

// sign adds the origin, of which boot and sequence are given, to the record of a
// message.
func sign(s *sealer, rec *kafka.Record, m *protocol.Message, o Origin) {
	o.Session, o.Publisher = m.Origin, m.Publisher
	o.Micros = uint64(min(max(m.Time.UnixMicro(), 0), maxMicros))
	rec.Headers = append(rec.Headers, kafka.Header{Key: headerOrigin, Value: s.encode(o, m.Topic, m.ID, m.Payload)})
}
