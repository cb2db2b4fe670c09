package broker

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// TestTrieAgainstFilters compares the trie with Filter.Match over random filters
// that come and go.
func TestTrieAgainstFilters(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	var tr trie
	groups := map[string]*group{}
	for range 20_000 {
		text := randomTopic(rng, []string{"a", "b", "$x", "*", ">"})
		f, err := protocol.ParseFilter(text)
		if err != nil {
			continue
		}
		switch g := tr.get(text); {
		case g != groups[text]:
			t.Fatalf("get %s: %v, want %v", text, g, groups[text])
		case g == nil:
			groups[text] = &group{filter: f}
			tr.put(text, groups[text])
		case rng.IntN(2) == 0:
			tr.remove(text)
			delete(groups, text)
		}
		topic := randomTopic(rng, []string{"a", "b", "$x"})
		var want, got []string
		for _, g := range groups {
			if g.filter.Match(topic) {
				want = append(want, g.filter.String())
			}
		}
		for _, g := range tr.match(topic, nil) {
			got = append(got, g.filter.String())
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(want, got) {
			t.Fatalf("topic %s: got %v, want %v", topic, got, want)
		}
	}
	for text := range maps.Clone(groups) {
		tr.remove(text)
	}
	if !tr.root.empty() {
		t.Error("nodes are left after every filter was removed")
	}
}

func randomTopic(rng *rand.Rand, tokens []string) string {
	parts := make([]string, 1+rng.IntN(4))
	for i := range parts {
		parts[i] = tokens[rng.IntN(len(tokens))]
	}
	return strings.Join(parts, ".")
}

func BenchmarkTrieMatch(b *testing.B) {
	var tr trie
	for i := range 100_000 {
		text := fmt.Sprintf("room.%d.chat", i)
		f, _ := protocol.ParseFilter(text)
		tr.put(text, &group{filter: f})
	}
	var found []*group
	for b.Loop() {
		found = tr.match("room.4711.chat", found[:0])
	}
	if len(found) != 1 {
		b.Fatal(len(found))
	}
}
