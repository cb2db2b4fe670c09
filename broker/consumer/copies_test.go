package consumer

import (
	"bytes"
	"testing"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

func planned(name string, exclusive bool) []byte {
	s := DefaultSettings()
	s.Filter, s.Stream, s.Exclusive = "job.*", "main", exclusive
	return Plan(name, s, Places{Main: protocol.Position{Term: 7}, Redrive: protocol.Position{Term: 7}}, 5)
}

func TestCopiesDrawNumbersFromTheLog(t *testing.T) {
	var c Copies
	a, first := c.Create(10, planned("a", false))
	if again, is := c.Create(11, planned("a", false)); is || again != nil {
		t.Fatal("it is created twice")
	}
	b, second := c.Create(11, planned("b", true))
	if !first || !second || a.Incarnation() != 10 || b.Incarnation() != 11 || b.Generation() != 11 {
		t.Fatalf("incarnations %d and %d", a.Incarnation(), b.Incarnation())
	}
	c.Claimed(11, b, 11) // in the same envelope
	if b.Generation() != 12 {
		t.Fatalf("generation %d", b.Generation())
	}
	if _, is := c.Create(13, []byte("what is it?")); is {
		t.Fatal("nonsense is created")
	}
	if c.Delete(10) != a || c.Delete(10) != nil || c.Of(10) != nil || c.Get("a") != nil || c.Len() != 1 {
		t.Fatal("it is not gone")
	}
	if again, is := c.Create(12, planned("a", false)); !is || again.Incarnation() != 13 {
		t.Fatalf("incarnation %d", again.Incarnation())
	}
}

func TestCopiesRefuseWhatDoesNotFollow(t *testing.T) {
	var c Copies
	is, _ := c.Create(1, planned("a", false))
	c.Claimed(2, is, 2)
	owner, err := is.Clone()
	if err != nil {
		t.Fatal(err)
	}
	var steps [][]byte
	for offset := range uint64(4) {
		at := protocol.Position{Term: 7, Offset: offset + 1}
		owner.Take(Message{At: at, Size: 10}, 1, 100)
		steps = append(steps, owner.Deltas())
	}
	if c.Decided(is, 2, 2, steps[1]) || !c.Decided(is, 2, 1, steps[0]) || c.Decided(is, 2, 1, steps[0]) || !c.Decided(is, 2, 2, steps[1]) {
		t.Fatal("the order does not count")
	}
	if is.Pending() != 2 || is.Cursor(Main) != 2 {
		t.Fatalf("%d pending, cursor %d", is.Pending(), is.Cursor(Main))
	}
	if c.Decided(is, 2, 3, []byte("nonsense")) || c.Decided(is, 2, 4, steps[2]) {
		t.Fatal("what follows nonsense counts")
	}
	c.Claimed(9, is, 9)
	if !c.Decided(is, 9, 1, steps[2]) || is.Pending() != 3 || is.Generation() != 9 {
		t.Fatalf("%d pending in generation %d", is.Pending(), is.Generation())
	}
}

func TestCopiesKnowWhoIsAMember(t *testing.T) {
	var c Copies
	is, _ := c.Create(1, planned("a", true))
	if _, joined := c.Join(2, is, Member{Boot: 1, Number: 1}, false); !joined || is.Generation() != 2 {
		t.Fatal("nobody joins")
	}
	if _, joined := c.Join(3, is, Member{Boot: 2, Number: 1}, true); joined || is.Generation() != 2 {
		t.Fatal("who comes back overtakes")
	}
	lost, joined := c.Join(3, is, Member{Boot: 2, Number: 1}, false)
	if !joined || len(lost) != 1 || lost[0].Boot != 1 || is.Generation() != 3 {
		t.Fatalf("lost %v, generation %d", lost, is.Generation())
	}
	if is.Leave(1, 1) || len(is.Gone(1)) > 0 || len(is.Gone(2)) != 1 || len(is.Members()) > 0 {
		t.Fatal("who is gone stays")
	}
	if _, joined := c.Join(4, is, Member{Boot: 1, Number: 1}, true); !joined {
		t.Fatal("nobody comes back")
	}
}

func TestCopiesAreSavedWhole(t *testing.T) {
	var c Copies
	for i, name := range []string{"b", "a", "c"} {
		is, _ := c.Create(uint64(i+1), planned(name, false))
		c.Join(5, is, Member{Boot: 1 << 63, Number: 3, Window: 7, Session: "s", Client: "c", Subject: "x"}, false)
		c.Claimed(6, is, 6)
		owner, err := is.Clone()
		if err != nil {
			t.Fatal(err)
		}
		at := protocol.Position{Term: 7, Offset: 1}
		owner.Take(Message{At: at, Size: 10, Key: 5}, 1, 100)
		owner.Nack(0, 1, new(time.Second), Moment{Now: 200})
		if !c.Decided(is, 6, 1, owner.Deltas()) || !bytes.Equal(is.AppendState(nil), owner.AppendState(nil)) {
			t.Fatal("the copy is another one")
		}
	}
	state := c.AppendState(nil)
	var loaded Copies
	if err := loaded.LoadState(state); err != nil || !bytes.Equal(loaded.AppendState(nil), state) {
		t.Fatalf("%v: %x is loaded as %x", err, state, loaded.AppendState(nil))
	}
	if is := loaded.Get("c"); is.Step() != 1 || is.Members()[0].Subject != "x" || loaded.Draw(1) != c.Draw(1) {
		t.Fatalf("%+v", is)
	}
	for n := range len(state) {
		if n > 0 && loaded.LoadState(state[:n]) == nil {
			t.Fatalf("the first %d of %d bytes are loaded", n, len(state))
		}
	}
	if err := loaded.LoadState(nil); err != nil || loaded.Len() != 0 {
		t.Fatal(err)
	}
}
