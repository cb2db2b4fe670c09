package consumer_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tidewire/tidewire/broker/consumer"
	"github.com/tidewire/tidewire/protocol"
)

func in(partition uint32, offset uint64) protocol.Position {
	return protocol.Position{Term: 7, Partition: partition, Offset: offset}
}

// TestSeveralPartitions lets a machine of three partitions decide at random: whoever
// replays its deltas, or its page, has the same state after each decision.
func TestSeveralPartitions(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("SEED=%d", seed)
	for round := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, round))
		var g, replica consumer.Registry
		at := consumer.Places{Main: in(0, 3), Redrive: in(1, 2), More: []protocol.Position{in(1, 5), in(4, 0)}}
		s := consumer.DefaultSettings()
		s.MaxDeliver = 3
		m, err := g.Create("w", s, at, 1)
		if err != nil {
			t.Fatal(err)
		}
		apply := func(deltas []byte) {
			t.Helper()
			if err := replica.Apply(deltas); err != nil {
				t.Fatal(err)
			}
			if got, want := replica.Get("w").AppendState(nil), m.AppendState(nil); !bytes.Equal(got, want) {
				t.Fatalf("round %d: the copy differs:\n%x\n%x", round, got, want)
			}
		}
		apply(g.Deltas())
		partitions := []uint32{0, 1, 4}
		for now := int64(1); now < 400; now++ {
			for range 1 + rng.IntN(3) { // which are written together
				partition := partitions[rng.IntN(3)]
				decide(rng, &g, m, partition, now)
				check(t, m, partition)
			}
			apply(m.Deltas())
		}
		var paged consumer.Registry
		for _, record := range g.Pages(m, 300) {
			if err := paged.Apply(record); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(paged.Get("w").AppendState(nil), m.AppendState(nil)) {
			t.Fatal("the page differs")
		}
		clone, err := m.Clone()
		if err != nil || !bytes.Equal(clone.AppendState(nil), m.AppendState(nil)) {
			t.Fatalf("the clone differs: %v", err)
		}
	}
}

func decide(rng *rand.Rand, g *consumer.Registry, m *consumer.Machine, partition uint32, now int64) {
	next := func(src consumer.Source) protocol.Position {
		if src == consumer.Redrive {
			partition = 1
		}
		return in(partition, m.CursorIn(src, partition)+1+rng.Uint64N(5))
	}
	var places []uint64
	for e := range m.Entries() {
		places = append(places, e.Offset)
	}
	place := consumer.PlaceIn(partition, rng.Uint64N(40))
	if len(places) > 0 && rng.IntN(5) > 0 {
		place = places[rng.IntN(len(places))]
	}
	switch rng.IntN(14) {
	case 0, 1, 2, 3:
		key := uint64(0)
		if rng.IntN(2) == 0 {
			key = 100 + uint64(partition)
		}
		m.Take(consumer.Message{At: next(consumer.Main), Key: key, Size: 9}, 1+rng.Uint64N(2), now)
	case 4:
		m.Take(consumer.Message{Source: consumer.Redrive, At: next(consumer.Redrive), Size: 9}, 1, now)
	case 5, 6:
		m.Skip(consumer.Main, next(consumer.Main))
	case 7, 8:
		m.Ack(0, place)
	case 9:
		m.Nack(0, place, nil, consumer.Moment{Now: now})
	case 10:
		m.Retry(1, now+1e9)
	case 11:
		m.Reject(0, place, "no")
		m.Buried(place, uint64(now))
	case 12:
		m.Release(1, now, rng.IntN(2) == 0)
	default:
		switch rng.IntN(8) {
		case 0:
			m.Seek(g.NextGeneration(), consumer.Places{Main: in(0, 9), Redrive: m.Position(consumer.Redrive), More: []protocol.Position{in(1, 1), in(4, 4)}})
		case 1:
			to := m.Places()
			to.More[0].Offset -= min(to.More[0].Offset, 3)
			m.Rewind(to)
		}
	}
}

// check looks at what is of one partition alone.
func check(t *testing.T, m *consumer.Machine, partition uint32) {
	t.Helper()
	var all, below []uint64
	through := consumer.PlaceIn(partition, m.CursorIn(consumer.Main, partition)/2)
	for e := range m.Entries() {
		all = append(all, e.Offset)
		if p, _ := consumer.SplitPlace(e.Offset); p == partition && e.Offset <= through {
			below = append(below, e.Offset)
		}
		p, offset := consumer.SplitPlace(e.Offset)
		if offset > m.CursorIn(e.Source, p) {
			t.Fatalf("%d of partition %d is above the cursor", offset, p)
		}
	}
	if !slices.IsSorted(all) {
		t.Fatalf("entries are in the order %v", all)
	}
	var got, upTo, held []uint64
	for _, e := range m.Below(through) {
		got = append(got, e.Offset)
		if e.State == consumer.InFlight && e.Holder == 1 {
			held = append(held, e.Offset)
		}
	}
	if upTo = m.UpTo(0, through, 1); !slices.Equal(got, below) || !slices.Equal(upTo, held) {
		t.Fatalf("up to %d: below are %v, want %v; in flight to 1 are %v, want %v", through, got, below, upTo, held)
	}
	if m.Ack(0, consumer.PlaceIn(2, 1)) != consumer.Unknown {
		t.Fatal("a partition that is not read has messages")
	}
}
