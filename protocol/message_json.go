package protocol

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"
	"unicode/utf8"
)

// timeFormat is RFC 3339 in UTC, to the microsecond.
const timeFormat = "2006-01-02T15:04:05.000000Z"

// messageJSON is the one JSON form of a message. Empty fields are left out.
type messageJSON struct {
	ID          string      `json:"id,omitempty"`
	Topic       string      `json:"topic"`
	Position    string      `json:"position,omitempty"`
	Time        string      `json:"time,omitempty"`
	Publisher   string      `json:"publisher,omitempty"`
	Key         string      `json:"key,omitempty"`
	ContentType string      `json:"content_type,omitempty"`
	Headers     headersJSON `json:"headers,omitempty"`
	ExpiresAt   string      `json:"expires_at,omitempty"`
	Ephemeral   bool        `json:"ephemeral,omitempty"`
	Attempt     uint32      `json:"attempt,omitempty"`
	Generation  uint64      `json:"generation,omitempty"`
	PayloadJSON
}

// PayloadJSON is a payload in the one JSON form: one of valid UTF-8 is text, any
// other base64.
type PayloadJSON struct {
	Payload       *string `json:"payload,omitempty"`
	PayloadBase64 []byte  `json:"payload_base64,omitempty"`
}

// PayloadForm returns a payload as the one JSON form has it.
func PayloadForm(payload []byte) PayloadJSON {
	if utf8.Valid(payload) {
		return PayloadJSON{Payload: new(string(payload))}
	}
	return PayloadJSON{PayloadBase64: payload}
}

// publishJSON is what is read of the form: the fields that a publisher may set.
// The others are not even looked at.
type publishJSON struct {
	ID            string      `json:"id"`
	Topic         string      `json:"topic"`
	Key           string      `json:"key"`
	ContentType   string      `json:"content_type"`
	Headers       headersJSON `json:"headers"`
	ExpiresAt     string      `json:"expires_at"`
	Ephemeral     bool        `json:"ephemeral"`
	Payload       *string     `json:"payload"`
	PayloadBase64 *string     `json:"payload_base64"`
	JSON          rawJSON     `json:"json"` // any value, null too
}

// MarshalJSON writes the one JSON form.
func (m Message) MarshalJSON() ([]byte, error) {
	form := m.head()
	form.PayloadJSON = PayloadForm(m.Payload)
	return marshalJSON(form)
}

// MarshalHead writes the one JSON form without the payload.
func (m Message) MarshalHead() ([]byte, error) { return marshalJSON(m.head()) }

// head is the form without the payload.
func (m Message) head() messageJSON {
	form := messageJSON{
		ID: m.ID, Topic: m.Topic, Publisher: m.Publisher, Key: m.Key,
		ContentType: m.ContentType, Ephemeral: m.Ephemeral, Attempt: m.Attempt, Generation: m.Generation,
		Headers: m.Headers, Time: formatTime(m.Time), ExpiresAt: formatTime(m.ExpiresAt),
	}
	if !m.Position.IsZero() {
		form.Position = m.Position.String()
	}
	return form
}

// UnmarshalJSON reads what can be published: topic, id, key, content_type,
// headers, expires_at, ephemeral and exactly one of payload, payload_base64 and
// json. Everything else is ignored, so that what was delivered can be published
// again. Errors have the code invalid_message or invalid_header.
func (m *Message) UnmarshalJSON(b []byte) error {
	if !utf8.Valid(b) { // encoding/json would replace what is not, in the payload too
		return Errorf(CodeInvalidMessage, "the message is not valid UTF-8: send other bytes as `payload_base64`")
	}
	var form publishJSON
	if err := json.Unmarshal(b, &form); err != nil {
		if e, ok := errors.AsType[*Error](err); ok {
			return e
		}
		return Errorf(CodeInvalidMessage, "%s", jsonProblem("the message", err))
	}
	if n := loneSurrogates(b); n > 0 && n > loneSurrogates(form.JSON) { // which stays as it is
		return Errorf(CodeInvalidMessage, "the message has an escape such as \\ud800, half of a surrogate pair, which is no character: send other bytes as `payload_base64`")
	}
	*m = Message{
		Topic: form.Topic, ID: form.ID, Key: form.Key, ContentType: form.ContentType,
		Headers: form.Headers, Ephemeral: form.Ephemeral,
	}
	if form.ExpiresAt != "" {
		t, ok := parseTime(form.ExpiresAt)
		if !ok {
			return Errorf(CodeInvalidMessage, "expires_at %s is not an RFC 3339 time such as 2026-01-02T15:04:05Z", quote(form.ExpiresAt))
		}
		if t.IsZero() { // would count as none
			return errExpiry(t)
		}
		m.ExpiresAt = t
	}
	return m.setPayload(&form)
}

func (m *Message) setPayload(form *publishJSON) error {
	given := 0
	if form.Payload != nil {
		m.Payload, given = []byte(*form.Payload), given+1
	}
	if form.PayloadBase64 != nil {
		payload, err := base64.StdEncoding.DecodeString(*form.PayloadBase64)
		if err != nil {
			return Errorf(CodeInvalidMessage, "payload_base64 is not base64: %v", err)
		}
		m.Payload, given = payload, given+1
	}
	if form.JSON != nil {
		m.Payload, given = bytes.Clone(form.JSON), given+1
		if m.ContentType == "" {
			m.ContentType = "application/json"
		}
	}
	switch {
	case given == 0:
		return Errorf(CodeInvalidMessage, "the message has no payload: give `payload` (text), `payload_base64` (bytes) or `json` (any value); an empty one is \"payload\":\"\"")
	case given > 1:
		return Errorf(CodeInvalidMessage, "give one of payload, payload_base64 and json, not several")
	}
	return nil
}

// marshalJSON is json.Marshal without HTML escapes and without the final
// newline.
func marshalJSON(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(timeFormat)
}
