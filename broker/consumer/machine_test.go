package consumer_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/tidewire/tidewire/broker/consumer"
	"github.com/tidewire/tidewire/protocol"
)

const second = int64(time.Second / time.Microsecond)

func at(offset uint64) protocol.Position { return protocol.Position{Term: 7, Offset: offset} }

// rig is a machine and the registry that replays what it says.
type rig struct {
	*consumer.Machine
	t      *testing.T
	g      *consumer.Registry
	replay *consumer.Registry
}

func newRig(t *testing.T, change func(*consumer.Settings)) *rig {
	t.Helper()
	s := consumer.DefaultSettings()
	s.Filter, s.Stream, s.Backoff.Jitter = "orders.>", "main", false
	if change != nil {
		change(&s)
	}
	r := &rig{t: t, g: &consumer.Registry{}, replay: &consumer.Registry{}}
	m, err := r.g.Create("c", s, consumer.Places{Main: at(0), Redrive: at(0)}, 1)
	if err != nil {
		t.Fatal(err)
	}
	r.Machine = m
	t.Cleanup(r.check)
	return r
}

// check replays what was decided and compares.
func (r *rig) check() {
	r.t.Helper()
	for _, record := range [][]byte{r.g.Deltas(), r.Deltas()} {
		if err := r.replay.Apply(record); err != nil {
			r.t.Fatal(err)
		}
	}
	if got := r.replay.Get("c"); got == nil || !bytes.Equal(got.AppendState(nil), r.AppendState(nil)) {
		r.t.Fatal("replay gives another state")
	}
}

// take takes a message of the main source at second 0.
func (r *rig) take(offset, key uint64) bool {
	_, sent := r.Take(consumer.Message{At: at(offset), Key: key, Size: 100}, 1, 0)
	return sent
}

func (r *rig) state(offset uint64, want consumer.State, attempts int) {
	r.t.Helper()
	e, ok := r.Entry(offset)
	if !ok || e.State != want || e.Attempts != attempts {
		r.t.Errorf("%d is %v with %d attempts (there: %v), want %v with %d", offset, e.State, e.Attempts, ok, want, attempts)
	}
}

func (r *rig) gone(offset uint64) {
	r.t.Helper()
	if e, ok := r.Entry(offset); ok {
		r.t.Errorf("%d is still there, %v", offset, e.State)
	}
}

func want[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}

func TestTakeThenAck(t *testing.T) {
	r := newRig(t, nil)
	want(t, "sent", r.take(5, 0), true)
	e, _ := r.Entry(5)
	want(t, "the entry", e, consumer.Entry{Offset: 5, Size: 100, Attempts: 1, Due: 30 * second, Holder: 1})
	want(t, "the cursor", r.Cursor(consumer.Main), 5)
	r.check()
	want(t, "ack", r.Ack(r.Generation(), 5), consumer.Done)
	want(t, "ack again", r.Ack(0, 5), consumer.Already)
	want(t, "ack above", r.Ack(0, 6), consumer.Unknown)
	want(t, "ack of another generation", r.Ack(99, 5), consumer.Fenced)
	r.gone(5)
}

func TestKeyIsHeldUntilTheOneBeforeIsDone(t *testing.T) {
	r := newRig(t, nil)
	want(t, "first", r.take(1, 9), true)
	want(t, "second", r.take(2, 9), false)
	want(t, "third", r.take(3, 9), false)
	want(t, "other key", r.take(4, 8), true)
	want(t, "ack of a held one", r.Ack(0, 2), consumer.Unknown)
	want(t, "nack", r.Nack(0, 1, nil, consumer.Moment{Now: second}), consumer.Done)
	r.state(1, consumer.Waiting, 1)
	r.state(2, consumer.Held, 0)
	want(t, "late ack", r.Ack(0, 1), consumer.Done)
	r.state(2, consumer.Waiting, 0)
	r.state(3, consumer.Held, 0)
	got, ok := r.Retry(2, second)
	if !ok || got.Offset != 2 || got.Attempts != 1 || got.First != second {
		t.Errorf("the retry is %+v, %v", got, ok)
	}
	want(t, "reject", r.Reject(0, 2, "no"), consumer.Done)
	r.state(2, consumer.Dying, 1)
	r.state(3, consumer.Waiting, 0)
}
