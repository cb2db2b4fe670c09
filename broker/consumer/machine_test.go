package consumer_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
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

func moment(seconds int64) consumer.Moment { return consumer.Moment{Now: seconds * second} }

func (r *rig) retry(seconds int64, offset uint64) {
	r.t.Helper()
	e, ok := r.Retry(2, seconds*second)
	if ok != (offset != 0) || e.Offset != offset {
		r.t.Errorf("the retry at %d s is %d, want %d", seconds, e.Offset, offset)
	}
}

func TestAckWaitEnds(t *testing.T) {
	r := newRig(t, nil)
	r.take(1, 0)
	r.Advance(moment(29))
	r.state(1, consumer.InFlight, 1)
	due, ok := r.NextDue()
	want(t, "next due", due, 30*second)
	want(t, "has one", ok, true)
	r.Advance(moment(30))
	r.state(1, consumer.Waiting, 1)
	e, _ := r.Entry(1)
	want(t, "due", e.Due, 31*second)
	want(t, "reason", e.Reason, "no answer within 30s")
	want(t, "holder", e.Holder, 0)
	r.retry(30, 0)
	r.retry(31, 1)
	r.state(1, consumer.InFlight, 2)
}

func TestNackWithDelay(t *testing.T) {
	r := newRig(t, nil)
	r.take(1, 0)
	delay := 5 * time.Second
	want(t, "nack", r.Nack(0, 1, &delay, moment(1)), consumer.Done)
	r.retry(5, 0)
	delay = 100 * time.Hour
	want(t, "nack of what waits", r.Nack(0, 1, &delay, moment(1)), consumer.Done)
	r.retry(12*3600, 0)
	r.retry(12*3600+1, 1)
	delay = -time.Second
	want(t, "nack into the past", r.Nack(0, 1, &delay, moment(12*3600+2)), consumer.Done)
	e, _ := r.Entry(1)
	want(t, "due", e.Due, (12*3600+2)*second)
	want(t, "nack of nothing", r.Nack(0, 2, nil, moment(1)), consumer.Unknown)
	want(t, "nack of another generation", r.Nack(77, 1, nil, moment(1)), consumer.Fenced)
}

func TestLastAttemptDies(t *testing.T) {
	r := newRig(t, func(s *consumer.Settings) { s.MaxDeliver, s.Backoff.Base = 2, 0 })
	r.take(1, 9)
	r.take(2, 9)
	r.Nack(0, 1, nil, moment(1))
	r.retry(1, 1)
	r.Advance(moment(31))
	r.state(1, consumer.Dying, 2)
	r.state(2, consumer.Waiting, 0) // the key is free
	want(t, "ack of a dying one", r.Ack(0, 1), consumer.Already)
	want(t, "reject of a dying one", r.Reject(0, 1, ""), consumer.Already)
	want(t, "dying", r.Dying(), 1)
	r.check()
	r.EachDying(func(e consumer.Entry) bool {
		want(t, "reason", e.Reason, "no answer within 30s")
		r.Buried(e.Offset, 40)
		return true
	})
	r.gone(1)
	want(t, "dead", r.DeadCount(), 1)
	want(t, "dying", r.Dying(), 0)
}

func TestMembersThatDieDoNotRetryForEver(t *testing.T) {
	r := newRig(t, func(s *consumer.Settings) { s.MaxDeliver = 3 })
	r.take(1, 0)
	for i := int64(1); i < 3; i++ {
		r.Release(uint64(i), i*second, true)
		r.state(1, consumer.Waiting, int(i))
		r.Retry(uint64(i+1), i*second)
	}
	r.Release(3, 9*second, true)
	r.state(1, consumer.Dying, 3)
}

func TestExtend(t *testing.T) {
	r := newRig(t, nil)
	r.take(1, 0)
	for _, c := range []struct{ by, due time.Duration }{
		{0, 40 * time.Second}, {2 * time.Minute, 130 * time.Second}, {13 * time.Hour, 12*time.Hour + 10*time.Second}, {time.Second, 11 * time.Second},
	} {
		want(t, "extend", r.Extend(0, 1, c.by, 10*second), consumer.Done)
		due, _ := r.NextDue()
		want(t, "due", due, c.due.Microseconds())
	}
	r.Advance(moment(11))
	want(t, "extend, too late", r.Extend(0, 1, 0, 11*second), consumer.Already)
	want(t, "extend of another generation", r.Extend(99, 1, 0, 11*second), consumer.Fenced)
}

func TestRejectBoundsItsReason(t *testing.T) {
	r := newRig(t, nil)
	for offset, c := range map[uint64]struct{ given, kept string }{
		1: {"", "rejected by the consumer"},
		2: {strings.Repeat("é", 1500), strings.Repeat("é", consumer.MaxReasonBytes/2)},
		3: {"a" + strings.Repeat("é", 1500), "a" + strings.Repeat("é", consumer.MaxReasonBytes/2-1)},
		4: {"bad \xff byte", "bad  byte"},
		5: {strings.Repeat("\xff", 500), "rejected by the consumer"},
		6: {strings.Repeat("\xffa", 1500), strings.Repeat("a", consumer.MaxReasonBytes/2)},
	} {
		r := newRig(t, nil)
		r.take(offset, 0)
		want(t, "reject", r.Reject(0, offset, c.given), consumer.Done)
		e, _ := r.Entry(offset)
		want(t, "the reason", e.Reason, c.kept)
	}
	r.take(1, 0)
	r.Bury(1, "")
	e, _ := r.Entry(1)
	want(t, "the reason", e.Reason, "its message is about to go")
}

func TestUpTo(t *testing.T) {
	r := newRig(t, nil)
	for offset := uint64(1); offset <= 6; offset++ {
		r.Take(consumer.Message{At: at(offset)}, offset%2, 0) // holder 0 is nobody
	}
	want(t, "up to 4", fmt.Sprint(r.UpTo(0, 4, 1)), "[1 3]")
	want(t, "held by", r.HeldBy(1), 3)
	want(t, "of a stranger", len(r.UpTo(0, 6, 5)), 0)
	want(t, "of nobody", len(r.UpTo(0, 6, 0)), 0)
	want(t, "of another generation", len(r.UpTo(50, 6, 1)), 0)
	for offset := uint64(1); offset <= 6; offset++ { // what waits before it does not matter
		r.Reject(0, offset, "")
	}
	r.take(7, 0)
	want(t, "behind dying ones", fmt.Sprint(r.UpTo(0, 7, 1)), "[7]")
}

func TestInFlightIsBounded(t *testing.T) {
	r := newRig(t, func(s *consumer.Settings) { s.MaxInFlight, s.MaxInFlightBytes, s.Backoff.Base = 3, 1024, 0 })
	r.Take(consumer.Message{At: at(1), Size: 5000}, 1, 0) // a large one goes alone
	want(t, "beside a large one", r.Blocked(1), "max_in_flight_bytes")
	r.Ack(0, 1)
	want(t, "a large one", r.Blocked(5000), "")
	for offset := uint64(2); offset < 5; offset++ {
		want(t, "room", r.Blocked(100), "")
		r.take(offset, 0)
	}
	want(t, "no room", r.Blocked(100), "max_in_flight")
	r.Nack(0, 2, nil, moment(1))
	want(t, "ready", r.Ready(second), 1)
	want(t, "room again", r.Blocked(100), "")
	want(t, "no bytes", r.Blocked(1000), "max_in_flight_bytes")
	r.take(5, 0)
	r.retry(1, 0) // a retry needs room as well
	want(t, "ready without room", r.Ready(second), 0)
	due, _ := r.NextDue()
	want(t, "a retry without room is not due", due, 30*second)
	n, bytes := r.InFlight()
	want(t, "in flight", n, 3)
	want(t, "bytes", bytes, 300)
	r.Ack(0, 5)
	r.retry(1, 2)
}

func TestWaitingIsBoundedAndRetriesGoOn(t *testing.T) {
	r := newRig(t, func(s *consumer.Settings) { s.MaxWaiting, s.Backoff.Base = 3, 0 })
	for offset := uint64(1); offset <= 3; offset++ {
		r.take(offset, 7)
	}
	want(t, "room", r.Blocked(1), "")
	r.Nack(0, 1, nil, moment(1)) // one waits, two are held
	want(t, "blocked", r.Blocked(1), "max_waiting")
	r.retry(1, 1)
	want(t, "room", r.Blocked(1), "")
	r.Reject(0, 1, "") // a dying one counts
	want(t, "blocked", r.Blocked(1), "max_waiting")
	r.Buried(1, 0)
	want(t, "room", r.Blocked(1), "")
	want(t, "dead without a place", r.DeadCount(), 0)
}

func TestPaused(t *testing.T) {
	r := newRig(t, func(s *consumer.Settings) { s.Backoff.Base = 0 })
	r.take(1, 0)
	r.take(2, 0)
	r.SetPaused(true)
	want(t, "blocked", r.Blocked(1), "paused")
	want(t, "ack", r.Ack(0, 1), consumer.Done)
	r.Advance(moment(30))
	r.retry(31, 0)
	if due, ok := r.NextDue(); ok {
		t.Errorf("paused, and due at %d", due)
	}
	r.check()
	r.SetPaused(false)
	r.retry(31, 2)
}

func TestRetriesInTheOrderInWhichTheyAreReady(t *testing.T) {
	r := newRig(t, nil)
	for offset := uint64(1); offset <= 4; offset++ {
		r.take(offset, 0)
	}
	for offset, seconds := range map[uint64]time.Duration{1: 4, 2: 3, 3: 3, 4: 2} {
		seconds *= time.Second
		r.Nack(0, offset, &seconds, moment(0))
	}
	want(t, "ready", r.Ready(3*second), 3)
	for _, offset := range []uint64{4, 2, 3, 0} {
		r.retry(3, offset)
	}
	r.retry(4, 1)
}

func TestReleaseWithOthers(t *testing.T) {
	r := newRig(t, nil)
	r.take(1, 0)
	r.Take(consumer.Message{At: at(2)}, 2, 0)
	r.Release(1, 5*second, true)
	r.state(1, consumer.Waiting, 1)
	r.state(2, consumer.InFlight, 1)
	r.retry(5, 1)
}

func TestReleaseOfTheLast(t *testing.T) {
	r := newRig(t, nil)
	r.take(1, 0)
	r.Release(1, 5*second, false)
	r.state(1, consumer.InFlight, 1)
	want(t, "held by", r.HeldBy(1), 0)
	want(t, "ack when it is back", r.Ack(r.Generation(), 1), consumer.Done)
}

func TestTakeOver(t *testing.T) {
	r := newRig(t, nil)
	r.take(1, 0)
	old := r.Generation()
	r.TakeOver(r.g.NextGeneration(), 5*second)
	want(t, "late ack", r.Ack(old, 1), consumer.Fenced)
	r.state(1, consumer.Waiting, 1)
	r.retry(5, 1)
	want(t, "ack", r.Ack(r.Generation(), 1), consumer.Done)
}

func TestSeek(t *testing.T) {
	r := newRig(t, nil)
	r.take(3, 1)
	r.take(4, 1)
	r.Reject(0, 3, "")
	old := r.Generation()
	r.Seek(r.g.NextGeneration(), consumer.Places{Main: at(1), Redrive: at(2)})
	want(t, "pending", r.Pending(), 0)
	want(t, "cursor", r.Position(consumer.Main), at(1))
	want(t, "cursor", r.Position(consumer.Redrive), at(2))
	want(t, "late ack", r.Ack(old, 4), consumer.Fenced)
	want(t, "again", r.take(3, 1), true)
	r.Buried(3, 9) // its dead letter was on its way
	want(t, "dead", r.DeadCount(), 1)
}

func TestRewind(t *testing.T) {
	r := newRig(t, nil)
	r.take(1, 5)
	r.take(2, 0)
	r.take(6, 5)
	r.Take(consumer.Message{Source: consumer.Redrive, At: at(9)}, 1, 0)
	to := protocol.Position{Term: 8, Offset: 2}
	r.Rewind(consumer.Places{Main: to, Redrive: at(9)})
	r.gone(6)
	r.state(2, consumer.InFlight, 1)
	r.state(9, consumer.InFlight, 1)
	want(t, "term", r.Position(consumer.Main).Term, 8)
	want(t, "what took its place", r.take(6, 6), true)
	want(t, "term", r.Position(consumer.Main).Term, 7)
}

func TestSkip(t *testing.T) {
	r := newRig(t, nil)
	for offset := uint64(1); offset <= 100; offset++ {
		r.Skip(consumer.Main, at(offset))
		r.Skip(consumer.Main, at(offset-1)) // backwards is nothing
	}
	r.Skip(consumer.Redrive, at(7))
	r.Skip(consumer.Main, at(101))
	want(t, "cursor", r.Cursor(consumer.Main), 101)
	want(t, "cursor", r.Cursor(consumer.Redrive), 7)
	if n := r.Unwritten(); n > 12 {
		t.Errorf("%d bytes of moves", n)
	}
	want(t, "taking what is below", r.take(50, 0), false)
	want(t, "taking what is there", r.take(101, 0), false)
	want(t, "pending", r.Pending(), 0)
	r.check()
	r.take(102, 0)
	r.Skip(consumer.Main, at(103))
	r.check()
	r.Skip(consumer.Main, at(104)) // does not take the place of what was given away
	r.Skip(consumer.Main, at(50))
	want(t, "cursor", r.Cursor(consumer.Main), 104)
	want(t, "ack of what was skipped", r.Ack(0, 50), consumer.Already)
}

func TestKeyGoesToTheLowestOffsetOfBothSources(t *testing.T) {
	r := newRig(t, nil)
	redriven := func(offset uint64) bool {
		_, sent := r.Take(consumer.Message{Source: consumer.Redrive, At: at(offset), Key: 3}, 1, 0)
		return sent
	}
	want(t, "redriven", redriven(50), true)
	want(t, "redriven", redriven(51), false)
	want(t, "of main", r.take(10, 3), false)
	r.Nack(0, 50, nil, moment(0)) // a retry keeps its key
	r.state(10, consumer.Held, 0)
	r.Lost(50)
	r.state(10, consumer.Waiting, 0)
	r.state(51, consumer.Held, 0)
	r.Lost(10)
	r.state(51, consumer.Waiting, 0)
}

func TestUnordered(t *testing.T) {
	r := newRig(t, func(s *consumer.Settings) { s.Ordered = false })
	want(t, "first", r.take(1, 9), true)
	want(t, "second", r.take(2, 9), true)
	want(t, "held", r.Held(), 0)
}

func TestOrderIsSwitched(t *testing.T) {
	r := newRig(t, nil)
	for offset := uint64(1); offset <= 3; offset++ {
		r.take(offset, 9)
	}
	s := r.Settings()
	s.Ordered = false
	r.SetSettings(s)
	r.state(2, consumer.Waiting, 0)
	r.retry(1, 2)
	r.Nack(0, 2, nil, moment(1))
	r.check()
	s.Ordered = true
	r.SetSettings(s)
	r.state(1, consumer.InFlight, 1)
	r.state(2, consumer.Held, 1)
	r.state(3, consumer.Held, 0)
	r.Ack(0, 1)
	r.state(2, consumer.Waiting, 1)
	want(t, "ack of one that was delivered once", r.Ack(0, 2), consumer.Done)
	r.state(3, consumer.Waiting, 0)
}

func TestFewerAttemptsFromNowOn(t *testing.T) {
	r := newRig(t, nil)
	r.take(1, 0)
	r.take(2, 0)
	r.Nack(0, 1, nil, moment(1))
	s := r.Settings()
	s.MaxDeliver = 1
	r.SetSettings(s)
	r.state(1, consumer.Dying, 1)
	r.state(2, consumer.InFlight, 1)
	r.Advance(moment(30))
	r.state(2, consumer.Dying, 1)
}

func TestDead(t *testing.T) {
	r := newRig(t, nil)
	for offset := uint64(1); offset <= 5; offset++ {
		r.take(offset, 0)
		r.Bury(offset, "old")
		r.Buried(offset, 100-offset)
	}
	r.Buried(5, 95)
	want(t, "dead", fmt.Sprint(r.Dead()), "[95 96 97 98 99]")
	r.Undead(96, 98, 98, 3)
	r.check()
	want(t, "dead", fmt.Sprint(r.Dead()), "[95 97 99]")
	r.UndeadThrough(97)
	want(t, "dead", fmt.Sprint(r.Dead()), "[99]")
	r.UndeadThrough(1000)
	want(t, "dead", r.DeadCount(), 0)
}

func TestOldestAndBelow(t *testing.T) {
	r := newRig(t, nil)
	r.take(4, 0)
	r.take(8, 0)
	r.Take(consumer.Message{Source: consumer.Redrive, At: at(6)}, 1, 0)
	e, _ := r.Oldest()
	want(t, "oldest", e.Offset, 4)
	want(t, "below 6", len(r.Below(6)), 2)
	want(t, "below 3", len(r.Below(3)), 0)
	r.Ack(0, 4)
	e, _ = r.Oldest()
	want(t, "oldest", e.Offset, 6)
}

func TestOutcomesAndStatesHaveNames(t *testing.T) {
	for outcome, code := range map[consumer.Outcome]protocol.Code{
		consumer.Done: "", consumer.Already: "not_pending", consumer.Fenced: "fenced", consumer.Unknown: "never_delivered",
	} {
		want(t, "code", outcome.Code(), code)
	}
	for state, name := range map[consumer.State]string{
		consumer.InFlight: "in_flight", consumer.Waiting: "waiting", consumer.Held: "held", consumer.Dying: "dying", 9: "unknown",
	} {
		want(t, "name", state.String(), name)
	}
}

// With many entries the heap is deep, and what is settled lies in the middle.
func TestManyRetriesInOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(seed(t), 4))
	const n = 3000
	r := newRig(t, func(s *consumer.Settings) { s.MaxInFlight = n })
	due := map[uint64]int64{}
	for offset := uint64(1); offset <= n; offset++ {
		r.Take(consumer.Message{At: at(offset)}, 1, 0)
		delay := time.Duration(rng.IntN(1000)) * time.Second
		r.Nack(0, offset, &delay, moment(0))
		due[offset] = delay.Microseconds()
	}
	for range n / 2 {
		offset := uint64(1 + rng.IntN(n))
		r.Ack(0, offset)
		delete(due, offset)
	}
	want(t, "ready", r.Ready(1000*second), len(due))
	var last consumer.Entry
	for range len(due) {
		e, ok := r.Retry(1, 1000*second)
		is := consumer.Entry{Offset: e.Offset, Due: due[e.Offset]}
		if _, there := due[e.Offset]; !ok || !there || is.Due < last.Due || is.Due == last.Due && is.Offset < last.Offset {
			t.Fatalf("%v after %v, %v", is, last, ok)
		}
		last = is
	}
	r.retry(1000, 0)
}
