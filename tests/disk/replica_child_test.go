package disk_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// copyJob is what a process that keeps a copy is to do: look at what is there, and
// apply what follows, for ever. What every offset has follows from the seed, as if
// another place had it.
//
// It prints, a line each:
//
//	open HEAD     what is there is as it must be, up to HEAD
//	synced OFFSET the copy has this on disk
//	damage TEXT   something is not as it must be
type copyJob struct {
	Dir       string
	Seed      uint64
	Life      uint64 // decides how the items are cut
	Payload   int
	Retention int64
	Window    int64
	Dedupe    int
	Check     bool
}

const copyTerm = 4711

// original returns the message that an offset has: its own, or that of an offset
// before, once more; 0 if it has none.
func (j *copyJob) original(offset uint64) uint64 {
	rng := rand.New(rand.NewPCG(j.Seed, offset))
	switch rng.IntN(10) {
	case 0:
		return 0
	case 1, 2:
		return offset - min(offset-1, rng.Uint64N(uint64(2*j.Dedupe)))
	}
	return offset
}

func (j *copyJob) message(of uint64) protocol.Message {
	return protocol.Message{Topic: topicOf(0, int(of)), ID: fmt.Sprint(of), Payload: payloadOf(1, int(of), j.Payload)}
}

func (j *copyJob) item(offset uint64) storage.Item {
	it := storage.Item{Offset: offset, Time: 1.7e15 + offset}
	if of := j.original(offset); of > 0 {
		m := j.message(of)
		it.Entry = &storage.Entry{Topic: m.Topic, Record: protocol.AppendRecord(nil, &m), Key: storage.KeyOf(m.Topic, m.ID), Payload: storage.PayloadHash(m.Payload)}
	}
	return it
}

// truth returns which offsets up to head store a message, and the state.
func (j *copyJob) truth(head uint64) (stores map[uint64]uint64, state []byte) {
	stores = make(map[uint64]uint64)
	var rows []storage.DedupeKey
	newest := make(map[storage.DedupeKey]int)
	for offset := uint64(1); offset <= head; offset++ {
		of := j.original(offset)
		if of == 0 {
			continue
		}
		m := j.message(of)
		key := storage.KeyOf(m.Topic, m.ID)
		if row, known := newest[key]; !known || len(rows)-row > j.Dedupe {
			stores[offset] = of
		}
		newest[key] = len(rows)
		rows = append(rows, key)
	}
	state = binary.BigEndian.AppendUint64(nil, head)
	for _, key := range rows[max(0, len(rows)-j.Dedupe):] {
		state = append(state, key[:]...)
	}
	return stores, state
}

func copyChild() int {
	var j copyJob
	in := bufio.NewScanner(os.Stdin)
	if !in.Scan() {
		return fail(io.ErrUnexpectedEOF)
	}
	if err := json.Unmarshal(in.Bytes(), &j); err != nil {
		return fail(err)
	}
	if err := j.run(); err != nil {
		fmt.Println("damage", strings.ReplaceAll(err.Error(), "\n", " / "))
		return fail(err)
	}
	return 0
}

func (j *copyJob) run() error {
	if _, err := os.Stat(filepath.Join(j.Dir, "FORMAT")); j.Check && err == nil {
		report, err := storage.Check(context.Background(), j.Dir, nil)
		if err := errors.Join(append(report.Problems, err)...); err != nil {
			return err
		}
	}
	quiet := slog.New(slog.DiscardHandler)
	store, err := storage.Open(j.Dir, storage.Options{ReserveBytes: -1, Logger: quiet})
	if err != nil {
		return err
	}
	r, err := store.OpenReplica("main", storage.ReplicaOptions{
		Term: copyTerm, Partition: 1, RunAhead: 200_000,
		LogOptions: storage.LogOptions{DedupeWindow: j.Dedupe, SegmentBytes: 1, RetentionAge: -1, RetentionBytes: j.Retention, WindowBytes: j.Window, Logger: quiet},
	})
	if err != nil {
		return err
	}
	if err := j.verify(r); err != nil {
		return err
	}
	_, head := r.Bounds()
	fmt.Println("open", head)
	failed := make(chan error, 1)
	go func() { failed <- r.Run(context.Background()) }()
	rng := rand.New(rand.NewPCG(j.Seed, j.Life))
	for {
		var items []storage.Item
		for range 1 + rng.IntN(60) {
			head++
			if it := j.item(head); it.Entry != nil || rng.IntN(2) == 0 { // else a hole
				items = append(items, it)
			}
		}
		if len(items) == 0 {
			head--
			continue
		}
		head = items[len(items)-1].Offset
		if _, err := r.Apply(context.Background(), items, fmt.Append(nil, head)); err != nil {
			return errors.Join(err, <-failed)
		}
		fmt.Println("synced", r.Synced())
	}
}

// verify compares what is there with what must be.
func (j *copyJob) verify(r *storage.Replica) error {
	earliest, head := r.Bounds()
	stores, state := j.truth(head)
	if note := string(r.Note()); head > 0 && note != fmt.Sprint(head) {
		return fmt.Errorf("it ends at %d, but its note is %q", head, note)
	}
	if !bytes.Equal(r.AppendState(nil), state) {
		return fmt.Errorf("its state at %d is not what follows from the items", head)
	}
	filter, err := protocol.ParseFilter(">")
	if err != nil {
		return err
	}
	for after := earliest - 1; after < head; {
		c, err := r.Read(storage.Query{Filter: filter, After: after})
		if err != nil {
			return err
		}
		read := 0
		for m, err := range c.Messages() {
			of, ok := stores[m.Position.Offset]
			if err != nil || !ok {
				return fmt.Errorf("offset %d has a message: %w", m.Position.Offset, err)
			}
			if want := j.message(of); m.Topic != want.Topic || m.ID != want.ID || !bytes.Equal(m.Payload, want.Payload) || m.Position != r.PositionOf(m.Position.Offset) {
				return fmt.Errorf("the message at %v is another one", m.Position)
			}
			read++
		}
		for offset := c.After + 1; offset <= c.Through; offset++ {
			if _, ok := stores[offset]; ok {
				read--
			}
		}
		if read != 0 {
			return fmt.Errorf("%d messages too many or too few in (%d, %d]", read, c.After, c.Through)
		}
		after = c.Through
	}
	return nil
}
