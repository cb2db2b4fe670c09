package judge

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func testPlan(t *testing.T, f *fake) Plan {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return Plan{
		URLs: []string{f.server.URL}, Dir: filepath.Join(t.TempDir(), "run"),
		Publishers: 3, Subscribers: 4, Topics: 6, Messages: 150, HTTPShare: 0.2, Seed: seed,
		Tuning: Tuning{
			Patience: 5 * time.Second, ReconnectMin: time.Millisecond, ReconnectMax: 10 * time.Millisecond,
			Repeats: 1,
		},
	}
}

func judged(t *testing.T, p Plan) *Report {
	t.Helper()
	if err := Run(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	r, err := Verdict(p.Dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCleanRun(t *testing.T) {
	p := testPlan(t, newFake(t))
	r := judged(t, p)
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	if want := p.Publishers * p.Messages; r.Traffic.Published != want || r.Traffic.Answered != want {
		t.Errorf("published %d, answered %d, want %d", r.Traffic.Published, r.Traffic.Answered, want)
	}
	if r.Traffic.Duplicates == 0 {
		t.Error("no repeat was answered as a duplicate")
	}
	// sub-000, the wildcard of sub-002 or sub-003, and the audit see everything.
	if r.Traffic.Receipts < 3*r.Traffic.Answered {
		t.Errorf("only %d receipts of %d messages", r.Traffic.Receipts, r.Traffic.Answered)
	}
}

// Every wrong that is done on purpose is caught, as what it is.
func TestWrongsAreCaught(t *testing.T) {
	for _, test := range []struct {
		wrong wrong
		after int // chances to let pass first
		fault string
		also  string // faults that may follow from it
	}{
		{wrong: dropDelivered, after: 10, fault: "Lost"},
		{wrong: swallow, after: 200, fault: "Lost", also: "Stuck"},
		{wrong: skipOnResume, fault: "Lost"},
		{wrong: doubleDelivered, after: 10, fault: "Doubled"},
		{wrong: doubleStored, after: 200, fault: "Doubled"},
		{wrong: forgetID, fault: "Doubled", also: "WrongDuplicates"},
		{wrong: swapDelivered, after: 5, fault: "Reordered"},
		{wrong: swapStored, after: 5, fault: "Reordered"},
		{wrong: falseGap, after: 10, fault: "FalseGaps"},
		{wrong: falseRetention, after: 10, fault: "FalseGaps"},
		{wrong: wrongDuplicate, fault: "WrongDuplicates"},
		{wrong: falseDuplicate, after: 100, fault: "WrongDuplicates"},
		{wrong: falseConflict, fault: "Conflicts"},
		{wrong: damagePayload, after: 10, fault: "Damaged"},
		{wrong: invent, after: 10, fault: "Foreign"},
		{wrong: refuseForGood, after: 10, fault: "Refused"},
		{wrong: closeForGood, fault: "Refused"},
		{wrong: neverCaughtUp, fault: "Stuck"},
	} {
		t.Run(string(test.wrong), func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.wrongs[test.wrong] = test.after
			p := testPlan(t, f)
			if test.wrong == neverCaughtUp {
				p.Tuning.Patience = 2 * time.Second
			}
			if test.wrong == swapStored {
				p.HTTPShare = 0 // it takes a frame of several messages
			}
			if test.wrong == skipOnResume {
				p.Tuning.CutEvery, p.Rate, p.Messages = 20*time.Millisecond, 3000, 400
			}
			r := judged(t, p)
			if f.chancesLeft(test.wrong) {
				t.Fatal("the fake had no chance to do it")
			}
			found := reflect.ValueOf(r.Faults)
			for i := range found.NumField() {
				name, n := found.Type().Field(i).Name, found.Field(i).Int()
				if name == test.fault && n == 0 {
					t.Errorf("%s = 0, want some", name)
				}
				if name != test.fault && name != test.also && n != 0 {
					t.Errorf("%s = %d, want 0", name, n)
				}
			}
			if r.Err() == nil {
				t.Error("the verdict has no error")
			}
			t.Log(strings.Join(r.Details, "\n"))
		})
	}
}

// What a broker may do, or a client can mend, is no fault.
func TestAllowedTroubleIsNoFault(t *testing.T) {
	for w, after := range map[wrong]int{dropFrame: 1, refuseForNow: 20, loseAnswerOnKill: 20} {
		t.Run(string(w), func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.wrongs[w] = after
			r := judged(t, testPlan(t, f))
			if err := r.Err(); err != nil {
				t.Error(err)
			}
			if w == dropFrame && r.Traffic.Holes == 0 {
				t.Error("no hole was noticed")
			}
		})
	}
}

// A message without an answer is repeated over reconnects until it has one.
func TestUnansweredIsRepeated(t *testing.T) {
	f := newFake(t)
	f.wrongs[neverAnswer] = 50
	p := testPlan(t, f)
	p.Tuning.Patience = 700 * time.Millisecond
	r := judged(t, p)
	if err := r.Err(); err != nil || r.Traffic.Unanswered > 0 {
		t.Errorf("%d without an answer, %v", r.Traffic.Unanswered, err)
	}
}

func TestKillsUnderLoad(t *testing.T) {
	f := newFake(t)
	p := testPlan(t, f)
	p.Messages, p.Rate = 0, 4000
	p.Tuning.CutEvery, p.Tuning.PauseEvery = 300*time.Millisecond, 300*time.Millisecond
	l, err := Start(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		before := l.Answered()
		eventually(t, "more answers", func() bool { return l.Answered() > before+200 })
		f.dieNow()
	}
	l.Stop()
	if err := l.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := Verdict(p.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	// Each kill cuts at least the publisher that had answers since the one before;
	// who was still waiting to come back then has nothing to lose.
	if r.Traffic.Reconnects < 5 {
		t.Errorf("only %d connections over 5 kills", r.Traffic.Reconnects)
	}
}

// A judge that is killed leaves files that can be judged: what came after the
// cursor of a subscriber is not held against the broker, a torn line is left
// out, what came before is judged.
func TestFilesOfAKilledJudge(t *testing.T) {
	f := newFake(t)
	f.wrongs[dropDelivered] = 10
	p := testPlan(t, f)
	r := judged(t, p)
	if r.Faults.Lost == 0 {
		t.Fatal("nothing is lost before the files are cut")
	}
	files, err := filepath.Glob(filepath.Join(p.Dir, "*.jsonl"))
	if err != nil || len(files) != p.Publishers+p.Subscribers+1 {
		t.Fatalf("files %v, error %v", files, err)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(file, "sub-") {
			if err := os.Truncate(file, info.Size()-30); err != nil {
				t.Fatal(err)
			}
		}
	}
	r, err = Verdict(p.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if r.Faults.Lost == 0 || r.Faults.Total() != r.Faults.Lost || r.Traffic.CutShort != p.Subscribers+1 {
		t.Errorf("%+v %+v", r.Traffic, r.Faults)
	}
}

func TestNothingProvesNothing(t *testing.T) {
	r := &Report{}
	if r.Err() == nil {
		t.Error("an empty report passes")
	}
	if _, err := Verdict(t.TempDir()); err == nil {
		t.Error("a directory without files passes")
	}
}

func TestSecondRunInADirectoryIsRefused(t *testing.T) {
	p := testPlan(t, newFake(t))
	p.Messages = 1
	judged(t, p)
	if err := Run(t.Context(), p); err == nil {
		t.Error("no error")
	}
}

func TestMatches(t *testing.T) {
	for _, test := range []struct {
		filter, topic string
		want          bool
	}{
		{"a.b", "a.b", true},
		{"a.b", "a.c", false},
		{"a.b", "a.b.c", false},
		{"a.*", "a.b", true},
		{"a.*", "a", false},
		{"a.*", "a.b.c", false},
		{"a.>", "a", false},
		{"a.>", "a.b.c", true},
		{"*.>", "a.b", true},
		{">", "$dead.x", false},
		{"*.x", "$dead.x", false},
		{"$dead.>", "$dead.x", true},
	} {
		if got := matches(test.filter, test.topic); got != test.want {
			t.Errorf("matches(%q, %q) = %v", test.filter, test.topic, got)
		}
	}
}

func TestParsePlace(t *testing.T) {
	for text, want := range map[string]place{
		"p1z141z3-42":   {"1z141z3", 0, 42},
		"p1z141z3-3_42": {"1z141z3", 3, 42},
	} {
		got, err := parsePlace(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("parsePlace(%q) = %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "42", "p-1", "p1z", "p1z-", "p1z-x", "p1z-x_1", "1z141z3-42"} {
		if _, err := parsePlace(text); err == nil {
			t.Errorf("parsePlace(%q) has no error", text)
		}
	}
}

func TestReportPrintsAFigureALine(t *testing.T) {
	r := &Report{Faults: Faults{Lost: 2}}
	var b strings.Builder
	if err := r.Print(&b); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); !strings.Contains(got, "        2 lost  <-- FAULT\n") || !strings.Contains(got, "        0 doubled\n") {
		t.Errorf("%s", got)
	}
}

// The payloads go through JSON unharmed, so that a sum that differs is the
// broker's doing.
func TestAwkwardPayloads(t *testing.T) {
	for _, text := range awkward {
		m := outgoing{payload: []byte(text)}
		b, err := json.Marshal(m.form())
		if err != nil {
			t.Fatal(err)
		}
		var back message
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		if back.sum() != sumOf(m.payload) {
			t.Errorf("%q comes back as %s", text, b)
		}
	}
}
