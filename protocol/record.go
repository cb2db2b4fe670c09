package protocol

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of tidewire.v1.Message.
const (
	fieldTopic       = 1
	fieldID          = 2
	fieldPayload     = 3
	fieldContentType = 4
	fieldHeaders     = 5
	fieldKey         = 6
	fieldExpiresAt   = 7
	fieldEphemeral   = 8
	fieldPublisher   = 9
	fieldOffset      = 10
	fieldTime        = 11
	fieldOrigin      = 12
)

// placeBytes is what the place of a record takes at its end: a tag and eight
// bytes each for offset and time.
const placeBytes = 18

var errBadRecord = errors.New("record is not a tidewire.v1.Message")

// AppendRecord appends m as a record: the protobuf encoding of
// tidewire.v1.Message with the topic first and offset and time last, both blank
// until [PlaceRecord] fills them in. The publisher's goroutine does this work,
// so that the committer has little left to do.
func AppendRecord(b []byte, m *Message) []byte {
	b = appendContent(b, m)
	b = appendText(b, fieldPublisher, m.Publisher)
	if m.Origin != 0 {
		b = protowire.AppendTag(b, fieldOrigin, protowire.Fixed64Type)
		b = protowire.AppendFixed64(b, m.Origin)
	}
	b = protowire.AppendTag(b, fieldOffset, protowire.Fixed64Type)
	b = protowire.AppendFixed64(b, m.Position.Offset)
	b = protowire.AppendTag(b, fieldTime, protowire.Fixed64Type)
	return protowire.AppendFixed64(b, micros(m.Time))
}

// appendContent appends the fields that a publisher may set.
func appendContent(b []byte, m *Message) []byte {
	b = appendText(b, fieldTopic, m.Topic)
	b = appendText(b, fieldID, m.ID)
	if len(m.Payload) > 0 {
		b = protowire.AppendTag(b, fieldPayload, protowire.BytesType)
		b = protowire.AppendBytes(b, m.Payload)
	}
	b = appendText(b, fieldContentType, m.ContentType)
	for _, h := range m.Headers {
		b = protowire.AppendTag(b, fieldHeaders, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(textSize(h.Name)+textSize(h.Value)))
		b = appendText(b, 1, h.Name)
		b = appendText(b, 2, h.Value)
	}
	b = appendText(b, fieldKey, m.Key)
	if at := micros(m.ExpiresAt); at != 0 {
		b = protowire.AppendTag(b, fieldExpiresAt, protowire.Fixed64Type)
		b = protowire.AppendFixed64(b, at)
	}
	if m.Ephemeral {
		b = protowire.AppendTag(b, fieldEphemeral, protowire.VarintType)
		b = protowire.AppendVarint(b, 1)
	}
	return b
}

// PlaceRecord writes offset and time (microseconds since 1970) into a record
// made by [AppendRecord].
func PlaceRecord(record []byte, offset, time uint64) {
	at := len(record) - placeBytes
	binary.LittleEndian.PutUint64(record[at+1:], offset)
	binary.LittleEndian.PutUint64(record[at+10:], time)
}

// RecordPlace returns the offset and the time of a record.
func RecordPlace(record []byte) (offset, time uint64) {
	at := len(record) - placeBytes
	if at < 0 {
		return 0, 0
	}
	return binary.LittleEndian.Uint64(record[at+1:]), binary.LittleEndian.Uint64(record[at+10:])
}

// RecordTopic returns the topic of a record, as a part of it.
func RecordTopic(record []byte) []byte {
	if len(record) < 3 || record[0] != fieldTopic<<3|2 {
		return nil
	}
	topic, n := protowire.ConsumeBytes(record[1:])
	if n < 0 {
		return nil
	}
	return topic
}

// RecordExpiry returns when a record expires, in microseconds since 1970, or 0
// if it never does. It relies on the order in which [AppendRecord] writes the
// fields: those before are texts and bytes, which it passes over. Every record
// that is read for somebody goes through here, so it does no more than that.
func RecordExpiry(record []byte) uint64 {
	const expires = fieldExpiresAt<<3 | byte(protowire.Fixed64Type)
	record = skipTexts(record, expires)
	if len(record) < 9 || record[0] != expires {
		return 0
	}
	return binary.LittleEndian.Uint64(record[1:])
}

// RecordKey returns the ordering key of a record as a part of it, or nil. It relies
// on the same order.
func RecordKey(record []byte) []byte {
	const key = fieldKey<<3 | byte(protowire.BytesType)
	record = skipTexts(record, key)
	if len(record) < 2 || record[0] != key {
		return nil
	}
	text, n := protowire.ConsumeBytes(record[1:])
	if n < 0 {
		return nil
	}
	return text
}

// skipTexts passes over the texts and bytes whose tags are below one.
func skipTexts(record []byte, tag byte) []byte {
	for len(record) > 9 && record[0] < tag {
		size, n := uint64(record[1]), 1
		if size >= 0x80 {
			size, n = binary.Uvarint(record[1:])
		}
		if n <= 0 || size > uint64(len(record)-1-n) {
			return nil
		}
		record = record[1+n+int(size):]
	}
	return record
}

// RecordFrom reports whether a record was published by the session that the
// number stands for.
func RecordFrom(record []byte, origin uint64) bool {
	at := len(record) - placeBytes - 9
	if origin == 0 || at < 0 || record[at] != fieldOrigin<<3|1 || binary.LittleEndian.Uint64(record[at+1:]) != origin {
		return false // as nearly all are
	}
	m, err := ParseRecord(record) // it may be a text that looks like it
	return err == nil && m.Origin == origin
}

// ParseRecord reads a record, or any encoding of tidewire.v1.Message. The
// payload is a part of b; nothing else of b is kept: each text is a copy of its
// own, so that whoever keeps a topic or an id does not keep a payload with it.
// The term is not in the record, so Position has only the offset. Unknown
// fields are skipped.
func ParseRecord(b []byte) (Message, error) {
	var m Message
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return Message{}, errBadRecord
		}
		if err := m.setField(f); err != nil {
			return Message{}, err
		}
		b = rest
	}
	return m, nil
}

func (m *Message) setField(f field) error {
	switch f.typ {
	case protowire.BytesType:
		return m.setBytes(f.num, f.bytes())
	case protowire.Fixed64Type:
		m.setFixed(f.num, f.fixed64())
	case protowire.VarintType:
		if f.num == fieldEphemeral {
			m.Ephemeral = f.varint() != 0
		}
	}
	return nil
}

func (m *Message) setBytes(num protowire.Number, v []byte) error {
	switch num {
	case fieldTopic:
		m.Topic = string(v)
	case fieldID:
		m.ID = string(v)
	case fieldPayload:
		m.Payload = v
	case fieldContentType:
		m.ContentType = string(v)
	case fieldKey:
		m.Key = string(v)
	case fieldPublisher:
		m.Publisher = string(v)
	case fieldHeaders:
		if len(m.Headers) > MaxHeaders {
			return nil // one too many is kept, so that Check refuses the message
		}
		h, err := parseHeader(v)
		if err != nil {
			return err
		}
		m.Headers = append(m.Headers, h)
	}
	return nil
}

func (m *Message) setFixed(num protowire.Number, v uint64) {
	switch num {
	case fieldExpiresAt:
		m.ExpiresAt = fromMicros(v)
	case fieldOffset:
		m.Position.Offset = v
	case fieldTime:
		m.Time = fromMicros(v)
	case fieldOrigin:
		m.Origin = v
	}
}

func parseHeader(b []byte) (Header, error) {
	var h Header
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return Header{}, errBadRecord
		}
		switch {
		case f.num == 1 && f.typ == protowire.BytesType:
			h.Name = string(f.bytes())
		case f.num == 2 && f.typ == protowire.BytesType:
			h.Value = string(f.bytes())
		}
		b = rest
	}
	return h, nil
}

// fieldRecords is the field number of tidewire.v1.Deliver.records; blocks on
// disk and chunks keep each record behind this tag and its length, so that they
// go into a Deliver frame as they are.
const fieldRecords = 6

// Further field numbers of tidewire.v1.Deliver.
const (
	fieldAttempts  = 7
	fieldDelivered = 8 // the generation
)

// AppendFramed appends a record with the tag and the length that it has in a
// Deliver frame.
func AppendFramed(b, record []byte) []byte {
	b = protowire.AppendTag(b, fieldRecords, protowire.BytesType)
	return protowire.AppendBytes(b, record)
}

// FramedSize returns the size that [AppendFramed] gives to a record of n bytes.
func FramedSize(n int) int { return 1 + protowire.SizeBytes(n) }

// NextFramed splits the first record off b, which holds records as
// [AppendFramed] writes them. ok is false if b is empty or damaged.
func NextFramed(b []byte) (record, rest []byte, ok bool) {
	if len(b) < 2 || b[0] != fieldRecords<<3|2 {
		return nil, nil, false
	}
	record, n := protowire.ConsumeBytes(b[1:])
	if n < 0 {
		return nil, nil, false
	}
	return slices.Clip(record), b[1+n:], true
}

// maxMicros is the last microsecond of the year 9999, beyond which RFC 3339 has
// no form.
const maxMicros = 253402300799_999999

// micros and fromMicros convert between times and the wire; the zero time is 0.
func micros(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	switch s := t.Unix(); { // UnixMicro overflows far away
	case s < 0:
		return 0
	case s > maxMicros/1_000_000:
		return maxMicros
	}
	return uint64(t.UnixMicro())
}

// hasMicros reports whether the wire can carry the time. The first microsecond
// of 1970 is taken: it means that there is no time.
func hasMicros(t time.Time) bool {
	return micros(t) > 0 && t.Unix() <= maxMicros/1_000_000
}

func fromMicros(v uint64) time.Time {
	if v == 0 {
		return time.Time{}
	}
	return time.UnixMicro(int64(min(v, maxMicros))).UTC()
}
