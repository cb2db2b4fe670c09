package connect

import (
	"testing"

	"github.com/tidewire/tidewire/broker/bridge"
	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/protocol"
)

// What failed is written again, and of its partition everything behind it; what never
// can be written is told.
func TestWhatIsWrittenAgain(t *testing.T) {
	o := NewOut(OutOptions{StreamTopic: "tidewire.main"})
	w := &writing{Out: o, number: 3}
	var todo []cargo
	for i, partition := range []int32{0, 1, 0, 1, 0, 1, 2, 2} {
		todo = append(todo, cargo{to: kafka.Partition{Topic: foreign, Number: partition}, offset: uint64(i + 1)})
	}
	var bad []bridge.Refused
	again, failure := w.rest(todo, []error{nil, nil, &kafka.Error{Kind: kafka.NotSent}, nil, nil, nil, &kafka.Error{Kind: kafka.TooLarge}, nil}, &bad)
	if failure == nil || len(again) != 2 || again[0].offset != 3 || again[1].offset != 5 {
		t.Errorf("%v %+v", failure, again)
	}
	if len(bad) != 1 || bad[0].Reason != bridge.Reason(TooLarge) || bad[0].Record.Offset != 6 || bad[0].Partition != (kafka.Partition{Topic: "tidewire.main", Number: 3}) {
		t.Errorf("%+v", bad)
	}
	if again, failure := w.rest(todo[:2], []error{nil, nil}, &bad); failure != nil || len(again) != 0 {
		t.Errorf("%v %+v", failure, again)
	}
}

func TestTransactionalRecordsAreBad(t *testing.T) {
	to := template(t, "a", InFields())
	r := &reading{In: NewIn(InOptions{To: to})}
	rec := &kafka.Record{Value: []byte("v")}
	if _, why := r.message(0, rec, true); why != Transactional {
		t.Errorf("%q", why)
	}
	if m, why := r.message(0, rec, false); why != "" || m.Topic != "a" {
		t.Errorf("%+v %q", m, why)
	}
}

// Every refusal of the broker is either waited for or a bad record; what is retryable
// is waited for.
func TestRefusalsThatPass(t *testing.T) {
	for _, c := range protocol.Codes() {
		if why := reasonOf(protocol.Errorf(c.Code, "x")); why != "" && c.Retryable {
			t.Errorf("%s passes, and is %q", c.Code, why)
		}
	}
}
