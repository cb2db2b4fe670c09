package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/compress"
)

// randomRecords makes records with everything that may be absent.
func randomRecords(r *rand.Rand) []Record {
	some := func() []byte {
		if n := r.IntN(20); n > 0 {
			return bytes.Repeat([]byte{byte(r.Uint32())}, n-1)
		}
		return nil
	}
	list := make([]Record, 1+r.IntN(20))
	for i := range list {
		list[i] = Record{Offset: int64(i), Time: time.UnixMilli(r.Int64N(4_000_000_000_000)), Key: some(), Value: some()}
		for range r.IntN(4) {
			list[i].Headers = append(list[i].Headers, Header{Key: string(some()), Value: some()})
		}
	}
	return list
}

func written(list []Record) []byte {
	size := 0
	for i := range list {
		size += recordSize(&list[i])
	}
	w := newBatchWriter(size)
	for i := range list {
		w.add(&list[i])
	}
	return w.finish()
}

// at moves a batch to an offset, as the leader does, outside of the checksum.
func at(b []byte, base int64) []byte {
	b = slices.Clone(b)
	binary.BigEndian.PutUint64(b, uint64(base))
	return b
}

// resummed gives a batch the checksum that it should have.
func resummed(b []byte) []byte {
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-batchPrefix))
	binary.BigEndian.PutUint32(b[batchCRCAt:], crc32.Checksum(b[batchSummed:], castagnoli))
	return b
}

func sameRecord(a, b Record) bool {
	null := func(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }
	return a.Offset == b.Offset && a.Time.Equal(b.Time) && null(a.Key, b.Key) && null(a.Value, b.Value) &&
		slices.EqualFunc(a.Headers, b.Headers, func(a, b Header) bool { return a.Key == b.Key && null(a.Value, b.Value) })
}

func TestRandomBatchesAreReadAsWritten(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 500 {
		list := randomRecords(r)
		b := written(list)
		if size := len(b) - batchHeader; size > sum(list) {
			t.Fatalf("%d bytes, estimated at %d", size, sum(list))
		}
		from := r.Int64N(int64(len(list)))
		raws, err := splitBatches(at(b, 100), 100+from)
		if err != nil || len(raws) != 1 {
			t.Fatalf("%d batches, %v", len(raws), err)
		}
		got := raws[0].decode(100 + from)
		if got.Bad != nil || got.Base != 100 || got.Last != 100+int64(len(list))-1 || len(got.Records) != len(list)-int(from) {
			t.Fatalf("%+v", got)
		}
		for i, rec := range got.Records {
			want := list[int(from)+i]
			want.Offset += 100
			if !sameRecord(rec, want) {
				t.Fatalf("got %+v, want %+v", rec, want)
			}
		}
	}
}

func sum(list []Record) int {
	n := 0
	for i := range list {
		n += recordSize(&list[i])
	}
	return n
}

func TestEachChangedByteIsFound(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	good := written(randomRecords(r))
	set := append(at(good, 10), at(good, 200)...)
	for i := range good {
		for _, bit := range []byte{1, 0x80} {
			bad := slices.Clone(set)
			bad[i] ^= bit
			raws, err := splitBatches(bad, 0)
			// Offset and epoch are the leader's, and no checksum covers them; a
			// length that is too large looks like a batch that was cut off.
			outside := i < 16
			if !outside && i != batchMagicAt && (err == nil || len(raws) != 0) {
				t.Errorf("byte %d: %d batches, %v", i, len(raws), err)
			}
			for _, raw := range raws {
				raw.decode(0)
			}
		}
	}
}

func TestACutSetGivesWhatIsWhole(t *testing.T) {
	good := written(randomRecords(rand.New(rand.NewPCG(3, 4))))
	set := slices.Concat(at(good, 10), at(good, 50), at(good, 90))
	for n := range len(set) + 1 {
		raws, err := splitBatches(set[:n], 0)
		if err != nil || len(raws) != n/len(good) {
			t.Fatalf("%d of %d bytes: %d batches, %v", n, len(set), len(raws), err)
		}
	}
	if raws, err := splitBatches(set, 60); err != nil || raws[0].base != 50 && raws[0].base != 90 {
		t.Errorf("%v %v", raws, err)
	}
}

// What passes its checksum but cannot be read takes its offsets, and is Bad.
func TestABadBatchKeepsItsOffsets(t *testing.T) {
	whole := func() []byte {
		return at(written([]Record{{Value: []byte("a")}, {Value: []byte("b")}, {Value: []byte("c")}}), 40)
	}
	packed := func(kind compress.Compression, body []byte) []byte {
		b := whole()[:batchHeader]
		binary.BigEndian.PutUint16(b[21:], uint16(kind))
		return resummed(append(b, body...))
	}
	var bomb bytes.Buffer
	w := compress.Zstd.Codec().NewWriter(&bomb)
	zeros := make([]byte, 1<<20)
	for range maxUnpacked>>20 + 1 {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	count := func(n uint32) []byte {
		b := whole()
		binary.BigEndian.PutUint32(b[57:], n)
		return resummed(b)
	}
	old := whole()
	old[batchMagicAt] = 1
	short := whole()
	cases := map[string][]byte{
		"not zstd":              packed(compress.Zstd, []byte("nonsense")),
		"not snappy":            packed(compress.Snappy, []byte("nonsense")),
		"not lz4":               packed(compress.Lz4, []byte("nonsense")),
		"not gzip":              packed(compress.Gzip, []byte("nonsense")),
		"an unknown codec":      packed(7, []byte("nonsense")),
		"too large if unpacked": packed(compress.Zstd, bomb.Bytes()),
		"more than it has":      count(4),
		"far more than it has":  count(1 << 30),
		"less than none":        count(1 << 31),
		"cut off":               resummed(short[:len(short)-3]),
	}
	for name, data := range cases {
		raws, err := splitBatches(data, 0)
		if err != nil || len(raws) != 1 {
			t.Errorf("%s: %d batches, %v", name, len(raws), err)
			continue
		}
		b := raws[0].decode(0)
		if b.Bad == nil || len(b.Records) != 0 || b.Base != 40 || b.Last != 42 || !errors.Is(b.Bad, Corrupt) {
			t.Errorf("%s: %+v", name, b)
		}
	}
	if raws, err := splitBatches(old, 0); err != nil || len(raws) != 1 || raws[0].decode(0).Bad == nil {
		t.Errorf("an old format: %v %v", raws, err)
	}
}

func FuzzBatches(f *testing.F) {
	f.Add(written(randomRecords(rand.New(rand.NewPCG(5, 6)))), int64(3))
	f.Add([]byte{}, int64(0))
	f.Fuzz(func(t *testing.T, set []byte, from int64) {
		if len(set) > batchHeader {
			set = resummed(slices.Clone(set))
		}
		raws, _ := splitBatches(set, from)
		for _, raw := range raws {
			b := raw.decode(from)
			if b.Last < b.Base || b.Last < from {
				t.Fatalf("a batch from %d to %d, asked from %d", b.Base, b.Last, from)
			}
			next := b.Base
			for _, rec := range b.Records {
				if rec.Offset < next || rec.Offset > b.Last || rec.Offset < from {
					t.Fatalf("offset %d in a batch from %d to %d", rec.Offset, b.Base, b.Last)
				}
				next = rec.Offset + 1
			}
		}
	})
}

func TestWrongAnswersAreRefused(t *testing.T) {
	// Counts and lengths that the bytes cannot hold must not be believed.
	for _, b := range [][]byte{
		{0xff, 0xff, 0xff, 0xff, 0x0f},
		{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
		{0x80},
		{},
	} {
		for name, read := range map[string]func(*wireReader){
			"bytes":   func(r *wireReader) { r.bytes() },
			"count":   func(r *wireReader) { r.count() },
			"int32s":  func(r *wireReader) { r.int32s() },
			"end":     func(r *wireReader) { r.end() },
			"topic":   func(r *wireReader) { _, _ = readTopic(r) },
			"fetched": func(r *wireReader) { readFetched(r, nil) },
		} {
			r := &wireReader{b: b}
			read(r)
			if r.err == nil {
				t.Errorf("%s of %x: no error", name, b)
			}
		}
	}
}
