package bridge

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/protocol"
)

var (
	seedFlag   = flag.Uint64("seed", 0, "seed of the random tests; 0 draws one")
	updateFlag = flag.Bool("update", false, "write testdata anew")
)

func newRand(t testing.TB) *rand.Rand {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (repeat with -seed)", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// testDefinition is a stream for tests that look at records only.
func testDefinition() Definition {
	d, err := Definition{
		Stream: "main", Topic: "tidewire.main", Term: 77, Partitions: 1,
		DedupeWindow: 50, MaxPayload: 1000, Secret: []byte("0123456789abcdef"),
	}.withDefaults()
	if err != nil {
		panic(err)
	}
	return d
}

func testRules(t testing.TB, def Definition, partition int) *rules {
	t.Helper()
	r, err := newRules(def, partition)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// written is the record of a message as a broker writes it.
func written(s *sealer, m *protocol.Message, boot Boot, sequence uint64) kafka.Record {
	rec := encode(m)
	sign(s, &rec, m, Origin{Boot: boot, Sequence: sequence})
	return rec
}

func randomMessage(r *rand.Rand) protocol.Message {
	text := func(n int) string {
		letters := []rune("abcxyz-_./ äß🌊=:\"'")
		var b strings.Builder
		for range r.IntN(n) {
			b.WriteRune(letters[r.IntN(len(letters))])
		}
		return b.String()
	}
	m := protocol.Message{
		Topic: "t." + fmt.Sprint(r.IntN(100)), ID: text(30), ContentType: text(20), Key: text(10), Publisher: text(20),
		Time: protocol.Time(1 + r.Uint64N(maxMicros)), Origin: r.Uint64N(3),
	}
	if n := r.IntN(50); n > 0 {
		m.Payload = bytes.Repeat([]byte{byte(n)}, n)
	}
	if r.IntN(2) == 0 {
		m.ExpiresAt = protocol.Time(1 + r.Uint64N(maxMicros))
	}
	names := []string{"a", "b.c", "content-type", "tidewire-id", "tidewire-origin", "tidewire-header-x", "tidewire-header-tidewire-id", "x-y_z", "tidewire"}
	for _, name := range names {
		if r.IntN(3) == 0 {
			m.Headers = append(m.Headers, protocol.Header{Name: name, Value: text(9)})
		}
	}
	slices.SortFunc(m.Headers, func(a, b protocol.Header) int { return strings.Compare(a.Name, b.Name) })
	return m
}

// TestEveryMessageComesBack: what a broker writes is what every node reads.
func TestEveryMessageComesBack(t *testing.T) {
	r := newRand(t)
	rules := testRules(t, testDefinition(), 0)
	for i := range 2000 {
		m := randomMessage(r)
		rec := written(newSealer(rules.def.Secret), &m, 9, uint64(i+1))
		rec.Offset = int64(i)
		v := rules.judge(&rec, false)
		if v.reason != Accepted || v.left != 0 || v.origin.Boot != 9 || v.origin.Sequence != uint64(i+1) {
			t.Fatalf("%+v\n%q: %+v", m, v.reason, v.origin)
		}
		if len(v.message.Payload) == 0 {
			v.message.Payload = nil
		}
		if !reflect.DeepEqual(v.message, m) {
			t.Fatalf("written %+v\n   read %+v", m, v.message)
		}
		if stored, err := protocol.ParseRecord(v.entry().Record); err != nil || stored.Topic != m.Topic || !stored.Time.Equal(m.Time) {
			t.Fatalf("stored %+v, %v", stored, err)
		}
	}
}

// TestForeignRecords: what others may write, and what becomes of it.
func TestForeignRecords(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_123).UTC()
	header := func(pairs ...string) (all []kafka.Header) {
		for i := 0; i < len(pairs); i += 2 {
			all = append(all, kafka.Header{Key: pairs[i], Value: []byte(pairs[i+1])})
		}
		return all
	}
	plain := func(pairs ...string) kafka.Record {
		return kafka.Record{Key: []byte("a"), Value: []byte("v"), Time: at, Headers: header(pairs...)}
	}
	def := testDefinition()
	def.Filters, def.Before = []string{"a", "b.*"}, []string{"b.x"}
	own := protocol.Message{Topic: "a", Payload: []byte("v"), ID: "i", Time: at, Publisher: "alice"}
	sealed := written(newSealer(def.Secret), &own, 5, 1)
	change := func(f func(*kafka.Record)) kafka.Record {
		rec := sealed
		rec.Headers = slices.Clone(sealed.Headers)
		f(&rec)
		return rec
	}
	mark := func(rec *kafka.Record) *kafka.Header {
		return &rec.Headers[slices.IndexFunc(rec.Headers, func(h kafka.Header) bool { return h.Key == headerOrigin })]
	}
	tests := []struct {
		name   string
		rec    kafka.Record
		reason Reason
		left   int
	}{
		{"a key and a value", plain(), Accepted, 0},
		{"no time", kafka.Record{Key: []byte("a"), Value: []byte{}, Time: time.UnixMilli(-1)}, Accepted, 0},
		{"a time far away", kafka.Record{Key: []byte("a"), Value: []byte{}, Time: time.UnixMilli(1 << 62)}, Accepted, 0},
		{"id, type, key and expiry", plain("tidewire-id", "i", "content-type", "text/plain", "tidewire-key", "k", "tidewire-expires-at", "2030-01-01T00:00:00+02:00"), Accepted, 0},
		{"empty headers", plain("tidewire-id", "", "tidewire-expires-at", ""), Accepted, 0},
		{"upper case", plain("X-Request", "1"), Accepted, 0},
		{"bytes in a header", plain("b3", "\xff\x00"), Accepted, 1},
		{"bytes in a name", plain("\xff", "1"), Accepted, 1},
		{"a header of a later version", plain("tidewire-new", "1"), Accepted, 1},
		{"a name twice", plain("x", "1", "x", "2"), Accepted, 1},
		{"a strange content type", plain("content-type", "\x00"), Accepted, 1},
		{"too large headers", plain("x", strings.Repeat("x", 4000), "y", strings.Repeat("y", 4000), "z", strings.Repeat("z", 4000)), Accepted, 1},
		{"no key", kafka.Record{Value: []byte("v")}, NullKey, 0},
		{"an empty key", kafka.Record{Key: []byte{}, Value: []byte("v")}, InvalidTopic, 0},
		{"a pattern as key", kafka.Record{Key: []byte("a.*"), Value: []byte("v")}, InvalidTopic, 0},
		{"bytes as key", kafka.Record{Key: []byte("\xff"), Value: []byte("v")}, InvalidTopic, 0},
		{"no value", kafka.Record{Key: []byte("a")}, NullValue, 0},
		{"a large value", kafka.Record{Key: []byte("a"), Value: make([]byte, 1001)}, PayloadTooLarge, 0},
		{"a topic of the broker", kafka.Record{Key: []byte("$dead.x"), Value: []byte("v")}, ReservedTopic, 0},
		{"a topic of nobody", kafka.Record{Key: []byte("c"), Value: []byte("v")}, OtherStream, 0},
		{"a topic of a stream before", kafka.Record{Key: []byte("b.x"), Value: []byte("v")}, OtherStream, 0},
		{"a long id", plain("tidewire-id", strings.Repeat("i", 200)), BadHeader, 0},
		{"two ids", plain("tidewire-id", "i", "tidewire-id", "i"), BadHeader, 0},
		{"a bad key", plain("tidewire-key", "\n"), BadHeader, 0},
		{"an expiry that is no time", plain("tidewire-expires-at", "tomorrow"), BadHeader, 0},
		{"an expiry before all", plain("tidewire-expires-at", "0001-01-01T00:00:00Z"), BadHeader, 0},
		{"an origin of nobody", plain("tidewire-origin", "x"), Forged, 0},
		{"an empty origin", plain("tidewire-origin", ""), Forged, 0},
		{"a broker's", sealed, Accepted, 0},
		{"a broker's with another value", change(func(r *kafka.Record) { r.Value = []byte("w") }), Forged, 0},
		{"a broker's with another topic", change(func(r *kafka.Record) { r.Key = []byte("b") }), Forged, 0},
		{"a broker's with another id", change(func(r *kafka.Record) { r.Headers[0].Value = []byte("j") }), Forged, 0},
		{"a broker's with another publisher", change(func(r *kafka.Record) {
			m := mark(r)
			m.Value = bytes.Replace(m.Value, []byte("alice"), []byte("mallo"), 1)
		}), Forged, 0},
		{"a broker's with another sequence", change(func(r *kafka.Record) { m := mark(r); m.Value = slices.Clone(m.Value); m.Value[16]++ }), Forged, 0},
		{"two marks", change(func(r *kafka.Record) { r.Headers = append(r.Headers, *mark(r)) }), Forged, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v := testRules(t, def, 0).judge(&test.rec, false)
			if v.reason != test.reason || v.left != test.left {
				t.Errorf("%q, %d headers left out; want %q, %d", v.reason, v.left, test.reason, test.left)
			}
			if v.reason == Accepted && v.origin.Boot == 0 && v.message.Publisher != "" {
				t.Error("a stranger named a publisher")
			}
			if v := testRules(t, def, 0).judge(&test.rec, true); v.reason != Transactional {
				t.Errorf("in a transaction: %q", v.reason)
			}
		})
	}
	rec := plain()
	def.Partitions = 8
	if v := testRules(t, def, protocol.Partition("a", 8)).judge(&rec, false); v.reason != Accepted {
		t.Errorf("in its partition: %q", v.reason)
	}
	if v := testRules(t, def, (protocol.Partition("a", 8)+1)%8).judge(&rec, false); v.reason != Misplaced {
		t.Errorf("in another partition: %q", v.reason)
	}
}

// TestCopiesBurnNothing: a copy of a broker's record, put into another partition,
// does not make the broker's own records there look overtaken.
func TestCopiesBurnNothing(t *testing.T) {
	def := testDefinition()
	def.Partitions = 2
	here, there := "a", "b"
	for i := 0; protocol.Partition(here, 2) == protocol.Partition(there, 2); i++ {
		there = fmt.Sprint("b", i)
	}
	s := newSealer(def.Secret)
	rules := testRules(t, def, protocol.Partition(here, 2))
	copied := written(s, &protocol.Message{Topic: there, Payload: []byte("v")}, 5, 1000)
	if v := rules.judge(&copied, false); v.reason != Misplaced {
		t.Fatalf("%q", v.reason)
	}
	own := written(s, &protocol.Message{Topic: here, Payload: []byte("v")}, 5, 1)
	own.Offset = 1
	if v := rules.judge(&own, false); v.reason != Accepted {
		t.Errorf("%q", v.reason)
	}
	again := own
	again.Offset = 2
	if v := rules.judge(&again, false); v.reason != Overtaken {
		t.Errorf("a copy of it: %q", v.reason)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte("a"), []byte("v"), "tidewire-id", []byte("i"), "x", []byte("y"), int64(0))
	f.Add([]byte("$dead.x"), []byte(""), "tidewire-origin", bytes.Repeat([]byte{1}, 60), "tidewire-expires-at", []byte("2030-01-01T00:00:00Z"), int64(-1))
	f.Add([]byte("a"), []byte("v"), "Content-Type", []byte("text/plain"), "tidewire-header-content-type", []byte("y"), int64(1)<<62)
	f.Fuzz(func(t *testing.T, key, value []byte, name1 string, value1 []byte, name2 string, value2 []byte, ms int64) {
		rules := testRules(t, testDefinition(), 0)
		rec := kafka.Record{Key: key, Value: value, Time: time.UnixMilli(ms), Headers: []kafka.Header{{Key: name1, Value: value1}, {Key: name2, Value: value2}}}
		v := rules.judge(&rec, false)
		if v.reason != Accepted {
			return
		}
		m := v.message
		again := m
		if err := again.Check(rules.def.MaxPayload); err != nil {
			t.Fatalf("accepted what a client could not publish: %v", err)
		}
		rec = written(newSealer(rules.def.Secret), &m, 3, 1)
		v = rules.judge(&rec, false)
		if v.reason != Accepted || v.left != 0 || !bytes.Equal(v.message.Payload, m.Payload) {
			t.Fatalf("%q, %+v", v.reason, v.message)
		}
		v.message.Payload, m.Payload = nil, nil
		if !reflect.DeepEqual(v.message, m) {
			t.Fatalf("%+v is read as %+v", m, v.message)
		}
	})
}

// goldenRecord is a record of Kafka as people see it.
type goldenRecord struct {
	Name    string      `json:"name"`
	Key     *string     `json:"key"`
	Value   *string     `json:"value"`
	Time    string      `json:"time"`
	Headers [][2]string `json:"headers,omitempty"`
	Message any         `json:"message,omitempty"`
	Refused Reason      `json:"refused,omitempty"`
}

// TestGolden writes down how records and messages belong together, for people who
// write clients of Kafka.
func TestGolden(t *testing.T) {
	text := func(s string) *string { return &s }
	const at = "2026-03-01T12:00:00Z"
	records := []goldenRecord{
		{Name: "a key and a value", Key: text("room.42.chat"), Value: text("hello"), Time: at},
		{Name: "all that a client may say", Key: text("orders.eu"), Value: text(`{"n":1}`), Time: at, Headers: [][2]string{
			{"tidewire-id", "order-17"}, {"content-type", "application/json"}, {"tidewire-key", "customer-3"}, {"tidewire-expires-at", "2026-03-02T12:00:00Z"}, {"trace", "abc"},
		}},
		{Name: "a header that has a meaning here, as a plain one", Key: text("a"), Value: text("v"), Time: at, Headers: [][2]string{{"tidewire-header-content-type", "mine"}}},
		{Name: "no key", Value: text("v"), Time: at},
		{Name: "no value", Key: text("a"), Time: at},
		{Name: "a topic of the broker", Key: text("$dead.mail"), Value: text("v"), Time: at},
		{Name: "an origin that no broker wrote", Key: text("a"), Value: text("v"), Time: at, Headers: [][2]string{{"tidewire-origin", "me"}}},
	}
	for i := range records {
		g := &records[i]
		when, err := time.Parse(time.RFC3339, g.Time)
		if err != nil {
			t.Fatal(err)
		}
		rec := kafka.Record{Time: when}
		if g.Key != nil {
			rec.Key = []byte(*g.Key)
		}
		if g.Value != nil {
			rec.Value = []byte(*g.Value)
		}
		for _, h := range g.Headers {
			rec.Headers = append(rec.Headers, kafka.Header{Key: h[0], Value: []byte(h[1])})
		}
		v := testRules(t, testDefinition(), 0).judge(&rec, false)
		if g.Refused = v.reason; v.reason == Accepted {
			g.Message = v.message
		}
	}
	got, err := json.MarshalIndent(records, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	file := filepath.Join("testdata", "records.json")
	if *updateFlag {
		if err := os.WriteFile(file, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s differs (-update writes it anew), %v:\n%s", file, err, got)
	}
}

// TestReasonsAreExplained: docs/kafka.md has a line for each reason, and for no
// other.
func TestReasonsAreExplained(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "kafka.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "| reason | what to change |")
	table, _, _ = strings.Cut(table, "\n\n")
	var explained []string
	for line := range strings.Lines(table) {
		if name, ok := strings.CutPrefix(line, "| `"); ok {
			name, _, _ = strings.Cut(name, "`")
			explained = append(explained, name)
		}
	}
	var want []string
	for _, r := range Reasons() {
		want = append(want, string(r))
	}
	slices.Sort(explained)
	slices.Sort(want)
	if !slices.Equal(explained, want) {
		t.Errorf("docs/kafka.md explains %q, the reasons are %q", explained, want)
	}
}
