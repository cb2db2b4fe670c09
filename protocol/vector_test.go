package protocol

import (
	"math"
	"slices"
	"strings"
	"testing"
)

func TestVectorRoundTrip(t *testing.T) {
	r := newRandom(t)
	longest := Vector{Term: math.MaxUint64}
	for n := range uint32(MaxPartitions) {
		longest.Places = append(longest.Places, Place{math.MaxUint32 - MaxPartitions + n, MaxOffset})
	}
	if _, err := ParseVector(longest.String()); err == nil {
		t.Error("numbers of partitions that no stream has make a position of any length")
	}
	for i := range longest.Places {
		longest.Places[i].Partition = uint32(i)
	}
	vectors := []Vector{longest, {Term: 1, Places: []Place{{0, 0}}}, {Term: 35, Places: []Place{{7, 1}}}}
	for range 500 {
		v := Vector{Term: Term(r.Uint64() | 1)}
		for partition := range uint32(20) {
			if r.IntN(3) == 0 {
				v.Places = append(v.Places, Place{partition, r.Uint64N(MaxOffset + 1)})
			}
		}
		if !v.IsZero() {
			vectors = append(vectors, v)
		}
	}
	for _, v := range vectors {
		s := v.String()
		got, err := ParseVector(s)
		if err != nil || got.Term != v.Term || !slices.Equal(got.Places, v.Places) {
			t.Fatalf("ParseVector(%q) = %v, %v, want %v", s, got, err, v)
		}
		if len(s) > maxVectorBytes || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			t.Fatalf("%q has another form than is promised", s)
		}
		if start, err := ParseStart(s); err != nil || start.Kind != StartPosition || start.String() != s || start.Vector().String() != s {
			t.Fatalf("ParseStart(%q) = %v, %v", s, start, err)
		}
		for i, place := range v.Places {
			others := slices.Delete(slices.Clone(v.Places), i, i+1)
			at, _ := v.At(place.Partition)
			if got := at.With(others); got.String() != s {
				t.Fatalf("%v with %v is %v, want %v", at, others, got, v)
			}
			if _, ok := (Vector{v.Term, others}).At(place.Partition); ok {
				t.Fatalf("%v has partition %d", others, place.Partition)
			}
		}
	}
}

func TestParseVectorRefuses(t *testing.T) {
	for _, s := range []string{
		"", "p", "p1z", "p1z-", "1z-4-1_2", "p1z-4-0_2", "p1z-4-2", "p1z-1_4-1_5", "p1z-2_4-1_5", "p1z-4-", "p1z--1_4", "p1z-4-01_5", "p1z-4-1_05",
		"p1z-4-1_9007199254740992", "p1z-4-4294967296_1", "p01z-4-1_5", "p0-4-1_5", "p1Z-4-1_5", "p1z-4-1_5 ", "p1z-4-1_5-1e3",
		"p1z" + strings.Repeat("-1", 100_000),
	} {
		_, err := ParseVector(s)
		wantError(t, err, CodeInvalidPosition, "", s)
	}
	var many strings.Builder
	many.WriteString("p1z-0")
	for n := 1; n <= MaxPartitions; n++ {
		many.WriteString(Position{Partition: uint32(n)}.String()[2:])
	}
	_, err := ParseVector(many.String())
	wantError(t, err, CodeInvalidPosition, "at most 1024", "1025 partitions")
	_, err = ParseVector("1234")
	wantError(t, err, CodeOffsetNotPosition, "is an offset", "1234")
}

// The text of a frame for people has the place of the whole subscription; the
// binary form leaves that to its clients.
func TestTextHasThePlaceOfAllPartitions(t *testing.T) {
	c := &Chunk{Partition: 1, Term: goldenTerm, After: 3, Through: 9, Others: []Place{{0, 7}, {2, 5}}}
	if text := string(appendDeliver(JSON{}, nil, 1, c)); !strings.Contains(text, `"position":"p1z141z3-7-1_9-2_5"`) {
		t.Error(text)
	}
	p := &Progress{Subs: []uint32{1}, At: c.End(), Others: c.Others}
	if text := string(JSON{}.AppendServer(nil, p)); !strings.Contains(text, `"position":"p1z141z3-7-1_9-2_5"`) {
		t.Error(text)
	}
	alone := *c
	alone.Others = nil
	if !slices.Equal(appendDeliver(Proto{}, nil, 1, c), appendDeliver(Proto{}, nil, 1, &alone)) {
		t.Error("the binary form has the other partitions")
	}
}
