package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
)

var testLimits = FrameLimits{Messages: 100, Subscriptions: 100}

// sameFrame compares what two decoders or a decoder and its input hold.
func sameFrame(a, b any) bool {
	if a, ok := a.(proto.Message); ok {
		b, ok := b.(proto.Message)
		return ok && proto.Equal(a, b)
	}
	return reflect.DeepEqual(plain(a), plain(b))
}

// plain makes frames comparable: empty payloads and lists are as good as none.
func plain(frame any) any {
	switch f := frame.(type) {
	case *Publish:
		c := *f
		c.Messages = nil
		for _, m := range f.Messages {
			c.Messages = append(c.Messages, published(m))
		}
		return &c
	case *Published:
		return &Published{Results: append([]PublishResult{}, f.Results...)}
	case *Settle:
		c := *f
		c.Ranges = append([]OffsetRange{}, f.Ranges...)
		return &c
	case *Deliver:
		c := *f
		c.Records = append([]byte{}, f.Records...)
		return &c
	}
	return frame
}

func randomPublish(r *rand.Rand) *Publish {
	p := &Publish{Ref: r.Uint32(), Resume: r.IntN(2) == 0}
	if r.IntN(2) == 0 {
		p.RepeatAge = time.Duration(r.Int64N(int64(maxRepeatAge))).Truncate(time.Millisecond)
	}
	for range 1 + r.IntN(5) {
		p.Messages = append(p.Messages, randomMessage(r))
	}
	return p
}

// TestPublishIsTheProtobufEncoding compares the hand-written encoder and
// decoder with the generated structs.
func TestPublishIsTheProtobufEncoding(t *testing.T) {
	r := newRandom(t)
	for range 600 {
		p := randomPublish(r)
		g := &tidewirev1.Publish{Ref: p.Ref, Resume: p.Resume, RepeatAgeMs: uint64(p.RepeatAge.Milliseconds())}
		for i := range p.Messages {
			g.Messages = append(g.Messages, generated(&p.Messages[i]))
		}
		want := marshal(t, &tidewirev1.ClientFrame{Frame: &tidewirev1.ClientFrame_Publish{Publish: g}})
		got := Proto{}.AppendClient([]byte("before"), p)[len("before"):]
		if !bytes.Equal(got, want) {
			t.Fatalf("got  %x\nwant %x", got, want)
		}
		decoded, err := Proto{}.DecodeClient(got, testLimits)
		if err != nil || !sameFrame(decoded, p) {
			t.Fatalf("%+v, %v\nwant %+v", decoded, err, p)
		}
	}
}

// TestPublishInBothCodecs: the same messages give the same frame.
func TestPublishInBothCodecs(t *testing.T) {
	r := newRandom(t)
	for range 600 {
		p := randomPublish(r)
		text, err := json.Marshal(map[string]any{"type": "publish", "ref": p.Ref, "resume": p.Resume, "repeat_age_ms": p.RepeatAge.Milliseconds(), "messages": p.Messages})
		if err != nil {
			t.Fatal(err)
		}
		got, err := JSON{}.DecodeClient(text, testLimits)
		if err != nil || !sameFrame(got, p) {
			t.Fatalf("%s\n got %+v, %v\nwant %+v", text, got, err, p)
		}
	}
}

// TestClientCannotSetWhatTheBrokerSets: publisher, offset and time of a client
// are dropped.
func TestClientCannotSetWhatTheBrokerSets(t *testing.T) {
	m := &tidewirev1.Message{Topic: "a", Publisher: "admin", Offset: 7, Time: 8}
	b := marshal(t, &tidewirev1.ClientFrame{Frame: &tidewirev1.ClientFrame_Publish{Publish: &tidewirev1.Publish{Messages: []*tidewirev1.Message{m}}}})
	fromProto, err := Proto{}.DecodeClient(b, testLimits)
	if err != nil {
		t.Fatal(err)
	}
	fromJSON, err := JSON{}.DecodeClient([]byte(`{"type":"publish","messages":[{"topic":"a","payload":"","publisher":"admin","position":"p1-7","time":"2026-01-02T15:04:05Z"}]}`), testLimits)
	if err != nil {
		t.Fatal(err)
	}
	for _, frame := range []any{fromProto, fromJSON} {
		if m := frame.(*Publish).Messages[0]; m.Publisher != "" || !m.Position.IsZero() || !m.Time.IsZero() {
			t.Errorf("taken from a client: %+v", m)
		}
	}
}

func TestPublishedIsTheProtobufEncoding(t *testing.T) {
	r := newRandom(t)
	for range 600 {
		p, g := &Published{}, &tidewirev1.Published{}
		terms := []Term{NewTerm(), NewTerm()}
		for range r.IntN(6) {
			result := PublishResult{Ref: r.Uint32N(1000)}
			switch r.IntN(4) {
			case 0:
				result.Err = &Error{Code: CodeInvalidTopic, Message: randomText(r, 20), RetryAfter: time.Duration(r.IntN(5)) * time.Millisecond}
			case 1: // ephemeral
			default:
				result.Position = Position{Term: terms[r.IntN(10)/9], Partition: r.Uint32N(2) * r.Uint32(), Offset: 1 + r.Uint64N(MaxOffset)}
				result.Duplicate = r.IntN(2) == 0
			}
			p.Results = append(p.Results, result)
			gr := &tidewirev1.PublishResult{Ref: result.Ref, Partition: result.Position.Partition, Offset: result.Position.Offset, Duplicate: result.Duplicate}
			if result.Err != nil {
				gr.Error = ErrorFrame(0, 0, result.Err)
			}
			if term := result.Position.Term; term != 0 {
				if g.Term == "" {
					g.Term = term.String()
				}
				if g.Term != term.String() {
					gr.Term = term.String()
				}
			}
			g.Results = append(g.Results, gr)
		}
		want := marshal(t, &tidewirev1.ServerFrame{Frame: &tidewirev1.ServerFrame_Published{Published: g}})
		got := Proto{}.AppendServer([]byte("before"), p)[len("before"):]
		if !bytes.Equal(got, want) {
			t.Fatalf("%+v\n got %x\nwant %x", p, got, want)
		}
		decoded, err := Proto{}.DecodeServer(got)
		if err != nil || !sameFrame(decoded, p) {
			t.Fatalf("%+v, %v\nwant %+v", decoded, err, p)
		}
		checkPublishedJSON(t, p)
	}
}

func checkPublishedJSON(t *testing.T, p *Published) {
	t.Helper()
	var form struct {
		Type    string
		Results []struct {
			Ref       uint32
			Position  string
			Duplicate bool
			Error     *tidewirev1.Error
		}
	}
	text := JSON{}.AppendServer(nil, p)
	if err := json.Unmarshal(text, &form); err != nil || form.Type != "published" || len(form.Results) != len(p.Results) {
		t.Fatalf("%s: %v", text, err)
	}
	for i, r := range form.Results {
		want := p.Results[i]
		if r.Ref != want.Ref || r.Duplicate != want.Duplicate || (r.Error != nil) != (want.Err != nil) || (r.Position == "") != want.Position.IsZero() {
			t.Fatalf("%s: result %d is not %+v", text, i, want)
		}
		if r.Position != "" && r.Position != want.Position.String() {
			t.Fatalf("%s: result %d is not %+v", text, i, want)
		}
	}
}

func randomChunk(r *rand.Rand) *Chunk {
	c := &Chunk{Term: NewTerm(), Partition: r.Uint32N(2) * r.Uint32(), After: r.Uint64N(1000)}
	c.Through = c.After
	for range r.IntN(5) {
		c.Through += 1 + r.Uint64N(3)
		m := randomMessage(r)
		m.Position.Offset, m.Time = c.Through, time.UnixMicro(int64(c.Through)).UTC()
		c.Records = AppendFramed(c.Records, AppendRecord(nil, &m))
		c.Count++
	}
	if r.IntN(2) == 0 { // deliveries of a consumer
		c.After, c.Through, c.Generation = 0, 0, 1+r.Uint64N(1<<r.IntN(64))
		for range c.Count {
			c.Attempts = append(c.Attempts, 1+r.Uint32N(1<<r.IntN(32)))
		}
	}
	return c
}

func appendDeliver(codec Codec, b []byte, sub uint32, c *Chunk) []byte {
	tail := codec.AppendDeliverTail(nil, c)
	return append(codec.AppendDeliverHead(b, sub, len(tail)), tail...)
}

func TestDeliverIsTheProtobufEncoding(t *testing.T) {
	r := newRandom(t)
	for range 600 {
		c, sub := randomChunk(r), 1+r.Uint32()/2
		g := &tidewirev1.Deliver{Sub: sub, Partition: c.Partition, Term: c.Term.String(), After: c.After, Through: c.Through, Attempts: c.Attempts, Generation: c.Generation}
		for rest := c.Records; len(rest) > 0; {
			record, next, ok := NextFramed(rest)
			if !ok {
				t.Fatal("the chunk is damaged")
			}
			m := &tidewirev1.Message{}
			if err := proto.Unmarshal(record, m); err != nil {
				t.Fatal(err)
			}
			g.Records, rest = append(g.Records, m), next
		}
		want := marshal(t, &tidewirev1.ServerFrame{Frame: &tidewirev1.ServerFrame_Deliver{Deliver: g}})
		got := appendDeliver(Proto{}, []byte("before"), sub, c)[len("before"):]
		if !bytes.Equal(got, want) {
			t.Fatalf("got  %x\nwant %x", got, want)
		}
		decoded, err := Proto{}.DecodeServer(got)
		if err != nil || !sameFrame(decoded, &Deliver{Sub: sub, Chunk: *c}) {
			t.Fatalf("%+v, %v\nwant %+v", decoded, err, c)
		}
		checkDeliverJSON(t, sub, c)
	}
}

// checkDeliverJSON compares the text with what encoding/json makes of the same
// messages.
func checkDeliverJSON(t *testing.T, sub uint32, c *Chunk) {
	t.Helper()
	text := appendDeliver(JSON{}, nil, sub, c)
	var form struct {
		Type      string
		Sub       uint32
		Partition uint32
		After     *uint64
		Through   *uint64
		Position  *string
		Messages  []json.RawMessage
	}
	after, through, position := new(c.After), new(c.Through), new(c.End().String())
	if c.Generation != 0 { // a consumer's client keeps no cursor
		after, through, position = nil, nil, nil
	}
	if err := json.Unmarshal(text, &form); err != nil || form.Type != "deliver" || form.Sub != sub || form.Partition != c.Partition ||
		!reflect.DeepEqual([]any{form.After, form.Through, form.Position}, []any{after, through, position}) || len(form.Messages) != c.Count {
		t.Fatalf("%s: %v, want %+v", text, err, c)
	}
	i := 0
	for m, err := range c.Messages() {
		if err != nil {
			t.Fatal(err)
		}
		if m.Generation != c.Generation || c.Generation != 0 && m.Attempt != c.Attempts[i] || c.Generation == 0 && m.Attempt != 0 {
			t.Fatalf("message %d is attempt %d of generation %d, in %+v", i, m.Attempt, m.Generation, c)
		}
		if want, err := m.MarshalJSON(); err != nil || string(form.Messages[i]) != string(want) {
			t.Fatalf("message %d\n got %s\nwant %s, %v", i, form.Messages[i], want, err)
		}
		i++
	}
}

func TestDecodeServerRebuildsRecords(t *testing.T) {
	// A record whose tag and length are padded, as protobuf allows.
	body := append(appendText(nil, 3, "1"), 0xb2, 0x00, 0x83, 0x80, 0x00, 0x0a, 1, 'a')
	b := protowire.AppendBytes(protowire.AppendTag(nil, serverDeliver, protowire.BytesType), body)
	frame, err := Proto{}.DecodeServer(b)
	if err != nil {
		t.Fatal(err)
	}
	d := frame.(*Deliver)
	for m, err := range d.Messages() {
		if err != nil || m.Topic != "a" {
			t.Errorf("%+v, %v", m, err)
		}
	}
	clear(b)
	if record, _, ok := NextFramed(d.Records); !ok || string(RecordTopic(record)) != "a" {
		t.Error("the Deliver is a part of the frame")
	}
}

func TestTextThatIsNotUTF8IsRepaired(t *testing.T) {
	frames := []any{
		&tidewirev1.Welcome{Ref: 1, Subject: "a\xff", Limits: &tidewirev1.Limits{FrameBytes: 1}},
		&tidewirev1.GoAway{Elsewhere: []string{"ok", "\xff"}, Reason: "\xff"},
		&tidewirev1.Error{Message: "\xff"},
		&Published{Results: []PublishResult{{Ref: 1, Err: &Error{Code: "\xff", Message: "a\xff"}}}},
	}
	for _, frame := range frames {
		got, err := Proto{}.DecodeServer(Proto{}.AppendServer(nil, frame))
		if err != nil || got == nil {
			t.Errorf("%v: %v, %v", frame, got, err)
		}
		if text := (JSON{}).AppendServer(nil, frame); !json.Valid(text) || !strings.Contains(strings.ReplaceAll(string(text), "\uFFFD", `\ufffd`), `\ufffd`) {
			t.Errorf("%s", text)
		}
	}
	if welcome := frames[0].(*tidewirev1.Welcome); welcome.Subject != "a\xff" {
		t.Error("the caller's frame was changed")
	}
	connect := &tidewirev1.Connect{Client: "\xff", Subscriptions: []*tidewirev1.Subscribe{{Sub: 1, Filter: "\xff"}}}
	got, err := Proto{}.DecodeClient(Proto{}.AppendClient(nil, connect), testLimits)
	if c, ok := got.(*tidewirev1.Connect); !ok || c.Client != "\uFFFD" || c.Subscriptions[0].Filter != "\uFFFD" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestAppendClientOfNegativeAge(t *testing.T) {
	b := Proto{}.AppendClient(nil, &Publish{RepeatAge: -time.Hour, Messages: []Message{{Topic: "a"}}})
	if got, err := (Proto{}).DecodeClient(b, testLimits); err != nil || got.(*Publish).RepeatAge != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestRepeatAgeIsBounded(t *testing.T) {
	for _, ms := range []uint64{uint64(maxRepeatAge / time.Millisecond), 1 << 60, math.MaxUint64} {
		if got := repeatAge(ms); got != maxRepeatAge {
			t.Errorf("%d ms becomes %v", ms, got)
		}
	}
}

// A refusal is a frame that DecodeClient does not take.
type refusal struct {
	name  string
	codec Codec
	frame string
	code  Code
	says  string
	ref   uint32 // of the RequestError
	sub   uint32
	whole bool // the frame is unreadable: no RequestError
}

func clientBytes(num protowire.Number, body []byte) string {
	return string(protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), body))
}

func refusals() []refusal {
	publish := func(head []byte, messages int) []byte {
		for range messages {
			head = protowire.AppendBytes(protowire.AppendTag(head, 2, protowire.BytesType), []byte{0x0a, 1, 'a'})
		}
		return head
	}
	seven := appendUint(nil, 1, 7)
	bothSeven := appendUint(bytes.Clone(seven), 2, 7)
	settle := func(term string, ranges int) []byte {
		b := append(bytes.Repeat([]byte{0x2a, 2, 0x10, 5}, ranges), bothSeven...)
		return appendText(b, 4, term)
	}
	connect := &tidewirev1.Connect{Ref: 7}
	for range 101 {
		connect.Subscriptions = append(connect.Subscriptions, &tidewirev1.Subscribe{Sub: 1, Filter: "a"})
	}
	capable := &tidewirev1.Connect{Ref: 7, Capabilities: make([]string, maxCapabilities+1)}
	p, j := Proto{}, JSON{}
	ping := clientBytes(5, []byte{8, 7})
	long := strings.Repeat("9", 5000)
	return []refusal{
		{"empty", p, "", CodeBadFrame, "exactly one frame", 0, 0, true},
		{"text", p, `{"type":"connect"}`, CodeBadFrame, "", 0, 0, true},
		{"cut", p, "\x12\x05\x08", CodeBadFrame, "protobuf", 0, 0, true},
		{"huge length", p, "\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f", CodeBadFrame, "protobuf", 0, 0, true},
		{"long varint", p, "\x08" + strings.Repeat("\xff", 11), CodeBadFrame, "protobuf", 0, 0, true},
		{"frame number as varint", p, "\x10\x01", CodeBadFrame, "exactly one frame", 0, 0, true},
		{"two frames", p, ping + ping, CodeBadFrame, "exactly one frame", 0, 0, true},
		{"trailing byte", p, ping + "\x00", CodeBadFrame, "protobuf", 0, 0, true},
		{"deep groups", p, clientBytes(1, bytes.Repeat([]byte{0xa3, 0x06}, 20_000)), CodeBadFrame, "protobuf", 0, 0, true},
		{"text not UTF-8", p, clientBytes(3, []byte{0x12, 1, 0xff}), CodeBadFrame, "not valid UTF-8", 0, 0, true},
		{"damaged message", p, clientBytes(2, []byte{8, 7, 0x12, 1, 0xff}), CodeBadFrame, "tidewire.v1.Message", 0, 0, true},
		{"no message", p, clientBytes(2, seven), CodeBadRequest, "no message", 7, 0, false},
		{"message as a number", p, clientBytes(2, append(bytes.Clone(seven), 0x10, 1)), CodeBadRequest, "no message", 7, 0, false},
		{"too many messages", p, clientBytes(2, publish(bytes.Clone(seven), 101)), CodeTooManyMessages, "101 messages, at most 100", 7, 0, false},
		{"too many messages, ref behind them", p, clientBytes(2, append(publish(nil, 101), seven...)), CodeTooManyMessages, "101 messages, at most 100", 7, 0, false},
		{"too many subscriptions", p, string(p.AppendClient(nil, connect)), CodeTooManySubscriptions, "101 subscriptions, at most 100", 7, 0, false},
		{"settles nothing", p, clientBytes(8, bothSeven), CodeBadRequest, "the ack names no message", 7, 7, false},
		{"settles no term", p, clientBytes(9, settle("", 1)), CodeBadRequest, "the nack has no `term`", 7, 7, false},
		{"settles in what is no term", p, clientBytes(10, settle("-", 1)), CodeBadRequest, `"-" is not a term`, 7, 7, false},
		{"settles too many ranges", p, clientBytes(8, settle("z", 10_001)), CodeTooManyMessages, "the ack has 10001 ranges, at most 10000", 7, 7, false},
		{"settles too many ranges, damaged ones", p, clientBytes(11, append(bytes.Repeat([]byte{0x2a, 1, 0xff}, 10_001), bothSeven...)), CodeTooManyMessages, "the reject has 10001 ranges", 7, 7, false},
		{"settles offset 0", p, clientBytes(8, append(settle("z", 1), 0x2a, 0)), CodeBadRequest, "range from 0 through 0", 7, 7, false},
		{"settles backwards", p, clientBytes(8, append(settle("z", 1), 0x2a, 4, 0x10, 5, 0x18, 4)), CodeBadRequest, "range from 5 that ends before it, at 4", 7, 7, false},
		{"settles beyond all offsets", p, clientBytes(8, append(settle("z", 1), 0x2a, 13, 0x10, 5, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1)), CodeBadRequest, "from 1 to 9007199254740991", 7, 7, false},
		{"settles with a long reason", p, clientBytes(11, appendText(settle("z", 1), 8, strings.Repeat("x", 1025))), CodeBadRequest, "the reason has 1025 bytes, at most 1024", 7, 7, false},
		{"settles with an odd reason", p, clientBytes(11, appendText(settle("z", 1), 8, "a\nb\xff")), CodeBadRequest, "the reason is not valid UTF-8", 7, 7, false},
		{"damaged range", p, clientBytes(8, append(settle("z", 1), 0x2a, 1, 0xff)), CodeBadFrame, "protobuf", 0, 0, true},
		{"damaged ack", p, clientBytes(8, append(settle("z", 1), 0xff)), CodeBadFrame, "protobuf", 0, 0, true},
		{"too many capabilities", p, string(p.AppendClient(nil, capable)), CodeBadRequest, "65 capabilities, at most 64", 7, 0, false},

		{"empty", j, "", CodeBadFrame, "the frame is not JSON: unexpected end", 0, 0, true},
		{"binary", j, "\x12\x01\x00", CodeBadFrame, "not JSON", 0, 0, true},
		{"not UTF-8", j, `{"type":"pong","x":"` + "\xff" + `"}`, CodeBadFrame, "not valid UTF-8", 0, 0, true},
		{"surrogate in UTF-8", j, `{"type":"pong","x":"` + "\xed\xa0\x80" + `"}`, CodeBadFrame, "not valid UTF-8", 0, 0, true},
		{"two frames", j, `{"type":"pong"}{"type":"pong"}`, CodeBadFrame, "not JSON", 0, 0, true},
		{"NUL", j, `{"type":"pong"}` + "\x00", CodeBadFrame, "not JSON", 0, 0, true},
		{"NUL in a text", j, `{"type":"po` + "\x00" + `ng"}`, CodeBadFrame, "not JSON", 0, 0, true},
		{"deep", j, `{"type":"pong","x":` + strings.Repeat("[", 20_000), CodeBadFrame, "not JSON", 0, 0, true},
		{"array", j, `[]`, CodeBadFrame, "the frame is of the kind array, but must be an object", 0, 0, true},
		{"long number", j, long, CodeBadFrame, "the frame is of the kind number, but must be an object", 0, 0, true},
		{"null", j, `null`, CodeBadFrame, `no "type"`, 0, 0, true},
		{"no type", j, `{"ref":1}`, CodeBadFrame, `no "type"`, 0, 0, true},
		{"type is null", j, `{"type":null}`, CodeBadFrame, `no "type"`, 0, 0, true},
		{"type is a number", j, `{"type":1}`, CodeBadFrame, `the field "type" of the frame is of the kind number, but must be a string`, 0, 0, true},
		{"ref too large", j, `{"type":"publish","ref":4294967296}`, CodeBadFrame, "from 0 to 4294967295", 0, 0, true},
		{"ref far too large", j, `{"type":"publish","ref":` + long + `}`, CodeBadFrame, "from 0 to 4294967295", 0, 0, true},
		{"ref negative", j, `{"type":"publish","ref":-1}`, CodeBadFrame, "from 0 to 4294967295", 0, 0, true},
		{"ref broken", j, `{"type":"publish","ref":1.5}`, CodeBadFrame, "from 0 to 4294967295", 0, 0, true},
		{"no message", j, `{"type":"publish","ref":7}`, CodeBadRequest, "no message", 7, 0, false},
		{"messages are null", j, `{"type":"publish","ref":7,"messages":null}`, CodeBadRequest, "no message", 7, 0, false},
		{"messages are an object", j, `{"type":"publish","ref":7,"messages":{}}`, CodeBadRequest, `the field "messages" must be an array`, 7, 0, false},
		{"messages are numbers", j, `{"type":"publish","ref":7,"messages":[` + long + `]}`, CodeInvalidMessage, "message 1 of 1: the message is of the kind number", 7, 0, false},
		{"bad message", j, `{"type":"publish","ref":7,"messages":[{"topic":"a","payload":""},{"topic":5}]}`, CodeInvalidMessage, `message 2 of 2: the field "topic"`, 7, 0, false},
		{"bad header", j, `{"type":"publish","ref":7,"messages":[{"headers":{"a":1}}]}`, CodeInvalidHeader, `the header "a"`, 7, 0, false},
		{"too many messages", j, `{"type":"publish","ref":7,"messages":[` + strings.Repeat("0,", 100) + `0]}`, CodeTooManyMessages, "101 messages, at most 100", 7, 0, false},
		{"age negative", j, `{"type":"publish","ref":7,"repeat_age_ms":-1,"messages":[{}]}`, CodeBadRequest, `the field "repeat_age_ms" of the publish frame`, 7, 0, false},
		{"sub as text", j, `{"type":"subscribe","sub":"1"}`, CodeBadFrame, `the field "sub"`, 0, 0, true},
		{"no payload", j, `{"type":"publish","ref":7,"messages":[{"topic":"a","payload":""},{"topic":"a"}]}`, CodeInvalidMessage, "message 2 of 2: the message has no payload: give `payload`", 7, 0, false},
		{"half a pair in a message", j, `{"type":"publish","ref":7,"messages":[{"topic":"a","payload":"\udfff"}]}`, CodeInvalidMessage, "half of a surrogate pair", 7, 0, false},
		{"half a pair in a filter", j, `{"type":"subscribe","sub":7,"filter":"a\ud800"}`, CodeBadRequest, "the subscribe frame has an escape", 0, 7, false},
		{"filter as number", j, `{"type":"subscribe","sub":7,"filter":` + long + `}`, CodeBadRequest, `the field "filter" of the subscribe frame is of the kind number`, 0, 7, false},
		{"from as number", j, `{"type":"subscribe","sub":7,"from":42}`, CodeBadRequest, `the field "from"`, 0, 7, false},
		{"too many subscriptions", j, `{"type":"connect","ref":7,"subscriptions":[` + strings.Repeat("{},", 100) + `{}]}`, CodeTooManySubscriptions, "101 subscriptions, at most 100", 7, 0, false},
		{"too many capabilities", j, `{"type":"connect","ref":7,"capabilities":[` + strings.Repeat(`"",`, 64) + `""]}`, CodeBadRequest, "65 capabilities, at most 64", 7, 0, false},
		{"bad subscription", j, `{"type":"connect","ref":7,"subscriptions":[{},{"sub":-1}]}`, CodeBadRequest, `the field "sub" of subscription 2 of 2`, 7, 0, false},
		{"settles nothing", j, `{"type":"ack","ref":7,"sub":8,"up_to":true,"positions":[]}`, CodeBadRequest, "the ack names no message", 7, 8, false},
		{"settles a number", j, `{"type":"ack","ref":7,"sub":8,"positions":[` + long + `]}`, CodeBadRequest, "position 1 of 1 is of the kind number, but must be a string", 7, 8, false},
		{"settles an offset", j, `{"type":"nack","ref":7,"sub":8,"positions":["p1-1","42"]}`, CodeOffsetNotPosition, `position 2 of 2: "42" is an offset`, 7, 8, false},
		{"settles no position", j, `{"type":"extend","ref":7,"sub":8,"ranges":[{"from":"p1-1"},{"through":"p1-1"}]}`, CodeInvalidPosition, `range 2 of 2: "" is not a position`, 7, 8, false},
		{"settles a range as text", j, `{"type":"extend","ref":7,"sub":8,"ranges":["p1-1"]}`, CodeBadRequest, "range 1 of 1 is of the kind string, but must be an object", 7, 8, false},
		{"settles two terms", j, `{"type":"ack","ref":7,"sub":8,"positions":["p1-1"],"ranges":[{"from":"p2-1"}]}`, CodeBadRequest, "range 1 of 1 is of another term", 7, 8, false},
		{"settles from term to term", j, `{"type":"ack","ref":7,"sub":8,"ranges":[{"from":"p1-1","through":"p2-5"}]}`, CodeBadRequest, "of another term", 7, 8, false},
		{"settles from partition to partition", j, `{"type":"ack","ref":7,"sub":8,"ranges":[{"from":"p1-1","through":"p1-2_5"}]}`, CodeBadRequest, "ends in another partition", 7, 8, false},
		{"settles backwards", j, `{"type":"ack","ref":7,"sub":8,"ranges":[{"from":"p1-5","through":"p1-4"}]}`, CodeBadRequest, "range from 5 that ends before it", 7, 8, false},
		{"settles offset 0", j, `{"type":"ack","ref":7,"sub":8,"positions":["p1-0"]}`, CodeBadRequest, "range from 0", 7, 8, false},
		{"settles too many", j, `{"type":"ack","ref":7,"sub":8,"positions":[` + strings.Repeat("0,", 9_999) + `0],"ranges":[0]}`, CodeTooManyMessages, "the ack has 10001 ranges, at most 10000", 7, 8, false},
		{"settles with an odd reason", j, `{"type":"reject","ref":7,"sub":8,"positions":["p1-1"],"reason":"a\nb"}`, CodeBadRequest, "the reason contains the control character U+000A", 7, 8, false},
		{"settles with half a pair", j, `{"type":"reject","ref":7,"sub":8,"positions":["p1-1"],"reason":"\ud800"}`, CodeBadRequest, "the reject frame has an escape", 7, 8, false},
		{"delay negative", j, `{"type":"nack","ref":7,"sub":8,"positions":["p1-1"],"delay_ms":-1}`, CodeBadRequest, `the field "delay_ms" of the nack frame`, 7, 8, false},
		{"positions are an object", j, `{"type":"nack","ref":7,"positions":{}}`, CodeBadRequest, `the field "positions" must be an array`, 7, 0, false},
		{"factor as text", j, `{"type":"subscribe","sub":7,"consumer":"a","settings":{"backoff_factor":"2"}}`, CodeBadRequest, `the field "settings.backoff_factor" of the subscribe frame is of the kind string, but must be a number`, 0, 7, false},
		{"settings as list", j, `{"type":"subscribe","sub":7,"consumer":"a","settings":[]}`, CodeBadRequest, `the field "settings"`, 0, 7, false},
		{"seq too large", j, `{"type":"pong","seq":99999999999}`, CodeBadRequest, `the field "seq"`, 0, 0, false},
	}
}

func TestDecodeClientRefuses(t *testing.T) {
	for _, c := range refusals() {
		t.Run(c.codec.Subprotocol()+" "+c.name, func(t *testing.T) {
			frame, err := c.codec.DecodeClient([]byte(c.frame), testLimits)
			if frame != nil || err == nil {
				t.Fatalf("taken: %v", frame)
			}
			wantError(t, err, c.code, c.says, c.frame)
			request, ok := errors.AsType[*RequestError](err)
			if ok == c.whole {
				t.Fatalf("%T, %v", err, err)
			}
			if ok && (request.Ref != c.ref || request.Sub != c.sub) {
				t.Errorf("refused ref %d, sub %d", request.Ref, request.Sub)
			}
			if c.whole && c.code != CodeBadFrame {
				t.Errorf("an unreadable frame has the code %s", c.code)
			}
		})
	}
}

// TestAllocationIsBounded: no frame of 1 MiB, however full of small parts, costs
// a multiple of its size.
func TestAllocationIsBounded(t *testing.T) {
	const mib = 1 << 20
	small := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), nil)
	header := []byte{0x2a, 0}
	message := func(body []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), body)
	}
	for name, c := range map[string]struct {
		codec Codec
		frame string
	}{
		"messages":      {Proto{}, clientBytes(2, bytes.Repeat(small, mib/2))},
		"headers":       {Proto{}, clientBytes(2, message(bytes.Repeat(header, mib/2)))},
		"subscriptions": {Proto{}, clientBytes(1, bytes.Repeat([]byte{0x22, 0}, mib/2))},
		"capabilities":  {Proto{}, clientBytes(1, bytes.Repeat([]byte{0x1a, 0}, mib/2))},
		"unknown":       {Proto{}, clientBytes(1, bytes.Repeat([]byte{0x60, 0}, mib/2))},
		"groups":        {Proto{}, clientBytes(1, bytes.Repeat([]byte{0x63, 0x64}, mib/2))},
		"strings":       {Proto{}, clientBytes(1, bytes.Repeat([]byte{0x12, 0}, mib/2))},

		"ranges":       {Proto{}, clientBytes(8, bytes.Repeat([]byte{0x2a, 0}, mib/2))},
		"ten thousand": {Proto{}, clientBytes(8, append(bytes.Repeat([]byte{0x2a, 2, 0x10, 5}, 10_000), 0x22, 1, '1'))},

		"json positions":     {JSON{}, `{"type":"ack","positions":[` + strings.Repeat("0,", mib/2) + `0]}`},
		"json ranges":        {JSON{}, `{"type":"ack","ranges":[` + strings.Repeat("0,", mib/2) + `0]}`},
		"json messages":      {JSON{}, `{"type":"publish","messages":[` + strings.Repeat("0,", mib/2) + `0]}`},
		"json headers":       {JSON{}, `{"type":"publish","messages":[{"headers":{` + strings.Repeat(`"":"",`, mib/6) + `"":""}}]}`},
		"json subscriptions": {JSON{}, `{"type":"connect","subscriptions":[` + strings.Repeat("0,", mib/2) + `0]}`},
		"json capabilities":  {JSON{}, `{"type":"connect","capabilities":[` + strings.Repeat("0,", mib/2) + `0]}`},
		"json unknown":       {JSON{}, `{"type":"connect","x":[` + strings.Repeat("0,", mib/2) + `0]}`},
		"json deep":          {JSON{}, `{"type":"connect","x":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}`},
		"json fields":        {JSON{}, `{"type":"connect"` + strings.Repeat(`,"x":0`, mib/6) + `}`},
	} {
		frame := []byte(c.frame)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = c.codec.DecodeClient(frame, testLimits)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 2*mib {
			t.Errorf("%s: %d bytes are allocated", name, n)
		}
	}
}

func TestDecodeAllocations(t *testing.T) {
	p := &Publish{Ref: 1, Messages: []Message{{Topic: "room.42.chat", ID: "0123456789abcdef", Payload: make([]byte, 128)}}}
	b := Proto{}.AppendClient(nil, p)
	if n := testing.AllocsPerRun(100, func() { _, _ = Proto{}.DecodeClient(b, testLimits) }); n > 4 { // frame, list, topic, id
		t.Errorf("decoding a Publish of one message allocates %v times", n)
	}
	chunk := &Chunk{Term: 1, Records: AppendFramed(nil, AppendRecord(nil, &p.Messages[0]))}
	buffer := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { appendDeliverInto(buffer, chunk) }); n > 1 { // the term's text
		t.Errorf("writing a Deliver allocates %v times", n)
	}
	published := &Published{Results: []PublishResult{{Ref: 1, Position: Position{Term: NewTerm(), Offset: 1}}}}
	if n := testing.AllocsPerRun(100, func() { Proto{}.AppendServer(buffer, published) }); n > 2 {
		t.Errorf("writing a Published allocates %v times", n)
	}
}

func appendDeliverInto(b []byte, c *Chunk) []byte {
	b = Proto{}.AppendDeliverHead(b, 1, 100)
	return Proto{}.AppendDeliverTail(b, c)
}

// TestJSONElements compares the splitting of arrays with encoding/json.
func TestJSONElements(t *testing.T) {
	r := newRandom(t)
	var value func(depth int) any
	value = func(depth int) any {
		switch n := r.IntN(6); {
		case n == 0 || depth == 0:
			return randomText(r, 6)
		case n == 1:
			return `]["{}\` + randomText(r, 3)
		case n == 2:
			return map[string]any{randomText(r, 3): value(depth - 1), `",[`: value(depth - 1)}
		case n == 3:
			return nil
		}
		list := make([]any, r.IntN(4))
		for i := range list {
			list[i] = value(depth - 1)
		}
		return list
	}
	for range 500 {
		list := make([]any, r.IntN(4))
		for i := range list {
			list[i] = value(4)
		}
		text, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		var spaced bytes.Buffer
		if err := json.Indent(&spaced, text, " ", "\t"); err != nil {
			t.Fatal(err)
		}
		for _, text := range [][]byte{text, spaced.Bytes()} {
			var want []json.RawMessage
			if err := json.Unmarshal(text, &want); err != nil {
				t.Fatal(err)
			}
			elements, n, refused := rawJSON(text).array("x")
			if refused != nil || n != len(want) {
				t.Fatalf("%s: %d elements, want %d, %v", text, n, len(want), refused)
			}
			i := 0
			for element := range elements {
				if string(bytes.TrimSpace(element)) != string(want[i]) {
					t.Fatalf("%s: element %d is %s", text, i, element)
				}
				i++
			}
		}
	}
}
