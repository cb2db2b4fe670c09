package judge

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func consumerPlan(t *testing.T, f *fake, consumers ...Consumer) Plan {
	p := testPlan(t, f)
	p.Subscribers, p.Keys, p.Messages = 0, 20, 200
	for i := range consumers {
		c := &consumers[i]
		setDefault(&c.AckWait, 600*time.Millisecond)
		setDefault(&c.BackoffBase, 20*time.Millisecond)
		setDefault(&c.BackoffCap, 100*time.Millisecond)
	}
	p.Consumers = consumers
	return p
}

// Members of every kind come and go, are cut off and freeze; the broker dies a
// few times; and nothing is wrong.
func TestConsumersOfACleanBroker(t *testing.T) {
	f := newFake(t)
	p := consumerPlan(t, f,
		Consumer{Name: "shared", Members: 4, Fetchers: 2},
		Consumer{Name: "unordered", Members: 3, Unordered: true},
		Consumer{Name: "exclusive", Members: 3, Exclusive: true},
	)
	p.Messages, p.Rate = 400, 800
	p.Tuning.LeaveEvery = 300 * time.Millisecond
	l, err := Start(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		before := l.Answered()
		eventually(t, "more answers", func() bool { return l.Answered() > before+100 })
		l.Crash(f.dieNow)
	}
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
	w := r.Work
	if w.Receipts < 3*1200 || w.Redelivered == 0 || w.Dead == 0 || w.Confirmed < 1200 || w.Lost == 0 || w.Fenced == 0 {
		t.Errorf("something did not come up: %+v", w)
	}
	t.Logf("%+v", w)
}

// Every wrong that is done to a consumer on purpose is caught, as what it is.
func TestWrongsOfConsumersAreCaught(t *testing.T) {
	for _, test := range []struct {
		wrong wrong
		after int // chances to let pass first
		fault string
		also  []string // faults that may follow from it
	}{
		{wrong: forgetMessage, after: 100, fault: "Forgotten", also: []string{"Stuck"}},
		{wrong: forgetNacked, after: 5, fault: "Forgotten", also: []string{"Stuck", "Crowded"}},
		{wrong: redeliverAcked, after: 20, fault: "Undone"},
		{wrong: twoOfAKey, after: 1, fault: "Crowded", also: []string{"Reordered"}},
		{wrong: keyBackwards, after: 5, fault: "Reordered", also: []string{"Crowded"}},
		{wrong: forgetDead, fault: "Forgotten", also: []string{"Stuck"}},
		{wrong: buryTooEarly, after: 5, fault: "Attempts"},
		{wrong: buryInSilence, after: 1, fault: "Damaged"},
		{wrong: buryTwice, after: 1, fault: "Doubled"},
		{wrong: countTwice, after: 5, fault: "Attempts"},
		{wrong: countAhead, after: 100, fault: "Attempts"},
		{wrong: inventWork, after: 10, fault: "Foreign"},
		{wrong: neverFence, fault: "Unfenced"},
		{wrong: refuseAck, after: 5, fault: "Refused"},
	} {
		t.Run(string(test.wrong), func(t *testing.T) {
			t.Parallel()
			r := doWrong(t, test.wrong, test.after, test.fault, slices.Contains(test.also, "Stuck"))
			found := reflect.ValueOf(r.Faults)
			for i := range found.NumField() {
				name, n := found.Type().Field(i).Name, found.Field(i).Int()
				if name != test.fault && !slices.Contains(test.also, name) && n != 0 {
					t.Errorf("%s = %d, want 0", name, n)
				}
			}
			t.Log(strings.Join(r.Details, "\n"))
		})
	}
}

// doWrong judges a broker that does a wrong on purpose. Members act at random, so
// there may be no chance to do it, or to see it; then they try again.
func doWrong(t *testing.T, w wrong, after int, fault string, stuck bool) *Report {
	t.Helper()
	for range 10 {
		f := newFake(t)
		f.wrongs[w] = after
		// So long that on a slow machine nobody's work goes to another by itself.
		p := consumerPlan(t, f, Consumer{Name: "work", Members: 3, AckWait: 1500 * time.Millisecond})
		p.Messages, p.Rate = 150, 300 // only while there is something to publish do they fail and reject
		if stuck {
			p.Tuning.Patience = 3 * time.Second
		}
		if w != twoOfAKey && w != keyBackwards {
			p.Keys = 100 // fewer wait for each other
		}
		if w == redeliverAcked {
			p.Consumers[0].AckWait = lateReceipt + 1500*time.Millisecond // so long does everybody stay
		}
		p.Consumers[0].Exclusive = w == neverFence
		r := judged(t, p)
		if !f.chancesLeft(w) && reflect.ValueOf(r.Faults).FieldByName(fault).Int() > 0 {
			return r
		}
	}
	t.Fatal("the fake had no chance to do it, or nobody saw it, in ten runs")
	return nil
}
