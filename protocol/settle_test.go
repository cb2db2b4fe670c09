package protocol

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
)

func randomSettle(r *rand.Rand) *Settle {
	s := &Settle{Kind: SettleKind(r.IntN(4)), Ref: r.Uint32(), Sub: r.Uint32N(3), Term: NewTerm(), Confirm: r.IntN(2) == 0}
	if r.IntN(2) == 0 {
		s.Generation = 1 + r.Uint64N(1<<r.IntN(64))
	}
	for range 1 + r.IntN(5) {
		of := OffsetRange{From: 1 + r.Uint64N(MaxOffset)}
		if of.Through = of.From; r.IntN(2) == 0 {
			of.Partition = r.Uint32()
			of.Through += r.Uint64N(MaxOffset - of.From + 1)
		}
		s.Ranges = append(s.Ranges, of)
	}
	switch delay := time.Duration(r.IntN(3)) * 1500 * time.Millisecond; s.Kind {
	case SettleAck:
		s.UpTo = r.IntN(2) == 0
	case SettleNack:
		if r.IntN(2) == 0 {
			s.Delay = &delay
		}
	case SettleExtend:
		if delay > 0 {
			s.Delay = &delay
		}
	case SettleReject:
		s.Reason = randomPrintable(r, 20)
	}
	return s
}

// generatedSettle makes the generated frame of s.
func generatedSettle(s *Settle) *tidewirev1.ClientFrame {
	var ranges []*tidewirev1.OffsetRange
	for _, of := range s.Ranges {
		g := &tidewirev1.OffsetRange{Partition: of.Partition, From: of.From}
		if of.Through != of.From {
			g.Through = of.Through
		}
		ranges = append(ranges, g)
	}
	term := s.Term.String()
	var ms *uint64
	if s.Delay != nil {
		ms = new(uint64(s.Delay.Milliseconds()))
	}
	switch s.Kind {
	case SettleAck:
		return &tidewirev1.ClientFrame{Frame: &tidewirev1.ClientFrame_Ack{Ack: &tidewirev1.Ack{Ref: s.Ref, Sub: s.Sub, Generation: s.Generation, Term: term, Ranges: ranges, UpTo: s.UpTo, Confirm: s.Confirm}}}
	case SettleNack:
		return &tidewirev1.ClientFrame{Frame: &tidewirev1.ClientFrame_Nack{Nack: &tidewirev1.Nack{Ref: s.Ref, Sub: s.Sub, Generation: s.Generation, Term: term, Ranges: ranges, Confirm: s.Confirm, DelayMs: ms}}}
	case SettleExtend:
		f := &tidewirev1.Extend{Ref: s.Ref, Sub: s.Sub, Generation: s.Generation, Term: term, Ranges: ranges, Confirm: s.Confirm}
		if ms != nil {
			f.ByMs = *ms
		}
		return &tidewirev1.ClientFrame{Frame: &tidewirev1.ClientFrame_Extend{Extend: f}}
	default:
		return &tidewirev1.ClientFrame{Frame: &tidewirev1.ClientFrame_Reject{Reject: &tidewirev1.Reject{Ref: s.Ref, Sub: s.Sub, Generation: s.Generation, Term: term, Ranges: ranges, Confirm: s.Confirm, Reason: s.Reason}}}
	}
}

// TestSettleIsTheProtobufEncoding compares the hand-written encoder and decoder
// with the generated structs.
func TestSettleIsTheProtobufEncoding(t *testing.T) {
	r := newRandom(t)
	for range 600 {
		s := randomSettle(r)
		want := marshal(t, generatedSettle(s))
		got := Proto{}.AppendClient([]byte("before"), s)[len("before"):]
		if !bytes.Equal(got, want) {
			t.Fatalf("%+v\n got %x\nwant %x", s, got, want)
		}
		decoded, err := Proto{}.DecodeClient(got, testLimits)
		if err != nil || !sameFrame(decoded, s) {
			t.Fatalf("%+v, %v\nwant %+v", decoded, err, s)
		}
	}
}

// settleText is the frame as a client of the text subprotocol may write it.
func settleText(t *testing.T, s *Settle, r *rand.Rand) []byte {
	t.Helper()
	form := map[string]any{"type": s.Kind.String(), "ref": s.Ref, "sub": s.Sub, "generation": s.Generation, "confirm": s.Confirm, "reason": s.Reason}
	if s.UpTo {
		form["up_to"] = true
	}
	if s.Delay != nil {
		form[map[SettleKind]string{SettleNack: "delay_ms", SettleExtend: "by_ms"}[s.Kind]] = s.Delay.Milliseconds()
	}
	var positions, ranges []any
	for _, of := range s.Ranges {
		from := Position{Term: s.Term, Partition: of.Partition, Offset: of.From}
		through := from
		through.Offset = of.Through
		switch {
		case from != through:
			ranges = append(ranges, map[string]any{"from": from.String(), "through": through.String()})
		case len(ranges) == 0 && r.IntN(2) == 0: // positions are read before ranges
			positions = append(positions, from.String())
		default:
			ranges = append(ranges, map[string]any{"from": from.String()})
		}
	}
	form["positions"], form["ranges"] = positions, ranges
	text, err := json.Marshal(form)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestSettleInBothCodecs: the same request gives the same frame.
func TestSettleInBothCodecs(t *testing.T) {
	r := newRandom(t)
	for range 600 {
		s := randomSettle(r)
		text := settleText(t, s, r)
		got, err := JSON{}.DecodeClient(text, testLimits)
		if err != nil || !sameFrame(got, s) {
			t.Fatalf("%s\n got %+v, %v\nwant %+v", text, got, err, s)
		}
	}
}

// TestSettleReadsWhatProtobufReads: fields in any order and given twice, varints
// with padding, fields that nobody knows.
func TestSettleReadsWhatProtobufReads(t *testing.T) {
	r := newRandom(t)
	for range 600 {
		s, earlier := randomSettle(r), randomSettle(r)
		earlier.Kind, earlier.Ranges = s.Kind, nil
		inner := func(s *Settle) []byte {
			_, body, err := outerField(marshal(t, generatedSettle(s)), lastClientFrame)
			if err != nil {
				t.Fatal(err)
			}
			return body
		}
		body := protowire.AppendVarint(protowire.AppendTag(inner(earlier), 99, protowire.VarintType), 7)
		body = append(body, inner(s)...)
		b := protowire.AppendBytes(protowire.AppendTag(nil, clientAck+protowire.Number(s.Kind), protowire.BytesType), body)
		var whole tidewirev1.ClientFrame
		if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, &whole); err != nil {
			t.Fatal(err)
		}
		got, err := Proto{}.DecodeClient(b, testLimits)
		if err != nil || !proto.Equal(generatedSettle(got.(*Settle)), &whole) {
			t.Fatalf("%+v, %v\nprotobuf reads %v", got, err, &whole)
		}
	}
	padded := append([]byte(nil), 0x2a, 4, 0x10, 0x85, 0x80, 0x00, 0x22, 1, 'z')
	if got, err := (Proto{}).DecodeClient([]byte(clientBytes(8, padded)), testLimits); err != nil || got.(*Settle).Ranges[0].From != 5 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestSettleTakesTenThousandRanges: the limit itself is allowed.
func TestSettleTakesTenThousandRanges(t *testing.T) {
	s := &Settle{Sub: 1, Term: 35, Ranges: make([]OffsetRange, MaxSettleRanges)}
	for i := range s.Ranges {
		s.Ranges[i] = OffsetRange{From: uint64(2*i + 1), Through: uint64(2*i + 1)}
	}
	fromProto, err := Proto{}.DecodeClient(Proto{}.AppendClient(nil, s), testLimits)
	if err != nil || !sameFrame(fromProto, s) {
		t.Error(err)
	}
	fromJSON, err := JSON{}.DecodeClient(settleText(t, s, newRandom(t)), testLimits)
	if err != nil || len(fromJSON.(*Settle).Ranges) != MaxSettleRanges {
		t.Error(err)
	}
}

// TestSettleOfAnotherKindsFields: what belongs to another frame is skipped.
func TestSettleOfAnotherKindsFields(t *testing.T) {
	for _, kind := range settleKinds {
		text := `{"type":"` + kind + `","positions":["pz-1"],"up_to":true,"delay_ms":1,"by_ms":2,"reason":"r"}`
		frame, err := JSON{}.DecodeClient([]byte(text), testLimits)
		if err != nil {
			t.Fatal(err)
		}
		s := frame.(*Settle)
		if s.UpTo != (kind == "ack") || (s.Delay != nil) != (kind == "nack" || kind == "extend") || (s.Reason != "") != (kind == "reject") {
			t.Errorf("%s becomes %+v", text, s)
		}
	}
	nack := &Settle{Kind: SettleNack, Term: 35, Ranges: []OffsetRange{{From: 1, Through: 1}}, UpTo: true, Reason: "r"}
	written := Proto{}.AppendClient(nil, nack)
	odd := []byte(clientBytes(clientAck+1, append(written[2:], 0x30, 1, 0x42, 1, 'r'))) // all of it all the same
	for _, b := range [][]byte{written, odd} {
		if got, err := (Proto{}).DecodeClient(b, testLimits); err != nil || got.(*Settle).UpTo || got.(*Settle).Reason != "" {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

func TestSettleDelays(t *testing.T) {
	for _, c := range []struct {
		given, want time.Duration
	}{
		{-time.Hour, 0},
		{0, 0},
		{1, time.Millisecond},
		{time.Millisecond, time.Millisecond},
		{time.Millisecond + 1, 2 * time.Millisecond},
		{maxRepeatAge, maxRepeatAge},
		{math.MaxInt64, maxRepeatAge},
	} {
		s := &Settle{Kind: SettleNack, Term: 35, Ranges: []OffsetRange{{From: 1, Through: 1}}, Delay: &c.given}
		frame, err := Proto{}.DecodeClient(Proto{}.AppendClient(nil, s), testLimits)
		if err != nil {
			t.Fatal(err)
		}
		if got := frame.(*Settle).Delay; got == nil || *got != c.want {
			t.Errorf("%v arrives as %v, want %v", c.given, got, c.want)
		}
	}
	frame, err := JSON{}.DecodeClient([]byte(`{"type":"nack","positions":["pz-1"],"delay_ms":18446744073709551615}`), testLimits)
	if err != nil || *frame.(*Settle).Delay != maxRepeatAge {
		t.Errorf("%+v, %v", frame, err)
	}
}

// TestDeliverAttemptsUnpacked: one varint for each record is the same list.
func TestDeliverAttemptsUnpacked(t *testing.T) {
	body := appendText(nil, 3, "z")
	for _, n := range []uint64{1, 300, 1<<32 + 5} {
		body = protowire.AppendVarint(protowire.AppendTag(body, fieldAttempts, protowire.VarintType), n)
	}
	body = append(body, 0x3a, 2, 7, 8)
	frame, err := Proto{}.DecodeServer([]byte(clientBytes(serverDeliver, body)))
	if err != nil {
		t.Fatal(err)
	}
	want := &Deliver{Chunk: Chunk{Term: 35, Attempts: []uint32{1, 300, 5, 7, 8}}}
	if !sameFrame(frame, want) {
		t.Errorf("%+v, want %+v", frame, want)
	}
	if _, err := (Proto{}).DecodeServer([]byte(clientBytes(serverDeliver, []byte{0x3a, 1, 0xff}))); err == nil {
		t.Error("half a number was taken")
	}
}

// TestAckedInText: places are positions, and the term is in them alone.
func TestAckedInText(t *testing.T) {
	frame := &tidewirev1.Acked{Ref: 1, Sub: 2, Term: "z", Settled: 3, Refused: []*tidewirev1.RefusedRange{{Partition: 4, From: 5, Code: "fenced"}, {From: 6, Through: 9, Code: "x"}}}
	want := `{"type":"acked","ref":1,"sub":2,"settled":3,"refused":[{"from":"pz-4_5","through":"pz-4_5","code":"fenced"},{"from":"pz-6","through":"pz-9","code":"x"}]}`
	if got := string(JSON{}.AppendServer(nil, frame)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := string(JSON{}.AppendServer(nil, &tidewirev1.Acked{Ref: 1, Error: ErrorFrame(0, 0, Errorf(CodeFenced, "x"))})); got != `{"type":"acked","ref":1,"error":{"code":"fenced","message":"x"}}` {
		t.Errorf("got  %s", got)
	}
}

func TestCheckConsumer(t *testing.T) {
	for _, name := range []string{"a", "billing", "a-b_c:1", "é", "a$", strings.Repeat("x", MaxConsumerBytes)} {
		if err := CheckConsumer(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for name, says := range map[string]string{
		"": "is empty", "$a": "begins with '$'", "a.b": "single token", ".": "single token", "*": "single token", ">": "single token",
		"a b": "U+0020", "a\n": "U+000A", "\xff": "not valid UTF-8", strings.Repeat("x", MaxConsumerBytes+1): "has 129 bytes, at most 128",
	} {
		err := CheckConsumer(name)
		if err == nil || err.Code != CodeBadRequest || !strings.Contains(err.Message, says) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
