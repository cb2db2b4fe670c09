package protocol

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
)

var update = flag.Bool("update", false, "write protocol/testdata/frames anew")

const framesDir = "testdata/frames"

// A goldenFrame is one entry of a file in testdata/frames, whose README.md
// describes it.
type goldenFrame struct {
	Name   string          `json:"name"`
	Proto  string          `json:"proto"`
	JSON   string          `json:"json"`
	Fields json.RawMessage `json:"fields"`
}

// A sample is a frame from which a goldenFrame is made.
type sample struct {
	name  string
	frame any    // nil if a reader skips it
	json  string // of client frames, which only clients write
	proto []byte // given where our encoder does not write it
}

var (
	goldenTerm = Term(4294967295) // 1z141z3
	goldenTime = time.Date(2026, 1, 2, 15, 4, 5, 6000, time.UTC)
)

func clientSamples() map[string][]sample {
	topic255 := strings.Repeat("t", MaxTopicBytes)
	one := []OffsetRange{{From: 44, Through: 44}}
	later := protowire.AppendBytes(protowire.AppendTag(nil, 100, protowire.BytesType), []byte("later"))
	return map[string][]sample{
		"connect": {
			{name: "empty", frame: &tidewirev1.Connect{}, json: `{"type":"connect"}`},
			{
				name: "restores subscriptions",
				frame: &tidewirev1.Connect{Ref: 1, Client: "my-client/1.0", Capabilities: []string{"later"}, Subscriptions: []*tidewirev1.Subscribe{
					{Sub: 1, Filter: "room.*.chat", From: "new"},
					{Sub: 4294967295, Filter: ">", From: "p3w5e11264sgsf-4294967295_9007199254740991", Stream: "main"},
				}},
				json: `{"type":"connect","ref":1,"client":"my-client/1.0","capabilities":["later"],"subscriptions":[{"sub":1,"filter":"room.*.chat","from":"new"},{"sub":4294967295,"filter":">","from":"p3w5e11264sgsf-4294967295_9007199254740991","stream":"main"}]}`,
			},
		},
		"publish": {
			{name: "one message", frame: &Publish{Ref: 10, Messages: []Message{{Topic: "room.42.chat", ID: "a1", Payload: []byte("hello")}}}, json: `{"type":"publish","ref":10,"messages":[{"topic":"room.42.chat","id":"a1","payload":"hello"}]}`},
			{
				name: "every field",
				frame: &Publish{Ref: 4294967295, Resume: true, RepeatAge: 90 * time.Second, Messages: []Message{{
					Topic: "a.b", ID: "1", Payload: []byte("{\"a\": 1}\n"), ContentType: "application/json", Headers: []Header{{"a", "1"}, {"b", "é"}, {"c", ""}},
					Key: "k", ExpiresAt: goldenTime, Ephemeral: true,
				}}},
				json: `{"type":"publish","ref":4294967295,"resume":true,"repeat_age_ms":90000,"messages":[{"topic":"a.b","id":"1","payload":"{\"a\": 1}\n","content_type":"application/json","headers":{"a":"1","b":"é","c":""},"key":"k","expires_at":"2026-01-02T15:04:05.000006Z","ephemeral":true}]}`,
			},
			{
				name:  "odd payloads",
				frame: &Publish{Messages: []Message{{Topic: "a"}, {Topic: "a", Payload: []byte{0xff, 0xfe, 0}}, {Topic: "a", Payload: []byte("\x00\u2028\"\\<\U0001f600")}}},
				json:  `{"type":"publish","messages":[{"topic":"a","payload":""},{"topic":"a","payload_base64":"//4A"},{"topic":"a","payload":"\u0000\u2028\"\\<😀"}]}`,
			},
			{name: "longest topic", frame: &Publish{Ref: 1, Messages: []Message{{Topic: topic255, Payload: []byte("x")}}}, json: `{"type":"publish","ref":1,"messages":[{"topic":"` + topic255 + `","payload":"x"}]}`},
			{name: "payload of 300 bytes", frame: &Publish{Ref: 1, Messages: []Message{{Topic: "a", Payload: bytes.Repeat([]byte("p"), 300)}}}, json: `{"type":"publish","ref":1,"messages":[{"topic":"a","payload":"` + strings.Repeat("p", 300) + `"}]}`},
		},
		"subscribe": {
			{name: "from now", frame: &tidewirev1.Subscribe{Sub: 1, Filter: "a"}, json: `{"type":"subscribe","sub":1,"filter":"a"}`},
			{name: "from a position", frame: &tidewirev1.Subscribe{Sub: 2, Filter: "orders.>", From: "p1z141z3-42", Stream: "main"}, json: `{"type":"subscribe","sub":2,"filter":"orders.>","from":"p1z141z3-42","stream":"main"}`},
			{name: "no credit yet, conflated, without echo", frame: &tidewirev1.Subscribe{Sub: 3, Filter: "prices.*", From: "last-per-topic", Credit: new(uint32(0)), Slow: "conflate", ConflateMs: 200, Echo: new(false)}, json: `{"type":"subscribe","sub":3,"filter":"prices.*","from":"last-per-topic","credit":0,"slow":"conflate","conflate_ms":200,"echo":false}`},
			{name: "credit, disconnected when slow, with echo", frame: &tidewirev1.Subscribe{Sub: 4, Filter: "a", Credit: new(uint32(4294967295)), Slow: "disconnect", Echo: new(true)}, json: `{"type":"subscribe","sub":4,"filter":"a","credit":4294967295,"slow":"disconnect","echo":true}`},
			{name: "member of a consumer", frame: &tidewirev1.Subscribe{Sub: 5, Consumer: "billing"}, json: `{"type":"subscribe","sub":5,"consumer":"billing"}`},
			{name: "creates a consumer, every setting at its zero", frame: &tidewirev1.Subscribe{Sub: 6, Filter: "orders.>", Consumer: "billing", Settings: &tidewirev1.ConsumerSettings{
				AckWaitMs: new(uint64(0)), BackoffBaseMs: new(uint64(0)), BackoffCapMs: new(uint64(0)), BackoffFactor: new(0.0), BackoffJitter: new(false),
				MaxDeliver: new(uint32(0)), MaxInFlight: new(uint32(0)), MaxWaiting: new(uint32(0)), MaxInFlightBytes: new(uint64(0)), Exclusive: new(false), Ordered: new(false),
			}}, json: `{"type":"subscribe","sub":6,"filter":"orders.>","consumer":"billing","settings":{"ack_wait_ms":0,"backoff_base_ms":0,"backoff_cap_ms":0,"backoff_factor":0,"backoff_jitter":false,"max_deliver":0,"max_in_flight":0,"max_waiting":0,"max_in_flight_bytes":0,"exclusive":false,"ordered":false}}`},
			{name: "creates a consumer, every setting", frame: &tidewirev1.Subscribe{Sub: 7, Filter: "orders.>", From: "new", Stream: "main", Consumer: "é", Window: 8, Settings: &tidewirev1.ConsumerSettings{
				AckWaitMs: new(uint64(30000)), BackoffBaseMs: new(uint64(1000)), BackoffCapMs: new(uint64(60000)), BackoffFactor: new(2.5), BackoffJitter: new(true),
				MaxDeliver: new(uint32(10)), MaxInFlight: new(uint32(256)), MaxWaiting: new(uint32(10000)), MaxInFlightBytes: new(uint64(4194304)), Exclusive: new(true), Ordered: new(true),
			}}, json: `{"type":"subscribe","sub":7,"filter":"orders.>","from":"new","stream":"main","consumer":"é","window":8,"settings":{"ack_wait_ms":30000,"backoff_base_ms":1000,"backoff_cap_ms":60000,"backoff_factor":2.5,"backoff_jitter":true,"max_deliver":10,"max_in_flight":256,"max_waiting":10000,"max_in_flight_bytes":4194304,"exclusive":true,"ordered":true}}`},
		},
		"ack": ackSamples(),
		"nack": {
			{name: "as the settings say", frame: &Settle{Kind: SettleNack, Ref: 21, Sub: 5, Generation: 12, Term: goldenTerm, Ranges: one}, json: `{"type":"nack","ref":21,"sub":5,"generation":12,"positions":["p1z141z3-44"]}`},
			{name: "at once", frame: &Settle{Kind: SettleNack, Sub: 5, Term: goldenTerm, Ranges: one, Delay: new(time.Duration(0)), Confirm: true}, json: `{"type":"nack","sub":5,"positions":["p1z141z3-44"],"delay_ms":0,"confirm":true}`},
			{name: "in five seconds", frame: &Settle{Kind: SettleNack, Ref: 1, Sub: 5, Term: goldenTerm, Ranges: one, Delay: new(5 * time.Second)}, json: `{"type":"nack","ref":1,"sub":5,"positions":["p1z141z3-44"],"delay_ms":5000}`},
		},
		"extend": {
			{name: "as the settings say", frame: &Settle{Kind: SettleExtend, Ref: 22, Sub: 5, Generation: 12, Term: goldenTerm, Ranges: one}, json: `{"type":"extend","ref":22,"sub":5,"generation":12,"positions":["p1z141z3-44"]}`},
			{name: "by a minute", frame: &Settle{Kind: SettleExtend, Sub: 5, Term: goldenTerm, Ranges: one, Delay: new(time.Minute), Confirm: true}, json: `{"type":"extend","sub":5,"positions":["p1z141z3-44"],"by_ms":60000,"confirm":true}`},
		},
		"reject": {
			{name: "without a reason", frame: &Settle{Kind: SettleReject, Sub: 5, Term: goldenTerm, Ranges: one}, json: `{"type":"reject","sub":5,"positions":["p1z141z3-44"]}`},
			{name: "with a reason", frame: &Settle{Kind: SettleReject, Ref: 23, Sub: 5, Generation: 12, Term: goldenTerm, Ranges: one, Confirm: true, Reason: "é is no amount"}, json: `{"type":"reject","ref":23,"sub":5,"generation":12,"positions":["p1z141z3-44"],"confirm":true,"reason":"é is no amount"}`},
		},
		"unsubscribe": {{name: "one", frame: &tidewirev1.Unsubscribe{Sub: 2}, json: `{"type":"unsubscribe","sub":2}`}},
		"pong":        {{name: "zero", frame: &tidewirev1.Pong{}, json: `{"type":"pong"}`}, {name: "largest", frame: &tidewirev1.Pong{Seq: 4294967295}, json: `{"type":"pong","seq":4294967295}`}},
		"refresh":     {{name: "token", frame: &tidewirev1.Refresh{Ref: 11, Token: "a.b.c"}, json: `{"type":"refresh","ref":11,"token":"a.b.c"}`}},
		"flow":        {{name: "one", frame: &tidewirev1.Flow{Sub: 3, Credit: 65536}, json: `{"type":"flow","sub":3,"credit":65536}`}},
		"unknown_to_servers": {
			{name: "field inside a frame", frame: &tidewirev1.Pong{Seq: 7}, proto: []byte(clientBytes(5, append([]byte{8, 7}, later...))), json: `{"type":"pong","seq":7,"later":{"a":[1]}}`},
			{name: "field beside a frame", frame: &tidewirev1.Pong{Seq: 7}, proto: append(bytes.Clone(later), clientBytes(5, []byte{8, 7})...), json: `{"type":"pong","seq":7,"later":null}`},
			{name: "frame", proto: []byte(clientBytes(15, []byte{8, 7})), json: `{"type":"later","ref":7}`},
			{name: "nothing but a field beside", proto: later, json: `{"type":"later","ref":"x"}`},
		},
	}
}

func ackSamples() []sample {
	return []sample{
		{name: "one message", frame: &Settle{Ref: 20, Sub: 5, Generation: 12, Term: goldenTerm, Ranges: []OffsetRange{{From: 44, Through: 44}}, Confirm: true}, json: `{"type":"ack","ref":20,"sub":5,"generation":12,"positions":["p1z141z3-44"],"confirm":true}`},
		{name: "all up to it, unconfirmed", frame: &Settle{Sub: 5, Term: goldenTerm, Ranges: []OffsetRange{{From: 44, Through: 44}}, UpTo: true}, json: `{"type":"ack","sub":5,"positions":["p1z141z3-44"],"up_to":true}`},
		{
			name: "ranges, another partition, largest numbers",
			frame: &Settle{Ref: 4294967295, Sub: 4294967295, Generation: MaxOffset, Term: 1<<64 - 1, Ranges: []OffsetRange{
				{From: 7, Through: 7}, {Partition: 4294967295, From: MaxOffset, Through: MaxOffset}, {From: 1, Through: 2}, {Partition: 3, From: 1, Through: MaxOffset},
			}},
			json: `{"type":"ack","ref":4294967295,"sub":4294967295,"generation":9007199254740991,"positions":["p3w5e11264sgsf-7","p3w5e11264sgsf-4294967295_9007199254740991"],"ranges":[{"from":"p3w5e11264sgsf-1","through":"p3w5e11264sgsf-2"},{"from":"p3w5e11264sgsf-3_1","through":"p3w5e11264sgsf-3_9007199254740991"}]}`,
		},
		{name: "a range that ends where it begins", frame: &Settle{Sub: 5, Term: goldenTerm, Ranges: []OffsetRange{{From: 44, Through: 44}}}, json: `{"type":"ack","sub":5,"ranges":[{"from":"p1z141z3-44"}]}`},
	}
}

func record(m Message) []byte { return AppendFramed(nil, AppendRecord(nil, &m)) }

func deliverSamples() []sample {
	at := func(partition uint32, offset uint64) Position {
		return Position{Term: goldenTerm, Partition: partition, Offset: offset}
	}
	join := func(records ...[]byte) []byte { return bytes.Join(records, nil) }
	return []sample{
		{name: "one message", frame: &Deliver{Sub: 1, Chunk: Chunk{Term: goldenTerm, After: 42, Through: 45, Count: 1, Records: record(
			Message{Topic: "room.42.chat", ID: "a1", Payload: []byte("hello"), Position: at(0, 44), Time: goldenTime},
		)}}},
		{name: "one of several partitions", frame: &Deliver{Sub: 1, Chunk: Chunk{Partition: 1, Term: goldenTerm, After: 42, Through: 45, Count: 1, Others: []Place{{0, 17}, {3, 0}}, Records: record(
			Message{Topic: "room.42.chat", ID: "a1", Payload: []byte("hello"), Position: at(1, 44), Time: goldenTime},
		)}}},
		{name: "ephemeral", frame: &Deliver{Sub: 1, Chunk: Chunk{Count: 1, Records: record(
			Message{Topic: "room.42.typing", Ephemeral: true, Payload: []byte("x"), Publisher: "user-1", Time: goldenTime, Origin: 1<<64 - 2},
		)}}},
		{name: "of a consumer", frame: &Deliver{Sub: 5, Chunk: Chunk{Term: goldenTerm, Count: 1, Attempts: []uint32{1}, Generation: 12, Records: record(
			Message{Topic: "orders.new", ID: "a1", Key: "customer-7", Payload: []byte("hello"), Position: at(0, 44), Time: goldenTime},
		)}}},
		{name: "of a consumer, repeats, another partition", frame: &Deliver{Sub: 5, Chunk: Chunk{Term: goldenTerm, Partition: 3, Count: 2, Attempts: []uint32{4294967295, 1}, Generation: MaxOffset, Records: join(
			record(Message{Topic: "orders.new", ID: "1", Position: at(3, 9), Time: goldenTime}),
			record(Message{Topic: "orders.new", Position: at(3, 8), Time: goldenTime}),
		)}}},
		{name: "nothing matches", frame: &Deliver{Sub: 1, Chunk: Chunk{Term: goldenTerm, Through: 7}}},
		{name: "largest numbers", frame: &Deliver{Sub: 4294967295, Chunk: Chunk{Term: 1<<64 - 1, Partition: 4294967295, After: MaxOffset - 1, Through: MaxOffset, Count: 1, Records: record(
			Message{Topic: strings.Repeat("t", MaxTopicBytes), Position: at(4294967295, MaxOffset), Time: Time(maxMicros)},
		)}}},
		{name: "every field, another partition, odd payloads", frame: &Deliver{Sub: 2, Chunk: Chunk{Term: goldenTerm, Partition: 3, After: 10, Through: 20, Count: 4, Records: join(
			record(Message{
				Topic: "a.b", ID: "1", Payload: []byte("{}"), ContentType: "application/json", Headers: []Header{{"a", "1"}, {"b", "é"}}, Key: "k",
				ExpiresAt: goldenTime.Add(time.Hour), Publisher: "user-1", Position: at(3, 11), Time: goldenTime,
			}),
			record(Message{Topic: "a", ID: "2", Payload: []byte{0xff, 0xfe, 0}, Position: at(3, 12), Time: goldenTime}),
			record(Message{Topic: "a", Payload: []byte("\x00\u2028\"\\<\U0001f600"), Position: at(3, 13), Time: goldenTime}),
			record(Message{Topic: "a", ID: "4", Payload: bytes.Repeat([]byte("p"), 300), Position: at(3, 14), Time: goldenTime, Origin: 7}),
		)}}},
	}
}

func serverSamples() map[string][]sample {
	later := protowire.AppendBytes(protowire.AppendTag(nil, 100, protowire.BytesType), []byte("later"))
	server := func(num protowire.Number, body []byte) []byte { return []byte(clientBytes(num, body)) }
	refused := &Error{Code: CodeStorageFull, Message: "the disk is full", RetryAfter: 1500 * time.Millisecond}
	return map[string][]sample{
		"welcome": {
			{name: "anonymous", frame: &tidewirev1.Welcome{
				Ref: 1, Session: "s7", Server: "tidewire/0.1.0", PingIntervalMs: 25000, PingTimeoutMs: 10000, Time: Micros(goldenTime),
				Limits: &tidewirev1.Limits{PayloadBytes: 262144, FrameBytes: 1048576, PublishMessages: 1000, InFlight: 1024, Subscriptions: 1000},
			}},
			{name: "subject", frame: &tidewirev1.Welcome{Subject: "user-é", Time: maxMicros}},
			{name: "expires", frame: &tidewirev1.Welcome{Ref: 1, Subject: "ann", Time: Micros(goldenTime), ExpiresAt: Micros(goldenTime.Add(time.Hour))}},
		},
		"published": {
			{name: "one", frame: &Published{Results: []PublishResult{{Ref: 10, Position: Position{Term: goldenTerm, Offset: 44}}}}},
			{name: "refused, ephemeral, duplicate of an older term, another partition", frame: &Published{Results: []PublishResult{
				{Ref: 1, Err: Errorf(CodeInvalidTopic, "the topic is empty")},
				{Ref: 2},
				{Ref: 3, Position: Position{Term: goldenTerm, Offset: MaxOffset}},
				{Ref: 4, Position: Position{Term: 35, Offset: 7}, Duplicate: true},
				{Ref: 4294967295, Position: Position{Term: goldenTerm, Partition: 3, Offset: 1}},
				{Ref: 0, Err: refused},
			}}},
		},
		"subscribed": {
			{name: "resumed", frame: &tidewirev1.Subscribed{Sub: 1, Position: "p1z141z3-42", Cursors: []*tidewirev1.Cursor{{Offset: 42}}, Resumed: true, Behind: 3}},
			{name: "empty log", frame: &tidewirev1.Subscribed{Sub: 1, Position: "p1z141z3-0", Cursors: []*tidewirev1.Cursor{{}}}},
			{name: "several partitions", frame: &tidewirev1.Subscribed{Sub: 2, Position: "p1z141z3-9007199254740991-1_7-3_42", Cursors: []*tidewirev1.Cursor{{Offset: MaxOffset}, {Partition: 1, Offset: 7}, {Partition: 3, Offset: 42}}, Behind: MaxOffset}},
			{name: "member of a consumer", frame: &tidewirev1.Subscribed{Sub: 5, Position: "p1z141z3-42", Cursors: []*tidewirev1.Cursor{{Offset: 42}}, Behind: 3, Generation: 12, AckWaitMs: 60000}},
			{name: "consumer was created", frame: &tidewirev1.Subscribed{Sub: 5, Position: "p1z141z3-0", Cursors: []*tidewirev1.Cursor{{}}, Generation: MaxOffset, Created: true, AckWaitMs: 30000}},
		},
		"deliver":   deliverSamples(),
		"caught_up": {{name: "one", frame: &tidewirev1.CaughtUp{Sub: 1}}},
		"gap": {
			{name: "retention", frame: &tidewirev1.Gap{Sub: 1, Reason: "retention", Term: "1z141z3", After: 10, Through: 41, Position: "p1z141z3-41", Offset: 41}},
			{name: "other log", frame: &tidewirev1.Gap{Sub: 1, Reason: "other_log", Position: "p1z141z3-0"}},
			{name: "counted", frame: &tidewirev1.Gap{Sub: 1, Reason: "retention", Term: "1z141z3", After: 41, Through: 41, Position: "p1z141z3-41", Offset: 41, Missed: 3}},
			{name: "ephemeral", frame: &tidewirev1.Gap{Sub: 1, Reason: "ephemeral", Term: "1z141z3", After: 41, Through: 41, Position: "p1z141z3-41", Offset: 41, Missed: 12}},
			{name: "rolled back, another partition", frame: &tidewirev1.Gap{Sub: 2, Partition: 3, Reason: "rolled_back", Term: "z", After: 10, Through: MaxOffset, Position: "p1z141z3-3_10", Offset: 10}},
			{name: "one of several partitions", frame: &tidewirev1.Gap{Sub: 2, Partition: 1, Reason: "retention", Term: "1z141z3", After: 10, Through: 41, Position: "p1z141z3-42-1_41-3_7", Offset: 41}},
		},
		"progress": {
			{name: "two subscriptions", frame: &Progress{Subs: []uint32{1, 4294967295}, At: Position{Term: goldenTerm, Offset: 60}}},
			{name: "another partition", frame: &Progress{Subs: []uint32{1}, At: Position{Term: goldenTerm, Partition: 3, Offset: MaxOffset}}},
			{name: "one of several partitions", frame: &Progress{Subs: []uint32{1}, At: Position{Term: goldenTerm, Partition: 1, Offset: 60}, Others: []Place{{0, 42}, {3, MaxOffset}}}},
		},
		"go_away": {{name: "empty", frame: &tidewirev1.GoAway{}}, {name: "elsewhere", frame: &tidewirev1.GoAway{ReconnectAfterMs: 800, Elsewhere: []string{"wss://a.example", "wss://b.example"}, Reason: "the broker is shutting down"}}},
		"ping":    {{name: "zero", frame: &tidewirev1.Ping{}}, {name: "largest", frame: &tidewirev1.Ping{Seq: 4294967295}}},
		"error": {
			{name: "of a request", frame: (&RequestError{Request: "publish", Ref: 10, Err: refused}).Frame()},
			{name: "of a subscription that is refused", frame: (&RequestError{Request: "subscribe", Sub: 2, Err: Errorf(CodeInvalidFilter, "the filter is empty")}).Frame()},
			{name: "of a request without a number", frame: (&RequestError{Request: "subscribe", Err: Errorf(CodeBadRequest, "`sub` is missing")}).Frame()},
			{name: "of an ack", frame: (&RequestError{Request: "ack", Ref: 20, Sub: 5, Err: Errorf(CodeBadRequest, "the ack names no message")}).Frame()},
			{name: "of a member that was overtaken", frame: ErrorFrame(0, 5, Errorf(CodeTakenOver, "another member has taken over"))},
			{name: "of a subscription that has ended", frame: ErrorFrame(0, 2, Errorf(CodeForbidden, "the token does not allow it"))},
			{name: "before a close", frame: ErrorFrame(0, 0, Errorf(CodeConnectTwice, "send connect once"))},
		},
		"acked": {
			{name: "confirmed", frame: &tidewirev1.Acked{Ref: 20, Sub: 5, Term: "1z141z3", Settled: 1}},
			{name: "some refused", frame: &tidewirev1.Acked{Ref: 4294967295, Sub: 5, Term: "1z141z3", Settled: 2, Refused: []*tidewirev1.RefusedRange{
				{From: 44, Code: string(CodeNotPending)}, {From: 45, Through: 45, Code: string(CodeFenced)}, {Partition: 3, From: 1, Through: MaxOffset, Code: string(CodeNeverDelivered)},
			}}},
			{name: "refused as a whole", frame: &tidewirev1.Acked{Ref: 20, Sub: 6, Error: ErrorFrame(0, 0, Errorf(CodeUnknownSubscription, "no"))}},
			{name: "refused for now", frame: &tidewirev1.Acked{Sub: 5, Error: ErrorFrame(0, 0, refused)}},
		},
		"unsubscribed": {{name: "one", frame: &tidewirev1.Unsubscribed{Sub: 2}}},
		"refreshed":    {{name: "expires", frame: &tidewirev1.Refreshed{Ref: 11, ExpiresAt: Micros(goldenTime)}}, {name: "never expires", frame: &tidewirev1.Refreshed{Ref: 11}}},
		"unknown_to_clients": {
			{name: "field inside a frame", frame: &tidewirev1.Ping{Seq: 7}, proto: server(9, append([]byte{8, 7}, later...)), json: `{"type":"ping","seq":7,"later":{"a":[1]}}`},
			{name: "field beside a frame", frame: &tidewirev1.Ping{Seq: 7}, proto: append(bytes.Clone(later), server(9, []byte{8, 7})...), json: `{"type":"ping","seq":7,"later":null}`},
			{name: "frame", proto: server(19, []byte{8, 7}), json: `{"type":"later","ref":7}`},
		},
	}
}

// encode makes the golden form of a sample.
func (s sample) encode(t testing.TB, server bool) goldenFrame {
	t.Helper()
	g := goldenFrame{Name: s.name, JSON: s.json, Fields: json.RawMessage("null")}
	b := s.proto
	var whole proto.Message = &tidewirev1.ClientFrame{}
	switch d, isDeliver := s.frame.(*Deliver); {
	case isDeliver:
		b = appendDeliver(Proto{}, nil, d.Sub, &d.Chunk)
		g.JSON = string(appendDeliver(JSON{}, nil, d.Sub, &d.Chunk))
	case b == nil && server:
		b = Proto{}.AppendServer(nil, s.frame)
		g.JSON = string(JSON{}.AppendServer(nil, s.frame))
	case b == nil:
		b = Proto{}.AppendClient(nil, s.frame)
	}
	g.Proto = hex.EncodeToString(b)
	if server {
		whole = &tidewirev1.ServerFrame{}
	}
	if s.frame == nil {
		return g
	}
	if err := proto.Unmarshal(b, whole); err != nil { // protobuf's own reading of our bytes
		t.Fatal(err)
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		t.Fatal(err)
	}
	if g.Fields, err = marshalJSON(value); err != nil { // protojson's spaces are random, this is not
		t.Fatal(err)
	}
	return g
}

func goldenFile(t testing.TB, side, kind string, frames []goldenFrame) []byte {
	t.Helper()
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(struct {
		From   string        `json:"from"`
		Kind   string        `json:"kind"`
		Frames []goldenFrame `json:"frames"`
	}{side, kind, frames})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestGoldenFrames compares what the codecs write with the files in
// testdata/frames, and what they read from there with the frame.
func TestGoldenFrames(t *testing.T) {
	written := map[string]bool{}
	for side, kinds := range map[string]map[string][]sample{"client": clientSamples(), "server": serverSamples()} {
		for kind, samples := range kinds {
			var frames []goldenFrame
			for _, s := range samples {
				g := s.encode(t, side == "server")
				frames = append(frames, g)
				checkDecoded(t, side, kind, s, g)
			}
			name := filepath.Join(framesDir, kind+".json")
			written[name] = true
			compareGolden(t, name, goldenFile(t, side, kind, frames))
		}
	}
	names, err := filepath.Glob(filepath.Join(framesDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !written[name] {
			t.Errorf("%s belongs to no frame", name)
		}
	}
	checkEveryFrame(t)
}

func compareGolden(t *testing.T, name string, want []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(framesDir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs from what the codecs write. If the change is meant and old clients can read it, run go test ./protocol -run Golden -update.\n got %s\nwant %s", name, got, want)
	}
}

// asRead returns what a reader of the binary form makes of a frame: the places of
// other partitions are in the text form alone.
func asRead(frame any) any {
	switch f := frame.(type) {
	case *Progress:
		return f.frame()
	case *Deliver:
		alone := *f
		alone.Others = nil
		return &alone
	}
	return frame
}

func checkDecoded(t *testing.T, side, kind string, s sample, g goldenFrame) {
	t.Helper()
	b, err := hex.DecodeString(g.Proto)
	if err != nil {
		t.Fatal(err)
	}
	var got any
	if side == "server" {
		got, err = Proto{}.DecodeServer(b)
	} else {
		got, err = Proto{}.DecodeClient(b, testLimits)
		text, textErr := JSON{}.DecodeClient([]byte(g.JSON), testLimits)
		if textErr != nil || (s.frame == nil) != (text == nil) || s.frame != nil && !sameFrame(text, s.frame) {
			t.Errorf("%s, %s: the JSON gives %+v, %v", kind, s.name, text, textErr)
		}
	}
	if err != nil || (s.frame == nil) != (got == nil) || s.frame != nil && !sameFrame(got, asRead(s.frame)) {
		t.Errorf("%s, %s: the binary frame gives %+v, %v", kind, s.name, got, err)
	}
	var typed struct{ Type string }
	if err := json.Unmarshal([]byte(g.JSON), &typed); err != nil || (typed.Type != kind && !strings.HasPrefix(kind, "unknown")) {
		t.Errorf("%s, %s: the JSON form is %s", kind, s.name, g.JSON)
	}
}

// checkEveryFrame looks for frames of the contract that have no golden file.
func checkEveryFrame(t *testing.T) {
	t.Helper()
	for _, m := range []proto.Message{&tidewirev1.ClientFrame{}, &tidewirev1.ServerFrame{}} {
		fields := m.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			name := string(fields.Get(i).Name())
			if _, err := os.Stat(filepath.Join(framesDir, name+".json")); err != nil {
				t.Errorf("the frame %s has no golden file: %v", name, err)
			}
		}
	}
}
