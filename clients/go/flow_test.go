package tidewire

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// frameSize is what a Deliver costs of the credit.
func frameSize(d *protocol.Deliver) int {
	tail := protocol.Proto{}.AppendDeliverTail(nil, &d.Chunk)
	return len(protocol.Proto{}.AppendDeliverHead(nil, d.Sub, len(tail))) + len(tail)
}

// TestCreditFollowsTheLoop: the broker gets credit for what the loop has handled,
// and for nothing else; after a reconnect it gets none for what is still held.
func TestCreditFollowsTheLoop(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		var asked *tidewirev1.Subscribe
		begun := make(chan *Subscription, 1)
		go func() {
			s, err := c.Subscribe(t.Context(), "a.>", SubscribeOptions{QueueBytes: 80_000})
			if err != nil {
				t.Error(err)
			}
			begun <- s
		}()
		asked = expect[*tidewirev1.Subscribe](p)
		if asked.Credit == nil || *asked.Credit != 10_000 {
			t.Fatalf("asked with %v", asked)
		}
		p.send(subscribed(asked.Sub, 0, true))
		s := <-begun
		handled, held := 0, 0 // bytes
		for sent := range uint64(5) {
			d := deliverSized(asked.Sub, [2]uint64{sent, sent + 1}, 2000, sent+1)
			if sent < 3 {
				handled += frameSize(d)
			} else {
				held += frameSize(d)
			}
			p.send(d)
		}
		p.quiet(time.Second) // nobody reads: not a byte more
		read := 0
		for _, err := range s.Messages(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if read++; read == 4 {
				break // three were handled, the fourth is with the loop
			}
		}
		if f := expect[*tidewirev1.Flow](p); f.Sub != asked.Sub || int(f.Credit) != handled {
			t.Fatalf("%v, want %d bytes", f, handled)
		}
		p.quiet(time.Second)
		p.cut()
		q, connect := b.welcome()
		f := connect.Subscriptions[0]
		if want := 10_000 - held; f.From != at(5) || f.Credit == nil || int(*f.Credit) != want {
			t.Fatalf("asked with %v, want %d bytes of credit", f, want)
		}
		q.send(subscribed(f.Sub, 5, true))
		got := collect(t.Context(), s)
		got.want(t, "5")
		q.quiet(time.Second) // less than half of the window
	})
}

// TestManualCredit: the program gives the credit, and what is left of it is given
// again after a reconnect.
func TestManualCredit(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		s, n := subscribe(t, c, p, SubscribeOptions{ManualCredit: true, Credit: 500, Slow: SlowConflate, ConflateEvery: 200 * time.Millisecond, NoEcho: true})
		d := deliver(n, 10, 11, 11)
		p.send(d)
		collect(t.Context(), s).want(t, "11")
		p.quiet(time.Second)
		s.Grant(1000)
		if f := expect[*tidewirev1.Flow](p); f.Sub != n || f.Credit != 1000 {
			t.Fatal(f)
		}
		p.cut()
		q, connect := b.welcome()
		f := connect.Subscriptions[0]
		if f.Credit == nil || int(*f.Credit) != 1500-frameSize(d) || f.Slow != "conflate" || f.ConflateMs != 200 || f.Echo == nil || *f.Echo {
			t.Fatal(f)
		}
		q.send(subscribed(f.Sub, 11, true))
		synctest.Wait()
		if _, err := c.Subscribe(t.Context(), "a", SubscribeOptions{ManualCredit: true, Slow: SlowDisconnect}); err == nil {
			t.Error("manual credit and disconnect were taken")
		}
		if _, err := c.Subscribe(t.Context(), "a", SubscribeOptions{ConflateEvery: time.Microsecond}); err == nil {
			t.Error("a microsecond was taken")
		}
	})
}

// ephemeral makes a frame of ephemeral messages.
func ephemeral(sub uint32, padding int, ids ...string) *protocol.Deliver {
	d := &protocol.Deliver{Sub: sub}
	for _, id := range ids {
		m := protocol.Message{Topic: "a.b", ID: id, Ephemeral: true, Payload: make([]byte, padding)}
		d.Records = protocol.AppendFramed(d.Records, protocol.AppendRecord(nil, &m))
		d.Count++
	}
	return d
}

// TestEphemeralMessages: they come out of the loop in their place, move no
// position, and what there is no room for is told.
func TestEphemeralMessages(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		s, n := subscribe(t, c, p, SubscribeOptions{QueueBytes: 100_000})
		p.send(ephemeral(n, 0, "x", "y"), deliver(n, 10, 11, 11), ephemeral(n, 0, "z"))
		var got []string
		for m, err := range s.Messages(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, m.ID)
			break
		}
		for m, err := range s.Messages(t.Context()) { // taken up behind x
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, m.ID); m.ID == "z" {
				break
			}
		}
		if len(got) != 4 || got[0] != "x" || got[1] != "y" || got[2] != "m11" || got[3] != "z" || s.Position() != at(11) {
			t.Fatal(got, s.Position())
		}
		p.send(&tidewirev1.Gap{Sub: n, Reason: "ephemeral", After: 11, Through: 11, Position: at(11), Offset: 11, Missed: 7})
		for range 3 {
			p.send(ephemeral(n, 60_000, "large"))
		}
		synctest.Wait()
		missed, came := uint64(0), 0
		for m, err := range s.Messages(t.Context()) {
			if gap, ok := errors.AsType[*GapError](err); ok {
				missed += gap.Missed
			} else if m.ID == "large" {
				came++
			}
			if missed == 8 {
				break
			}
		}
		if came != 2 || s.Position() != at(11) {
			t.Fatalf("%d came, %d were missed, at %s", came, missed, s.Position())
		}
	})
}
