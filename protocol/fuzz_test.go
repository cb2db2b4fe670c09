package protocol

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime/metrics"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
)

// goldenFrames calls add with the binary and the text form of every golden
// frame from one side.
func goldenFrames(f *testing.F, side string, add func(b, text []byte)) {
	f.Helper()
	names, err := filepath.Glob(filepath.Join(framesDir, "*.json"))
	if err != nil || len(names) == 0 {
		f.Fatalf("no golden frames: %v", err)
	}
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		var file struct {
			From   string
			Frames []goldenFrame
		}
		if err := json.Unmarshal(content, &file); err != nil {
			f.Fatal(err)
		}
		for _, frame := range file.Frames {
			b, err := hex.DecodeString(frame.Proto)
			if err != nil {
				f.Fatal(err)
			}
			if file.From == side {
				add(b, []byte(frame.JSON))
			}
		}
	}
}

func seedRefusals(f *testing.F, codec Codec) {
	f.Helper()
	for _, r := range refusals() {
		if r.codec == codec && len(r.frame) < 2000 {
			f.Add([]byte(r.frame))
		}
	}
}

// checkRefusal: every refusal is coded, is a sentence, and is not longer for a
// longer input.
func checkRefusal(t *testing.T, err error) {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("not a coded error: %T %v", err, err)
	}
	if e.Code.index() < 0 || e.Code == CodeInternal || e.Message == "" || len(e.Message) > 1000 || !utf8.ValidString(e.Message) {
		t.Fatalf("%s: %q", e.Code, e.Message)
	}
}

// checkAllocated calls decode and fails if it allocates much more than its
// input is large. Other goroutines allocate too, so it tries several times.
func checkAllocated(t *testing.T, input int, decode func()) {
	t.Helper()
	bound := uint64(1<<20 + 64*input)
	var used uint64
	for range 5 {
		before := allocated()
		decode()
		if used = allocated() - before; used <= bound {
			return
		}
	}
	t.Fatalf("%d bytes are allocated for an input of %d", used, input)
}

// allocated is how many bytes the process has allocated so far; unlike
// runtime.ReadMemStats it does not stop the world.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// checkClientFrame: what was decoded can be written, and reads the same again.
func checkClientFrame(t *testing.T, frame any) {
	t.Helper()
	if frame == nil {
		return
	}
	if p, ok := frame.(*Publish); ok {
		if len(p.Messages) == 0 || len(p.Messages) > testLimits.Messages || p.RepeatAge < 0 || p.RepeatAge > maxRepeatAge {
			t.Fatalf("beyond the limits: %+v", p)
		}
		for i := range p.Messages {
			m := &p.Messages[i]
			if len(m.Headers) > MaxHeaders+1 {
				t.Fatalf("%d headers", len(m.Headers))
			}
			m.ExpiresAt = Time(Micros(m.ExpiresAt)) // as precise as the wire
			checked := *m
			if err := checked.Check(1 << 20); err != nil {
				checkRefusal(t, err)
			}
		}
	}
	if s, ok := frame.(*Settle); ok {
		if err := s.Check(); err != nil || len(s.Ranges) > MaxSettleRanges || s.Delay != nil && (*s.Delay < 0 || *s.Delay > maxRepeatAge) {
			t.Fatalf("beyond the limits: %+v, %v", s, err)
		}
	}
	b := Proto{}.AppendClient(nil, frame)
	again, err := Proto{}.DecodeClient(b, testLimits)
	if err != nil || !sameFrame(again, frame) {
		t.Fatalf("written and read again: %+v, %v\nwas %+v", again, err, frame)
	}
	if !bytes.Equal(Proto{}.AppendClient(nil, again), b) {
		t.Fatalf("the encoding is not canonical: %x", b)
	}
}

func FuzzProtoDecodeClient(f *testing.F) {
	goldenFrames(f, "client", func(b, _ []byte) { f.Add(b) })
	seedRefusals(f, Proto{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var frame any
		var err error
		checkAllocated(t, len(b), func() { frame, err = Proto{}.DecodeClient(b, testLimits) })
		if err != nil {
			checkRefusal(t, err)
			return
		}
		checkClientFrame(t, frame)
		var whole tidewirev1.ClientFrame // protobuf itself must not be stricter, but for UTF-8
		if err := proto.Unmarshal(b, &whole); err != nil && !strings.Contains(err.Error(), "UTF-8") {
			t.Fatalf("protobuf cannot read it: %v", err)
		}
	})
}

func FuzzJSONDecodeClient(f *testing.F) {
	goldenFrames(f, "client", func(_, text []byte) { f.Add(text) })
	seedRefusals(f, JSON{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var frame any
		var err error
		checkAllocated(t, len(b), func() { frame, err = JSON{}.DecodeClient(b, testLimits) })
		if err != nil {
			checkRefusal(t, err)
			return
		}
		if !json.Valid(b) || !utf8.Valid(b) {
			t.Fatalf("taken, but not JSON: %q", b)
		}
		checkClientFrame(t, frame)
	})
}

func FuzzProtoDecodeServer(f *testing.F) {
	goldenFrames(f, "server", func(b, _ []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		var frame any
		var err error
		checkAllocated(t, len(b), func() { frame, err = Proto{}.DecodeServer(b) })
		if err != nil {
			checkRefusal(t, err)
			return
		}
		var out []byte
		switch frame := frame.(type) {
		case nil:
			return
		case *Deliver:
			for m, err := range frame.Messages() {
				if err == nil {
					_, _ = m.MarshalJSON()
				}
			}
			if !json.Valid(appendDeliver(JSON{}, nil, frame.Sub, &frame.Chunk)) {
				t.Fatal("the text form is not JSON")
			}
			out = appendDeliver(Proto{}, nil, frame.Sub, &frame.Chunk)
		default:
			if !json.Valid(JSON{}.AppendServer(nil, frame)) {
				t.Fatal("the text form is not JSON")
			}
			out = Proto{}.AppendServer(nil, frame)
		}
		again, err := Proto{}.DecodeServer(out)
		if err != nil || !sameFrame(again, frame) {
			t.Fatalf("written and read again: %+v, %v\nwas %+v", again, err, frame)
		}
	})
}

func FuzzParsePosition(f *testing.F) {
	for _, s := range []string{"p1z141z3-42", "p1z141z3-3_42", "p3w5e11264sgsf-4294967295_9007199254740991", "1234", "p1z-42-3_17", "p01-1", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePosition(s)
		if err != nil {
			checkRefusal(t, err)
			return
		}
		if p.String() != s || p.Term == 0 || p.Offset > MaxOffset {
			t.Fatalf("%q becomes %+v, %q", s, p, p)
		}
	})
}

func FuzzParseVector(f *testing.F) {
	for _, s := range []string{"p1z141z3-42", "p1z141z3-3_42", "p1z-0-1_0-1023_9007199254740991", "p1z-42-3_17-3_18", "p1z-1_3-2", "p1z-1--2", "p1z-", "1234"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseVector(s)
		if err != nil {
			checkRefusal(t, err)
			return
		}
		if v.String() != s || v.Term == 0 || v.IsZero() || len(v.Places) > MaxPartitions {
			t.Fatalf("%q becomes %+v, %q", s, v, v)
		}
		for i, place := range v.Places {
			at, ok := v.At(place.Partition)
			if !ok || at != v.position(i) || i > 0 && place.Partition <= v.Places[i-1].Partition {
				t.Fatalf("%q: place %d is %+v", s, i, at)
			}
		}
	})
}

func FuzzParseStart(f *testing.F) {
	for _, s := range []string{"new", "earliest", "last:10", "-10m", "-1h30m0.5s", "2026-01-02T15:04:05.000006+01:00", "p1z141z3-42", "p1z-42-3_17", "42", "-9223372036854775808ns"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		start, err := ParseStart(s)
		if err != nil {
			checkRefusal(t, err)
			return
		}
		again, err := ParseStart(start.String())
		if err != nil || !reflect.DeepEqual(again, start) {
			t.Fatalf("%q becomes %+v, written %q, read %+v, %v", s, start, start, again, err)
		}
		if start.Kind == StartSince && start.Since <= 0 || start.Kind == StartLast && (start.Last < 1 || start.Last > MaxStartLast) {
			t.Fatalf("%q becomes %+v", s, start)
		}
	})
}

func FuzzFilterAndTopic(f *testing.F) {
	for _, s := range []string{"room.42.chat", "room.*.chat", ">", "*", "$sys.>", "a.", ".a", "a..b", "a.>.b", "a*", "é\u2028"} {
		f.Add(s, "room.42.chat")
	}
	f.Fuzz(func(t *testing.T, s, topic string) {
		if err := CheckTopic(topic); err != nil {
			checkRefusal(t, err)
			topic = "a.b"
		}
		filter, err := ParseFilter(s)
		if err != nil {
			checkRefusal(t, err)
			if CheckTopic(s) == nil {
				t.Fatalf("%q is a topic, but no filter", s)
			}
			return
		}
		if filter.String() != s || filter.Exact() != (CheckTopic(s) == nil) {
			t.Fatalf("%q becomes %+v", s, filter)
		}
		exact, err := ParseFilter(topic)
		if err != nil {
			t.Fatal(err)
		}
		match := filter.Match(topic)
		if match != filter.Covers(exact) || match != filter.Overlaps(exact) || match != exact.Overlaps(filter) {
			t.Fatalf("%q and %q: Match %v, Covers %v, Overlaps %v", s, topic, match, filter.Covers(exact), filter.Overlaps(exact))
		}
		if match != matches(strings.Split(s, "."), strings.Split(topic, ".")) {
			t.Fatalf("%q.Match(%q) = %v", s, topic, match)
		}
		if !filter.Covers(filter) || !filter.Overlaps(filter) {
			t.Fatalf("%q does not cover itself", s)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	for _, s := range deliverSamples() {
		for record := range s.frame.(*Deliver).Framed() {
			f.Add(record)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		RecordTopic(b)
		RecordPlace(b)
		var m Message
		var err error
		checkAllocated(t, len(b), func() { m, err = ParseRecord(b) })
		if err != nil {
			return
		}
		record := AppendRecord(nil, &m)
		again, err := ParseRecord(record)
		if err != nil || !sameFrame(&Publish{Messages: []Message{again}}, &Publish{Messages: []Message{m}}) || again.Position != m.Position || !again.Time.Equal(m.Time) || again.Publisher != m.Publisher {
			t.Fatalf("%+v becomes %+v, %v", m, again, err)
		}
		if m.Topic != "" && string(RecordTopic(record)) != m.Topic {
			t.Fatalf("RecordTopic is %q, want %q", RecordTopic(record), m.Topic)
		}
	})
}

func FuzzNextFramed(f *testing.F) {
	for _, s := range deliverSamples() {
		f.Add(s.frame.(*Deliver).Records)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		record, rest, ok := NextFramed(b)
		if !ok {
			return
		}
		if len(record)+len(rest) >= len(b) || cap(record) != len(record) {
			t.Fatalf("%x is split into %x and %x", b, record, rest)
		}
		again, rest, ok := NextFramed(AppendFramed(nil, record))
		if !ok || len(rest) != 0 || !bytes.Equal(again, record) {
			t.Fatalf("%x framed is %x, %x", record, again, rest)
		}
		chunk := Chunk{Term: 1, Records: b}
		size := 0
		for _, err := range chunk.Messages() {
			if size++; size > len(b) || err != nil {
				break
			}
		}
	})
}

func FuzzMessageUnmarshalJSON(f *testing.F) {
	for _, s := range []string{
		`{"id":"a1","topic":"room.42.chat","position":"p1z141z3-44","time":"2026-01-02T15:04:05.000000Z","payload":"hello"}`,
		`{"topic":"a","payload_base64":"//4A","headers":{"a":"1","B":"2"},"key":"k","content_type":"x","expires_at":"2026-01-02T15:04:05+01:00","ephemeral":true}`,
		`{"topic":"a","json":{"a":[1,null,"\u2028"]}}`, `{"topic":"a","json":null}`, `{"topic":"a","payload":"\ud800"}`, `null`, `[]`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Message
		var err error
		checkAllocated(t, len(b), func() { err = m.UnmarshalJSON(b) })
		if err != nil {
			checkRefusal(t, err)
			return
		}
		if m.Check(1<<20) != nil {
			return
		}
		text, err := m.MarshalJSON()
		if err != nil || !json.Valid(text) || bytes.ContainsAny(text, "\n\r\u2028\u2029") {
			t.Fatalf("%s, %v", text, err)
		}
		var again Message
		if err := again.UnmarshalJSON(text); err != nil || !sameFrame(&Publish{Messages: []Message{again}}, &Publish{Messages: []Message{m}}) {
			t.Fatalf("%+v\nbecomes %+v, %v", m, again, err)
		}
	})
}
