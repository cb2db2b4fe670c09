package protocol

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
)

// generated is the message as the generated struct.
func generated(m *Message) *tidewirev1.Message {
	g := &tidewirev1.Message{
		Topic: m.Topic, Id: m.ID, Payload: m.Payload, ContentType: m.ContentType, Key: m.Key,
		ExpiresAt: Micros(m.ExpiresAt), Ephemeral: m.Ephemeral, Publisher: m.Publisher,
		Offset: m.Position.Offset, Time: Micros(m.Time),
	}
	for _, h := range m.Headers {
		g.Headers = append(g.Headers, &tidewirev1.Header{Name: h.Name, Value: h.Value})
	}
	return g
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRecordIsTheProtobufEncoding compares the hand-written encoder with
// protobuf's, byte for byte, and reads the record back.
func TestRecordIsTheProtobufEncoding(t *testing.T) {
	r := newRandom(t)
	for range 600 {
		m := randomMessage(r)
		m.Publisher = randomPrintable(r, 10)
		m.Position.Offset, m.Time = 1+r.Uint64N(MaxOffset), time.UnixMicro(1+r.Int64N(maxMicros)).UTC()
		record := AppendRecord([]byte("before"), &m)[len("before"):]
		if want := marshal(t, generated(&m)); !bytes.Equal(record, want) {
			t.Fatalf("%+v\n got %x\nwant %x", m, record, want)
		}
		if string(RecordTopic(record)) != m.Topic {
			t.Fatalf("RecordTopic %q, want %q", RecordTopic(record), m.Topic)
		}
		got, err := ParseRecord(record)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range []*Message{&got, &m} {
			if len(m.Payload) == 0 {
				m.Payload = nil
			}
			if len(m.Headers) == 0 {
				m.Headers = nil
			}
		}
		if !reflect.DeepEqual(got, m) {
			t.Fatalf("got  %+v\nwant %+v", got, m)
		}
	}
}

func TestPlaceRecord(t *testing.T) {
	r := newRandom(t)
	for range 600 {
		m := randomMessage(r)
		record := AppendRecord(nil, &m)
		if offset, at := RecordPlace(record); offset != 0 || at != 0 {
			t.Fatalf("a new record has the place %d, %d", offset, at)
		}
		m.Position.Offset, m.Time = r.Uint64N(MaxOffset)+1, time.UnixMicro(1+r.Int64N(maxMicros)).UTC()
		PlaceRecord(record, m.Position.Offset, Micros(m.Time))
		if want := AppendRecord(nil, &m); !bytes.Equal(record, want) {
			t.Fatalf("got %x\nwant %x", record, want)
		}
		if offset, at := RecordPlace(record); offset != m.Position.Offset || at != Micros(m.Time) {
			t.Fatalf("RecordPlace %d, %d", offset, at)
		}
	}
	for n := range placeBytes {
		if offset, at := RecordPlace(make([]byte, n)); offset != 0 || at != 0 {
			t.Error("a place in too short a record")
		}
	}
}

func TestMessageOverheadIsBounded(t *testing.T) {
	m := Message{
		Topic: strings.Repeat("t", MaxTopicBytes), ID: strings.Repeat("i", MaxIDBytes), Key: strings.Repeat("k", MaxKeyBytes),
		ContentType: strings.Repeat("c", MaxContentTypeBytes), Publisher: strings.Repeat("p", MaxPublisherBytes),
		ExpiresAt: time.UnixMicro(1), Ephemeral: true, Payload: make([]byte, 1<<20),
	}
	for i := range MaxHeaders {
		m.Headers = append(m.Headers, Header{Name: strings.Repeat(string(rune('a'+i%26)), 1+i/26), Value: strings.Repeat("v", MaxHeaderTotalBytes/MaxHeaders-2)})
	}
	if err := m.Check(1 << 20); err != nil {
		t.Fatal(err)
	}
	if n := len(AppendRecord(nil, &m)) - len(m.Payload); n > MaxMessageOverhead {
		t.Errorf("a record has %d bytes beside its payload, more than %d", n, MaxMessageOverhead)
	}
}

func TestParseRecordIsTolerant(t *testing.T) {
	m := Message{Topic: "a", ID: "1", Payload: []byte("x")}
	record := AppendRecord(nil, &m)
	later := protowire.AppendTag(nil, 15, protowire.BytesType) // a field of a later version in front
	later = protowire.AppendString(later, "new")
	later = protowire.AppendTag(later, 16, protowire.StartGroupType)
	later = protowire.AppendTag(later, 16, protowire.EndGroupType)
	later = protowire.AppendTag(later, fieldTopic, protowire.VarintType) // a known number of another type
	later = protowire.AppendVarint(later, 7)
	later = protowire.AppendTag(later, fieldTime, protowire.Fixed32Type)
	later = protowire.AppendFixed32(later, 7)
	got, err := ParseRecord(append(later, record...))
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("with unknown fields: %+v, %v", got, err)
	}
	for n := range len(record) {
		if m, err := ParseRecord(record[:n]); err == nil && m.Topic != "" && m.Topic != "a" {
			t.Errorf("cut at %d: %+v", n, m)
		}
	}
	for _, b := range [][]byte{{0x0a}, {0x0a, 5, 'a'}, {0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, {0x00}, {0x07}, {0x0c}, {0x2a, 2, 0x0a, 9}, bytes.Repeat([]byte{0x0b}, 20_000), bytes.Repeat([]byte{0xff}, 11)} {
		if m, err := ParseRecord(b); err == nil {
			t.Errorf("%.20x gives %+v", b, m)
		}
	}
}

func TestRecordTopicOfDamage(t *testing.T) {
	for _, b := range [][]byte{nil, {0x0a}, {0x0a, 1}, {0x0a, 2, 'a'}, {0x12, 1, 'a'}, {0x0a, 0xff, 0xff}} {
		if topic := RecordTopic(b); topic != nil {
			t.Errorf("RecordTopic(%x) = %q", b, topic)
		}
	}
}

// TestParsedTextsAreCopies: whoever keeps a topic must not keep the payload.
func TestParsedTextsAreCopies(t *testing.T) {
	record := AppendRecord(nil, &Message{Topic: "topic", ID: "id", Headers: []Header{{"n", "v"}}, Payload: []byte("payload")})
	m, err := ParseRecord(record)
	if err != nil {
		t.Fatal(err)
	}
	if cap(m.Payload) != len(m.Payload) {
		t.Error("an append to the payload would write over the record")
	}
	clear(record)
	if m.Topic != "topic" || m.ID != "id" || m.Headers[0] != (Header{"n", "v"}) {
		t.Errorf("texts are parts of the record: %+v", m)
	}
}

func TestFramedRecords(t *testing.T) {
	r := newRandom(t)
	for range 200 {
		chunk := Chunk{Term: NewTerm(), Partition: r.Uint32N(3), After: 9}
		var want []Message
		for i := range r.IntN(20) {
			m := randomMessage(r)
			m.ExpiresAt = time.Time{}
			m.Position = Position{Term: chunk.Term, Partition: chunk.Partition, Offset: uint64(10 + 3*i)}
			m.Time = time.UnixMicro(int64(1 + i)).UTC()
			record := AppendRecord(nil, &m)
			before := len(chunk.Records)
			chunk.Records = AppendFramed(chunk.Records, record)
			if n := len(chunk.Records) - before; n != FramedSize(len(record)) {
				t.Fatalf("%d bytes, FramedSize says %d", n, FramedSize(len(record)))
			}
			chunk.Count, chunk.Through = chunk.Count+1, m.Position.Offset
			if m.ID == "" {
				m.ID = m.Position.String()
			}
			want = append(want, m)
		}
		i := 0
		for m, err := range chunk.Messages() {
			if err != nil || m.Position != want[i].Position || m.ID != want[i].ID || !bytes.Equal(m.Payload, want[i].Payload) || m.Topic != want[i].Topic {
				t.Fatalf("message %d: %+v, %v, want %+v", i, m, err, want[i])
			}
			i++
		}
		if i != len(want) {
			t.Fatalf("%d messages of %d", i, len(want))
		}
		var all []byte
		i = 0
		for record, framed := range chunk.Framed() {
			if offset, _ := RecordPlace(record); offset != want[i].Position.Offset {
				t.Fatalf("record %d has the offset %d, want %d", i, offset, want[i].Position.Offset)
			}
			all = append(all, framed...)
			i++
		}
		if i != len(want) || !bytes.Equal(all, chunk.Records) {
			t.Fatalf("%d records of %d, which are %x and should be %x", i, len(want), all, chunk.Records)
		}
		for range chunk.Framed() {
			break // must not go on
		}
		for _, err := range chunk.Messages() {
			if err != nil {
				t.Fatal(err)
			}
			break // must not go on
		}
		if chunk.End() != (Position{Term: chunk.Term, Partition: chunk.Partition, Offset: chunk.Through}) {
			t.Fatal("End is wrong")
		}
	}
}

func TestDamagedChunks(t *testing.T) {
	good := AppendFramed(nil, AppendRecord(nil, &Message{Topic: "a"}))
	for _, tail := range [][]byte{{0x32}, {0x32, 5, 1}, {0x0a, 1, 1}, {0x32, 1, 0x07}, {0x32, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}} {
		chunk := Chunk{Term: 1, Records: append(bytes.Clone(good), tail...)}
		messages, failed := 0, 0
		for _, err := range chunk.Messages() {
			if err != nil {
				failed++
			} else {
				messages++
			}
		}
		if messages != 1 || failed != 1 {
			t.Errorf("%x: %d messages, %d errors", tail, messages, failed)
		}
	}
	if _, _, ok := NextFramed(nil); ok {
		t.Error("a record in nothing")
	}
	records := 0
	for range (&Chunk{Records: append(bytes.Clone(good), 0x32, 5, 1)}).Framed() {
		records++
	}
	if records != 1 {
		t.Errorf("%d records before the damage, want 1", records)
	}
}

// TestEphemeralMessageHasNoPosition: it is nowhere in the log.
func TestEphemeralMessageHasNoPosition(t *testing.T) {
	chunk := Chunk{Term: 1, Through: 5, Records: AppendFramed(nil, AppendRecord(nil, &Message{Topic: "a", Ephemeral: true}))}
	for m, err := range chunk.Messages() {
		if err != nil || !m.Position.IsZero() || m.ID != "" {
			t.Errorf("%+v, %v", m, err)
		}
	}
}

func TestTimes(t *testing.T) {
	for in, want := range map[time.Time]uint64{
		{}: 0, time.Unix(-5, 0): 0, time.Unix(-1<<61, 0): 0, time.UnixMicro(1): 1, time.UnixMicro(maxMicros): maxMicros, time.Unix(1<<61, 0): maxMicros,
	} {
		if got := Micros(in); got != want {
			t.Errorf("Micros(%v) = %d, want %d", in, got, want)
		}
	}
	if !Time(0).IsZero() || Time(1<<64-1) != Time(maxMicros) || Time(maxMicros).Year() != 9999 || Micros(Time(maxMicros)) != maxMicros {
		t.Error("Time does not keep to the year 9999")
	}
}

func TestAppendRecordDoesNotAllocate(t *testing.T) {
	m := Message{Topic: "room.42.chat", ID: "0123456789abcdef", Payload: make([]byte, 128), Headers: []Header{{"a", "b"}}, Publisher: "me"}
	buffer := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { AppendRecord(buffer, &m) }); n != 0 {
		t.Errorf("AppendRecord allocates %v times", n)
	}
	record := AppendRecord(nil, &m)
	if n := testing.AllocsPerRun(100, func() { _, _, _ = NextFramed(AppendFramed(buffer, record)) }); n != 0 {
		t.Errorf("AppendFramed and NextFramed allocate %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { RecordTopic(record); RecordPlace(record); PlaceRecord(record, 1, 2) }); n != 0 {
		t.Errorf("the parts of a record allocate %v times", n)
	}
}

// TestRecordExpiryAndOrigin compares what is read from a record without reading
// all of it with the whole, for random messages and for damaged records.
func TestRecordExpiryAndOrigin(t *testing.T) {
	rng := newRandom(t)
	for range 5000 {
		m := randomMessage(rng)
		m.ExpiresAt, m.Origin = time.Time{}, 0
		if rng.IntN(4) == 0 {
			m.Payload = make([]byte, rng.IntN(40_000)) // a length of one, two and three bytes
		}
		if rng.IntN(2) == 0 {
			m.ExpiresAt = time.UnixMicro(1 + rng.Int64N(1<<50))
		}
		if rng.IntN(2) == 0 {
			m.Origin = rng.Uint64()
		}
		record := AppendRecord(nil, &m)
		if got := RecordExpiry(record); got != Micros(m.ExpiresAt) {
			t.Fatalf("expires at %d, want %d: %+v", got, Micros(m.ExpiresAt), m)
		}
		if !RecordFrom(record, m.Origin) != (m.Origin == 0) || RecordFrom(record, m.Origin+1) {
			t.Fatalf("origin of %+v", m)
		}
		for range 5 { // whatever is there, it ends
			record = record[:rng.IntN(len(record)+1)]
			RecordExpiry(record)
			RecordFrom(record, 1)
			if len(record) > 0 {
				record[rng.IntN(len(record))] = byte(rng.Uint32())
			}
		}
	}
	// A publisher whose name looks like an origin is none.
	forged := Message{Topic: "a", Publisher: "x" + string(rune(fieldOrigin<<3|1)) + "12345678"}
	if RecordFrom(AppendRecord(nil, &forged), binary.LittleEndian.Uint64([]byte("12345678"))) {
		t.Error("a name was taken for an origin")
	}
}

func BenchmarkRecordExpiry(b *testing.B) {
	record := AppendRecord(nil, &Message{Topic: "room.42.chat", ID: "abcdefghijklmnop", Payload: make([]byte, 128), Publisher: "user"})
	for b.Loop() {
		RecordExpiry(record)
	}
}
