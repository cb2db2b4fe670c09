package protocol

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestDecodeSettles(t *testing.T) {
	got, err := DecodeSettles([]byte(` {"generation":12,
		"reject":[{"position":"pz-9","reason":"é"},"pz-10"],
		"ack":["pz-1", {"position":"pz-2"} ,"py-3_1","pz-4"],
		"nack":["pz-5",{"position":"pz-6","delay":"5s"},{"position":"pz-7","delay":"0s"},{"position":"pz-8","delay":"5s"}],
		"extend":[{"position":"pz-11","by":"12h"},{"position":"pz-12","by":null}] } ` + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	one := func(partition uint32, offsets ...uint64) (all []OffsetRange) {
		for _, o := range offsets {
			all = append(all, OffsetRange{Partition: partition, From: o, Through: o})
		}
		return all
	}
	const y, z = 34, 35
	want := []*Settle{
		{Kind: SettleAck, Term: z, Ranges: one(0, 1, 2, 4)},
		{Kind: SettleAck, Term: y, Ranges: one(3, 1)},
		{Kind: SettleNack, Term: z, Ranges: one(0, 5)},
		{Kind: SettleNack, Term: z, Ranges: one(0, 6, 8), Delay: new(5 * time.Second)},
		{Kind: SettleNack, Term: z, Ranges: one(0, 7), Delay: new(time.Duration(0))},
		{Kind: SettleExtend, Term: z, Ranges: one(0, 11), Delay: new(12 * time.Hour)},
		{Kind: SettleExtend, Term: z, Ranges: one(0, 12)},
		{Kind: SettleReject, Term: z, Ranges: one(0, 9), Reason: "é"},
		{Kind: SettleReject, Term: z, Ranges: one(0, 10)},
	}
	for _, s := range want {
		s.Generation, s.Confirm = 12, true
	}
	if !reflect.DeepEqual(got, want) {
		for i := range max(len(got), len(want)) {
			t.Errorf("%d: got %+v, want %+v", i, got[min(i, len(got)-1)], want[min(i, len(want)-1)])
		}
	}
}

func TestDecodeSettlesRefuses(t *testing.T) {
	for _, c := range []struct {
		body string
		code Code
		says string
	}{
		{"", CodeBadRequest, "the body is empty"},
		{"[]", CodeBadRequest, "the body is of the kind array, but must be an object"},
		{"{", CodeBadRequest, "the body is not JSON"},
		{"null", CodeBadRequest, "names no message"},
		{"{}", CodeBadRequest, "names no message"},
		{`{"ack":[]}`, CodeBadRequest, "names no message"},
		{`{"ack":["pz-1"]} {}`, CodeBadRequest, "goes on behind its end"},
		{`{"acks":["pz-1"]}`, CodeBadRequest, `the field "acks", which is not known`},
		{`{"` + strings.Repeat("x", 500) + `":1}`, CodeBadRequest, "which is not known"},
		{`{"ack":"pz-1"}`, CodeBadRequest, `the field "ack" must be an array`},
		{`{"ack":["pz-1",5]}`, CodeBadRequest, "ack 2 of 2 is of the kind number, but must be a string"},
		{`{"ack":["pz-1",[]]}`, CodeBadRequest, "ack 2 of 2 is of the kind array"},
		{`{"ack":["42"]}`, CodeOffsetNotPosition, `ack 1 of 1: "42" is an offset`},
		{`{"nack":[{"delay":"5s"}]}`, CodeInvalidPosition, `nack 1 of 1: "" is not a position`},
		{`{"ack":["pz-0"]}`, CodeBadRequest, "ack 1 of 1: the ack has the range from 0"},
		{`{"nack":[{"position":"pz-1","dealy":"5s"}]}`, CodeBadRequest, `nack 1 of 1 has the field "dealy"`},
		{`{"nack":[{"position":"pz-1","delay":"5"}]}`, CodeBadRequest, "`delay` is \"5\", which is no duration"},
		{`{"nack":[{"position":"pz-1","delay":"-5s"}]}`, CodeBadRequest, "which is no duration"},
		{`{"nack":[{"position":"pz-1","delay":5}]}`, CodeBadRequest, `the field "delay" of nack 1 of 1`},
		{`{"extend":[{"position":"pz-1","by":"0s"}]}`, CodeBadRequest, "`by` is \"0s\", which is no duration"},
		{`{"extend":[{"position":"pz-1","by":"12h1s"}]}`, CodeBadRequest, "at most 12h0m0s are allowed"},
		{`{"extend":[{"position":"pz-1","delay":"1s"}]}`, CodeBadRequest, "`delay` belongs to nack, not to extend"},
		{`{"ack":[{"position":"pz-1","reason":"x"}]}`, CodeBadRequest, "`reason` belongs to reject, not to ack"},
		{`{"reject":[{"position":"pz-1","reason":"` + strings.Repeat("x", 1025) + `"}]}`, CodeBadRequest, "the reason has 1025 bytes"},
		{`{"reject":[{"position":"pz-1","reason":"\n"}]}`, CodeBadRequest, "control character"},
		{`{"reject":[{"position":"pz-1","reason":"\ud800"}]}`, CodeBadRequest, "half of a surrogate pair"},
		{"{\"reject\":[{\"position\":\"pz-1\",\"reason\":\"\xff\"}]}", CodeBadRequest, "not valid UTF-8"},
		{`{"generation":-1,"ack":["pz-1"]}`, CodeBadRequest, `the field "generation"`},
		{`{"ack":[` + strings.Repeat(`"pz-1",`, 5000) + `"pz-1"],"nack":[` + strings.Repeat(`"pz-1",`, 4999) + `"pz-1"]}`, CodeTooManyMessages, "10001 positions, at most 10000"},
	} {
		got, err := DecodeSettles([]byte(c.body))
		if got != nil || err == nil {
			t.Errorf("%s: taken", cutText(c.body))
			continue
		}
		wantError(t, err, c.code, c.says, cutText(c.body))
	}
	_, err := DecodeSettles([]byte(`{"ack":[` + strings.Repeat(`"pz-1",`, 10_000) + `"pz-1"]}`))
	if e, ok := errors.AsType[*Error](err); !ok || e.TakeLimit() != LimitSettle {
		t.Errorf("%v is not about the limit", err)
	}
}

func cutText(s string) string { return s[:min(len(s), 100)] }

func FuzzDecodeSettles(f *testing.F) {
	for _, s := range []string{
		`{"generation":12,"ack":["pz-1"],"nack":[{"position":"pz-2","delay":"5s"}],"extend":[{"position":"pz-3","by":"1m"}],"reject":[{"position":"pz-4","reason":"no"}]}`,
		`{"ack":[]}`, `[]`, `{"ack":[{}]}`, `{"nack":[{"position":"pz-1","delay":"-1s"}]}{}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var all []*Settle
		var err error
		checkAllocated(t, len(b), func() { all, err = DecodeSettles(b) })
		if err != nil {
			checkRefusal(t, err)
			return
		}
		total := 0
		for _, s := range all {
			checkClientFrame(t, s)
			total += len(s.Ranges)
		}
		if total == 0 || total > MaxSettleRanges {
			t.Fatalf("%d positions", total)
		}
	})
}

func TestMarshalHead(t *testing.T) {
	m := Message{Topic: "a", ID: "1", Payload: []byte("secret"), Attempt: 2, Generation: 3}
	if got, err := m.MarshalHead(); err != nil || string(got) != `{"id":"1","topic":"a","attempt":2,"generation":3}` {
		t.Errorf("%s, %v", got, err)
	}
}
