package tidewire

import (
	"strconv"
	"testing"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// in puts a delivery into a partition.
func in(partition uint32, d *protocol.Deliver) *protocol.Deliver {
	d.Partition = partition
	return d
}

// TestSeveralPartitions: each partition has a cursor of its own, and the position
// lists all of them as proto says, in the middle of a chunk too.
func TestSeveralPartitions(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		term := testTerm.String()
		begin := "p" + term + "-10-1_500-3_7"
		opened, gaps := make(chan *Subscription, 1), make(chan string, 9)
		go func() {
			s, err := c.Subscribe(t.Context(), "a.>", SubscribeOptions{From: begin, OnGap: func(g *GapError) { gaps <- g.Position }})
			if err != nil {
				t.Error(err)
			}
			opened <- s
		}()
		f := expect[*tidewirev1.Subscribe](p)
		if f.From != begin {
			t.Fatalf("it begins from %q", f.From)
		}
		confirm := func(p *peer, number uint32, zero uint64) {
			p.send(&tidewirev1.Subscribed{Sub: number, Position: begin, Resumed: true, Cursors: []*tidewirev1.Cursor{{Partition: 3, Offset: 7}, {Offset: zero}, {Partition: 1, Offset: 500}}})
		}
		confirm(p, f.Sub, 10)
		s := <-opened
		got := collect(t.Context(), s)
		// Far below the offsets of partition 1, and new all the same.
		p.send(in(3, deliver(f.Sub, 7, 9, 8)), deliver(f.Sub, 10, 12, 11, 12))
		got.want(t, "8", "11", "12")
		if want := "p" + term + "-12-1_500-3_9"; s.Position() != want {
			t.Errorf("the position is %s, want %s", s.Position(), want)
		}
		p.send(in(3, deliver(f.Sub, 7, 9, 8)), &tidewirev1.Progress{Subs: []uint32{f.Sub}, Partition: 1, Term: term, Through: 600},
			&tidewirev1.Gap{Sub: f.Sub, Partition: 3, Reason: "retention", Term: term, After: 9, Through: 20, Offset: 20, Position: "p" + term + "-3_20"},
			in(3, deliver(f.Sub, 20, 22, 22)))
		got.want(t, "8", "11", "12", "22")
		if gap := <-gaps; gap != "p"+term+"-12-1_600-3_20" {
			t.Errorf("the gap leads to %s", gap)
		}
		// A hole in one partition begins all of them from the cursor.
		p.send(in(1, deliver(f.Sub, 601, 602, 602)))
		expect[*tidewirev1.Unsubscribe](p)
		want := "p" + term + "-12-1_600-3_22"
		if f = expect[*tidewirev1.Subscribe](p); f.From != want {
			t.Errorf("after a hole it begins from %q, want %q", f.From, want)
		}
		p.cut()
		_, connect := b.welcome()
		if from := connect.Subscriptions[0].From; from != want || s.Position() != want {
			t.Errorf("after a lost connection it begins from %q, at %q, want %q", from, s.Position(), want)
		}
	})
}

// TestPositionInsideChunk: a loop that is left in the middle of a chunk knows where
// the other partitions are.
func TestPositionInsideChunk(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{})
		s, n := subscribe(t, c, p, SubscribeOptions{}) // partition 0 at 10
		p.send(in(2, deliver(n, 0, 5, 1, 2, 3)))
		for m, err := range s.Messages(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if want := at(10) + "-2_" + strconv.FormatUint(m.Position.Offset, 10); s.PositionAfter(m) != want {
				t.Errorf("after the message the position is %s, want %s", s.PositionAfter(m), want)
			}
			if m.Position.Offset == 3 {
				break
			}
		}
		if want := at(10) + "-2_2"; s.Position() != want {
			t.Errorf("the position is %s, want %s", s.Position(), want)
		}
	})
}
