package broker

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// TestHolding compares what streams a filter reads with what it would match,
// topic by topic: none may be missed, and all that are named for nothing come
// from filters that only several earlier ones cover together.
func TestHolding(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	token := func(wild ...string) string { return append(wild, "a", "b")[rng.IntN(2+len(wild))] }
	random := func() protocol.Filter {
		tokens := make([]string, 1+rng.IntN(3))
		for i := range tokens {
			tokens[i] = token("*")
		}
		if rng.IntN(3) == 0 {
			tokens[len(tokens)-1] = ">"
		}
		return mustFilter(strings.Join(tokens, "."))
	}
	var topics []string
	for _, one := range []string{"a", "b"} {
		topics = append(topics, one)
		for _, two := range []string{"a", "b"} {
			topics = append(topics, one+"."+two)
			for _, three := range []string{"a", "b"} {
				// A token that no filter names stands for all others.
				topics = append(topics, one+"."+two+"."+three, one+"."+two+"."+three+".z", one+"."+two+".z", one+".z."+three, "z."+two+"."+three)
			}
			topics = append(topics, one+".z", "z."+two)
		}
	}
	topics = append(topics, "z", "z.z", "z.z.z", "z.z.z.z")
	exact := 0
	for range 20_000 {
		b := &Broker{}
		for i := range 1 + rng.IntN(3) {
			st := &stream{name: string(rune('1' + i))}
			for range 1 + rng.IntN(2) {
				st.filters = append(st.filters, random())
			}
			b.streams = append(b.streams, st)
		}
		b.streams = append(b.streams, &stream{name: "main", filters: []protocol.Filter{everything}})
		f := random()
		var want []*stream
		for _, topic := range topics {
			if st := b.owner(topic); f.Match(topic) && !slices.Contains(want, st) {
				want = append(want, st)
			}
		}
		found := b.holding(f)
		for _, st := range want {
			if !slices.Contains(found, st) {
				t.Fatalf("the filter %s misses the stream %s of %v", f, st.name, b.describe())
			}
		}
		if len(found) == len(want) {
			exact++
		}
	}
	if exact < 19_000 {
		t.Errorf("only %d of 20000 are exact", exact)
	}
}

func (b *Broker) describe() (list []string) {
	for _, st := range b.streams {
		for _, f := range st.filters {
			list = append(list, st.name+":"+f.String())
		}
	}
	return list
}
