package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
)

// JSON is the text codec, subprotocol tidewire.v1.json: each frame is an object
// whose "type" names it and whose other fields are those of the proto, with the
// same names. Messages have their one JSON form, positions are strings, times
// are RFC 3339; numbers that are 0 and booleans that are false are left out.
type JSON struct{}

// Subprotocol returns [SubprotocolJSON].
func (JSON) Subprotocol() string { return SubprotocolJSON }

// DecodeClient reads the text form of a ClientFrame.
func (JSON) DecodeClient(b []byte, limits FrameLimits) (any, error) {
	if !utf8.Valid(b) { // encoding/json would replace what is not, in payloads too
		return nil, badFrame(errNotUTF8)
	}
	var head struct {
		Type string `json:"type"`
		Ref  uint32 `json:"ref"`
		Sub  uint32 `json:"sub"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		if head.Type != "" && !isClientFrame(head.Type) {
			return nil, nil // whatever its "ref" is in a later version
		}
		return nil, Errorf(CodeBadFrame, "%s", jsonProblem("the frame", err))
	}
	if head.Type == "" {
		return nil, Errorf(CodeBadFrame, `the frame has no "type": write for example {"type":"connect"}`)
	}
	frame, err := decodeJSON(b, head.Type, limits)
	if err == nil {
		return frame, nil
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		e = Errorf(CodeBadRequest, "%s", jsonProblem("the "+head.Type+" frame", err))
	}
	return nil, &RequestError{Request: head.Type, Ref: head.Ref, Sub: head.Sub, Err: e}
}

func isClientFrame(frameType string) bool {
	switch frameType {
	case "publish", "connect", "subscribe", "unsubscribe", "pong", "refresh", "flow":
		return true
	default:
		_, settles := ParseSettleKind(frameType)
		return settles
	}
}

func decodeJSON(b []byte, frameType string, limits FrameLimits) (any, error) {
	// Of a publish frame the messages say so themselves.
	if frameType != "publish" && isClientFrame(frameType) && loneSurrogates(b) > 0 {
		return nil, Errorf(CodeBadRequest, `the %s frame has an escape such as \ud800, half of a surrogate pair, which is no character: leave it out`, frameType)
	}
	switch frameType {
	case "publish":
		return decodeJSONPublish(b, limits)
	case "connect":
		return decodeJSONConnect(b, limits)
	case "subscribe":
		return unmarshalAs[tidewirev1.Subscribe](b)
	case "unsubscribe":
		return unmarshalAs[tidewirev1.Unsubscribe](b)
	case "pong":
		return unmarshalAs[tidewirev1.Pong](b)
	case "refresh":
		return unmarshalAs[tidewirev1.Refresh](b)
	case "flow":
		return unmarshalAs[tidewirev1.Flow](b)
	}
	if kind, ok := ParseSettleKind(frameType); ok {
		return decodeJSONSettle(b, kind)
	}
	return nil, nil
}

// unmarshalAs reads a frame into its generated struct. Their json tags are the
// field names of the proto.
func unmarshalAs[T any](b []byte) (*T, error) {
	v := new(T)
	if err := json.Unmarshal(b, v); err != nil {
		return nil, err
	}
	return v, nil
}

func decodeJSONPublish(b []byte, limits FrameLimits) (any, error) {
	var form struct {
		Ref         uint32  `json:"ref"`
		Messages    rawJSON `json:"messages"`
		Resume      bool    `json:"resume"`
		RepeatAgeMs uint64  `json:"repeat_age_ms"`
	}
	if err := json.Unmarshal(b, &form); err != nil {
		return nil, err
	}
	messages, n, refusal := form.Messages.array("messages")
	if refusal == nil {
		refusal = checkPublish(n, limits)
	}
	if refusal != nil {
		return nil, refusal
	}
	p := &Publish{Ref: form.Ref, Resume: form.Resume, RepeatAge: repeatAge(form.RepeatAgeMs), Messages: make([]Message, 0, n)}
	for text := range messages {
		var m Message
		if err := m.UnmarshalJSON(text); err != nil {
			e := AsError(err)
			return nil, Errorf(e.Code, "message %d of %d: %s", len(p.Messages)+1, n, e.Message)
		}
		p.Messages = append(p.Messages, m)
	}
	return p, nil
}

func decodeJSONConnect(b []byte, limits FrameLimits) (any, error) {
	var form struct {
		Ref           uint32  `json:"ref"`
		Client        string  `json:"client"`
		Capabilities  rawJSON `json:"capabilities"`
		Subscriptions rawJSON `json:"subscriptions"`
	}
	if err := json.Unmarshal(b, &form); err != nil {
		return nil, err
	}
	subscriptions, n, refusal := form.Subscriptions.array("subscriptions")
	if refusal != nil {
		return nil, refusal
	}
	_, capabilities, refusal := form.Capabilities.array("capabilities")
	if refusal == nil {
		refusal = checkConnect(n, capabilities, limits)
	}
	if refusal != nil {
		return nil, refusal
	}
	c := &tidewirev1.Connect{Ref: form.Ref, Client: form.Client}
	if capabilities > 0 {
		if err := json.Unmarshal(form.Capabilities, &c.Capabilities); err != nil {
			return nil, err
		}
	}
	for text := range subscriptions {
		s, err := unmarshalAs[tidewirev1.Subscribe](text)
		if err != nil {
			return nil, Errorf(CodeBadRequest, "%s", jsonProblem(fmt.Sprintf("subscription %d of %d", len(c.Subscriptions)+1, n), err))
		}
		c.Subscriptions = append(c.Subscriptions, s)
	}
	return c, nil
}

// AppendServer appends the text form of a ServerFrame.
func (JSON) AppendServer(b []byte, frame any) []byte {
	switch f := frame.(type) {
	case *Published:
		return appendTyped(b, "published", publishedJSON(f))
	case *tidewirev1.Welcome:
		return appendTyped(b, "welcome", struct {
			*tidewirev1.Welcome
			Time      string `json:"time,omitempty"`
			ExpiresAt string `json:"expires_at,omitempty"`
		}{f, formatTime(Time(f.Time)), formatTime(Time(f.ExpiresAt))})
	case *tidewirev1.Refreshed:
		return appendTyped(b, "refreshed", struct {
			*tidewirev1.Refreshed
			ExpiresAt string `json:"expires_at,omitempty"`
		}{f, formatTime(Time(f.ExpiresAt))})
	case *Progress:
		return appendProgress(b, f.frame(), f.At.With(f.Others))
	case *tidewirev1.Progress:
		term, _ := ParseTerm(f.Term)
		return appendProgress(b, f, Position{Term: term, Partition: f.Partition, Offset: f.Through}.With(nil))
	case *tidewirev1.Acked:
		return appendTyped(b, "acked", ackedJSON(f))
	default:
		return appendTyped(b, frameType(frame), frame)
	}
}

func frameType(frame any) string {
	switch frame.(type) {
	case *tidewirev1.Subscribed:
		return "subscribed"
	case *tidewirev1.CaughtUp:
		return "caught_up"
	case *tidewirev1.Gap:
		return "gap"
	case *tidewirev1.GoAway:
		return "go_away"
	case *tidewirev1.Ping:
		return "ping"
	case *tidewirev1.Error:
		return "error"
	case *tidewirev1.Unsubscribed:
		return "unsubscribed"
	default:
		panic("protocol: not a frame of the server")
	}
}

func appendProgress(b []byte, f *tidewirev1.Progress, at Vector) []byte {
	return appendTyped(b, "progress", struct {
		*tidewirev1.Progress
		Position string `json:"position"`
	}{f, at.String()})
}

// publishedJSON is the text form of Published: positions are strings.
func publishedJSON(p *Published) any {
	type resultJSON struct {
		Ref       uint32            `json:"ref"`
		Position  string            `json:"position,omitempty"`
		Duplicate bool              `json:"duplicate,omitempty"`
		Error     *tidewirev1.Error `json:"error,omitempty"`
	}
	form := struct {
		Results []resultJSON `json:"results"`
	}{make([]resultJSON, 0, len(p.Results))}
	for i := range p.Results {
		r := &p.Results[i]
		result := resultJSON{Ref: r.Ref, Duplicate: r.Duplicate}
		if r.Err != nil {
			result.Error = ErrorFrame(0, 0, r.Err)
		} else if !r.Position.IsZero() {
			result.Position = r.Position.String()
		}
		form.Results = append(form.Results, result)
	}
	return form
}

// appendTyped appends v, which marshals as an object, with a "type" in front.
func appendTyped(b []byte, frameType string, v any) []byte {
	body, err := marshalJSON(v)
	if err != nil {
		panic("protocol: " + err.Error())
	}
	b = append(b, `{"type":"`...)
	b = append(b, frameType...)
	b = append(b, '"')
	if !bytes.Equal(body, []byte("{}")) {
		b = append(b, ',')
	}
	return append(b, body[1:]...)
}

// AppendDeliverHead appends the part of a deliver frame that differs from one
// subscription to the next.
func (JSON) AppendDeliverHead(b []byte, sub uint32, _ int) []byte {
	b = append(b, `{"type":"deliver","sub":`...)
	return strconv.AppendUint(b, uint64(sub), 10)
}

// AppendDeliverTail appends the part of a deliver frame that all subscriptions
// share.
func (JSON) AppendDeliverTail(b []byte, c *Chunk) []byte {
	if c.Partition != 0 {
		b = append(b, `,"partition":`...)
		b = strconv.AppendUint(b, uint64(c.Partition), 10)
	}
	if !c.Ephemeral() && c.Generation == 0 {
		b = append(b, `,"after":`...)
		b = strconv.AppendUint(b, c.After, 10)
		b = append(b, `,"through":`...)
		b = strconv.AppendUint(b, c.Through, 10)
		b = append(b, `,"position":"`...)
		b = append(c.AppendPlace(b, c.End()), '"')
	}
	b = append(b, `,"messages":[`...)
	first := true
	for m, err := range c.Messages() {
		if err != nil { // chunks are checked when they are read
			break
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		text, err := m.MarshalJSON()
		if err != nil {
			break
		}
		b = append(b, text...)
	}
	return append(b, "]}"...)
}

// Placed reports true: people and scripts keep one position.
func (JSON) Placed() bool { return true }
