package protocol

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
)

// The tests of this file compare docs/protocol.md with the code. The table of
// codes in it is compared by the test of scripts/docs.

func page(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// examples returns the lines of the page that are frames, by type.
func examples(t *testing.T) map[string][]string {
	t.Helper()
	all, inside := map[string][]string{}, false
	for line := range strings.Lines(page(t)) {
		if strings.HasPrefix(line, "```") {
			inside = strings.HasPrefix(line, "```json")
			continue
		}
		if !inside {
			continue
		}
		var head struct{ Type string }
		if err := json.Unmarshal([]byte(line), &head); err != nil || head.Type == "" {
			t.Errorf("not a frame: %s (%v)", line, err)
		}
		all[head.Type] = append(all[head.Type], strings.TrimSuffix(line, "\n"))
	}
	return all
}

// frameFields returns the frames of one side with their fields.
func frameFields(side proto.Message) map[string]protoreflect.FieldDescriptors {
	all := map[string]protoreflect.FieldDescriptors{}
	fields := side.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		all[string(fields.Get(i).Name())] = fields.Get(i).Message().Fields()
	}
	return all
}

func TestPageShowsEveryFrame(t *testing.T) {
	shown := examples(t)
	frames := frameFields(&tidewirev1.ClientFrame{})
	maps.Copy(frames, frameFields(&tidewirev1.ServerFrame{}))
	for name := range frames {
		if len(shown[name]) == 0 {
			t.Errorf("the page has no example of %s", name)
		}
	}
	for name := range shown {
		if frames[name] == nil {
			t.Errorf("the page shows %s, which is no frame", name)
		}
	}
}

func TestPageExamplesOfClients(t *testing.T) {
	shown := examples(t)
	messageFields := []string{"topic", "id", "payload", "payload_base64", "json", "key", "content_type", "headers", "expires_at", "ephemeral"}
	for name, fields := range frameFields(&tidewirev1.ClientFrame{}) {
		for _, line := range shown[name] {
			frame, err := JSON{}.DecodeClient([]byte(line), testLimits)
			if err != nil || frame == nil {
				t.Errorf("%s: %v, %v", line, frame, err)
			}
			var keys map[string]json.RawMessage
			if err := json.Unmarshal([]byte(line), &keys); err != nil {
				t.Fatal(err)
			}
			for key := range keys {
				_, settles := ParseSettleKind(name)
				if key != "type" && fields.ByName(protoreflect.Name(key)) == nil && (!settles || key != "positions") {
					t.Errorf("%s: there is no field %s", line, key)
				}
			}
			if p, ok := frame.(*Publish); ok {
				checkExampleMessages(t, p, keys["messages"], messageFields)
			}
			if c, ok := frame.(*tidewirev1.Connect); ok && len(c.Subscriptions) == 0 {
				t.Errorf("%s: no subscription was read", line)
			}
		}
	}
}

func checkExampleMessages(t *testing.T, p *Publish, text json.RawMessage, known []string) {
	t.Helper()
	var messages []map[string]any
	if err := json.Unmarshal(text, &messages); err != nil {
		t.Fatal(err)
	}
	for i, m := range messages {
		if err := p.Messages[i].Check(1000); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		for key := range m {
			if !slices.Contains(known, key) {
				t.Errorf("%s: there is no field %s to publish", text, key)
			}
		}
	}
}

// TestPageExamplesOfServers compares each example, byte for byte, with what the
// codec writes.
func TestPageExamplesOfServers(t *testing.T) {
	shown := examples(t)
	at := Micros(time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC))
	position := func(offset uint64) Position { return Position{Term: goldenTerm, Offset: offset} }
	want := map[string]any{
		"welcome": &tidewirev1.Welcome{
			Ref: 1, Session: "s7", Server: "tidewire/0.1.0", PingIntervalMs: 25000, PingTimeoutMs: 10000, Time: at, ExpiresAt: at + uint64(time.Hour.Microseconds()),
			Limits: &tidewirev1.Limits{PayloadBytes: 262144, FrameBytes: 1048576, PublishMessages: 1000, InFlight: 1024, Subscriptions: 1000},
		},
		"subscribed": &tidewirev1.Subscribed{Sub: 1, Position: "p1z141z3-42", Cursors: []*tidewirev1.Cursor{{Offset: 42}}, Resumed: true, Behind: 3},
		"deliver": &Deliver{Sub: 1, Chunk: Chunk{Term: goldenTerm, After: 42, Through: 45, Count: 1, Records: record(
			Message{Topic: "room.42.chat", ID: "a1", Payload: []byte("hello"), Position: position(44), Time: Time(at)},
		)}},
		"caught_up": &tidewirev1.CaughtUp{Sub: 1},
		"gap":       &tidewirev1.Gap{Sub: 1, Reason: "retention", Term: "1z141z3", After: 10, Through: 41, Position: "p1z141z3-41", Offset: 41},
		"progress":  &Progress{Subs: []uint32{1}, At: position(60)},
		"published": &Published{Results: []PublishResult{
			{Ref: 10, Position: position(44)}, {Ref: 11, Err: Errorf(CodeInvalidTopic, "the topic is empty")},
		}},
		"acked":        &tidewirev1.Acked{Ref: 20, Sub: 5, Term: "1z141z3", Settled: 1},
		"unsubscribed": &tidewirev1.Unsubscribed{Sub: 2},
		"refreshed":    &tidewirev1.Refreshed{Ref: 11, ExpiresAt: at + uint64(time.Hour.Microseconds())},
		"go_away":      &tidewirev1.GoAway{ReconnectAfterMs: 800, Reason: "the broker is shutting down"},
		"ping":         &tidewirev1.Ping{Seq: 7},
		"error":        (&RequestError{Request: "publish", Ref: 10, Err: Errorf(CodeBadRequest, "...")}).Frame(),
	}
	checkConsumerExamples(t, shown, Time(at))
	for name := range frameFields(&tidewirev1.ServerFrame{}) {
		var text []byte
		if d, ok := want[name].(*Deliver); ok {
			text = appendDeliver(JSON{}, nil, d.Sub, &d.Chunk)
		} else {
			text = JSON{}.AppendServer(nil, want[name])
		}
		if !slices.Contains(shown[name], string(text)) {
			t.Errorf("the page shows %s as %s\nthe codec writes %s", name, shown[name], text)
		}
	}
}

// checkConsumerExamples compares the further examples, of a consumer.
func checkConsumerExamples(t *testing.T, shown map[string][]string, at time.Time) {
	t.Helper()
	m := Message{Topic: "orders.new", ID: "a1", Key: "customer-7", Payload: []byte("hello"), Position: Position{Term: goldenTerm, Offset: 44}, Time: at}
	chunk := Chunk{Term: goldenTerm, Count: 1, Attempts: []uint32{1}, Generation: 12, Records: record(m)}
	refused := []*tidewirev1.RefusedRange{{From: 43, Code: string(CodeNotPending)}}
	for name, want := range map[string][]byte{
		"subscribed": JSON{}.AppendServer(nil, &tidewirev1.Subscribed{Sub: 5, Position: "p1z141z3-42", Cursors: []*tidewirev1.Cursor{{Offset: 42}}, Behind: 3, Generation: 12, AckWaitMs: 60000}),
		"deliver":    appendDeliver(JSON{}, nil, 5, &chunk),
		"acked":      JSON{}.AppendServer(nil, &tidewirev1.Acked{Ref: 21, Sub: 5, Term: "1z141z3", Refused: refused}),
	} {
		if !slices.Contains(shown[name], string(want)) {
			t.Errorf("the page shows %s as %s\nthe codec writes %s", name, shown[name], want)
		}
	}
}

// TestPageQuotesLimits: each limit stands in the page as the code has it.
func TestPageQuotesLimits(t *testing.T) {
	text := page(t)
	for _, quoted := range []string{
		fmt.Sprintf("| `topic` | 1 to %d bytes of UTF-8, tokens separated by `.`. |", MaxTopicBytes),
		fmt.Sprintf("An id has at most %d bytes and no control characters.", MaxIDBytes),
		fmt.Sprintf("| `key` | Ordering key, at most %d bytes. |", MaxKeyBytes),
		fmt.Sprintf("| `content_type` | Media type of the payload, at most %d bytes. |", MaxContentTypeBytes),
		fmt.Sprintf("at most %d of them and %d bytes in all.", MaxHeaders, MaxHeaderTotalBytes),
		fmt.Sprintf("A name has 1 to %d letters", MaxHeaderNameBytes),
		fmt.Sprintf("a value has at most %d bytes", MaxHeaderValueBytes),
		fmt.Sprintf("N is at most %d |", MaxStartLast),
		fmt.Sprintf("A name is one token of at most %d bytes", MaxConsumerBytes),
		fmt.Sprintf("A frame has at most %d ranges.", MaxSettleRanges),
		fmt.Sprintf("`reason`, which has at most %d bytes", MaxReasonBytes),
		fmt.Sprintf("after %d comes 0", uint32(1<<32-1)),
		"| `" + SubprotocolProto + "` | binary",
		"| `" + SubprotocolJSON + "` | text",
		"offsets increase, are unique in their partition, below 2^53,",
	} {
		if !strings.Contains(text, quoted) {
			t.Errorf("the page does not say: %s", quoted)
		}
	}
	if MaxOffset != 1<<53-1 {
		t.Error("the page says that offsets are below 2^53")
	}
}

// TestPageSaysWhoComesBack compares the table of close codes with
// CloseRetryable.
func TestPageSaysWhoComesBack(t *testing.T) {
	text := page(t)
	for _, row := range []struct {
		text     string
		codes    [][2]uint16
		comeBack bool
	}{
		{"| 3000 to 3499, 4000 to 4499 | yes |", [][2]uint16{{3000, 3499}, {4000, 4499}}, true},
		{"| 3500 to 3999, 4500 to 4999 | no,", [][2]uint16{{3500, 3999}, {4500, 4999}}, false},
		{"| 1002, 1003, 1007 to 1010 | no |", [][2]uint16{{1002, 1003}, {1007, 1010}}, false},
		{"| 1000, 1001, 1005, 1006, 1011 to 1015, and any other | yes |", [][2]uint16{{1000, 1001}, {1005, 1006}, {1011, 1015}, {1016, 2999}, {5000, 65535}}, true},
	} {
		if !strings.Contains(text, row.text) {
			t.Errorf("the page does not say: %s", row.text)
		}
		for _, r := range row.codes {
			for code := int(r[0]); code <= int(r[1]); code++ {
				if CloseRetryable(uint16(code)) != row.comeBack {
					t.Errorf("%d is not as the page says: %s", code, row.text)
				}
			}
		}
	}
}

// TestEveryCodeIsInTheTable reads the constants from the source.
func TestEveryCodeIsInTheTable(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "codes.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	text, found := page(t), 0
	for _, decl := range file.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST {
			continue
		}
		for _, spec := range group.Specs {
			value := spec.(*ast.ValueSpec)
			code := Code(strings.Trim(value.Values[0].(*ast.BasicLit).Value, `"`))
			found++
			if code.index() < 0 {
				t.Errorf("%s (%s) is not in the table", value.Names[0], code)
			}
			if !strings.Contains(text, "| `"+string(code)+"` |") {
				t.Errorf("%s is not in the page", code)
			}
		}
	}
	if found != len(Codes()) || found == 0 {
		t.Errorf("%d constants, %d codes in the table", found, len(Codes()))
	}
}
