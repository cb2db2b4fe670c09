package boltfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

const (
	small = 3000 // elements of the bucket that has pages of its own
	most  = 32   // bytes of a key
)

// sample makes a file with a bucket of many elements, of which some are long and
// some are buckets, and one that lies within the page of the root.
func sample(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: PageBytes, NoFreelistSync: true})
	if err != nil {
		t.Fatal(err)
	}
	fill := func(tx *bbolt.Tx) error {
		many, err := tx.CreateBucket([]byte("many"))
		if err != nil {
			return err
		}
		for n := range small {
			size := 20
			if n%100 == 0 {
				size = 3 * PageBytes
			}
			if err := many.Put(fmt.Appendf(nil, "key %05d", n), bytes.Repeat([]byte{byte(n)}, size)); err != nil {
				return err
			}
		}
		inside, err := many.CreateBucket([]byte("inside"))
		if err != nil {
			return err
		}
		few, err := tx.CreateBucket([]byte("few"))
		if err != nil {
			return err
		}
		return errors.Join(inside.Put([]byte("a"), []byte("b")), few.Put([]byte("c"), []byte("d")))
	}
	if err := errors.Join(db.Update(fill), db.Close()); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func newest(t *testing.T, file []byte) Meta {
	t.Helper()
	m, found := ReadMeta(bytes.NewReader(file), 0)
	if other, ok := ReadMeta(bytes.NewReader(file), 1); ok && (!found || other.TxID > m.TxID) {
		m = other
	}
	if binary.LittleEndian.Uint64(file[m.SumAt():]) != m.Sum {
		t.Error("the checksum is not where SumAt says")
	}
	return m
}

// walk returns the keys of all elements, those of buckets included.
func walk(file []byte, m Meta) map[string]bool {
	found := make(map[string]bool)
	w := Walk{From: bytes.NewReader(file), MaxKey: most}
	w.Extend(m.End)
	var each func(Element)
	each = func(e Element) {
		found[string(e.Key)] = true
		if e.Bucket {
			w.Inside(e, each)
		}
	}
	w.Tree(m.Root, each)
	return found
}

func check(file []byte) error { return Check(bytes.NewReader(file), int64(len(file))) }

func TestSound(t *testing.T) {
	file := sample(t)
	m := newest(t, file)
	if err := errors.Join(check(file), CheckBranches(bytes.NewReader(file))); err != nil {
		t.Error(err)
	}
	if n := len(walk(file, m)); n != small+5 {
		t.Errorf("%d elements of %d", n, small+5)
	}
	if err := Check(bytes.NewReader(file), int64(m.End-1)*PageBytes); !errors.Is(err, ErrDamaged) {
		t.Errorf("a file that is too short: %v", err)
	}
}

// TestCircle makes each branch page lead to itself.
func TestCircle(t *testing.T) {
	file := sample(t)
	m := newest(t, file)
	circles := 0
	for id := range m.End {
		page := file[id*PageBytes:]
		if le := binary.LittleEndian; le.Uint64(page) == id && le.Uint16(page[8:]) == pageBranch {
			le.PutUint64(page[pageHeadBytes+8:], id)
			circles++
		}
	}
	if circles == 0 {
		t.Fatal("there is no branch page")
	}
	for _, err := range []error{check(file), CheckBranches(bytes.NewReader(file))} {
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("it is in order: %v", err)
		}
	}
	if n := len(walk(file, m)); n < 5 || n >= small+5 {
		t.Errorf("%d elements of %d", n, small+5)
	}
}

// TestNonsense puts nonsense into the heads of pages: nobody panics or goes on for
// ever, and what cannot be is told as damage.
func TestNonsense(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	whole := sample(t)
	m := newest(t, whole)
	noticed := 0
	for range 200 {
		file := bytes.Clone(whole)
		at := 2*PageBytes + r.IntN(int(m.End-2))*PageBytes + r.IntN(64)
		for i := range 1 + r.IntN(16) {
			file[at+i] = byte(r.Uint32())
		}
		err := check(file)
		if err != nil {
			noticed++
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("at %d: %v", at, err)
			}
		}
		_ = CheckBranches(bytes.NewReader(file)) // the leaves may be what is wrong
		walk(file, m)
	}
	if noticed == 0 {
		t.Error("nothing was noticed")
	}
}
