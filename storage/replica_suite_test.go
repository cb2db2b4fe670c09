package storage_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
	"github.com/tidewire/tidewire/storage/logtest"
)

// ordered makes a log of a replica: it stands for the place that decides the
// order. Offsets are given as a broker of Kafka would give them, with holes.
type ordered struct {
	*storage.Replica
	disk
	term protocol.Term

	mu     sync.Mutex
	items  []storage.Item
	next   uint64
	closed bool
	more   chan struct{}
}

func (o *ordered) open(t *testing.T) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	var err error
	if o.store, err = storage.Open(o.dir, storage.Options{ReserveBytes: -1, Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	o.Replica, err = o.store.OpenReplica("main", storage.ReplicaOptions{
		LogOptions: storage.LogOptions{Logger: quiet}, Term: o.term, Partition: 3,
	})
	if err != nil {
		t.Fatal(err)
	}
	o.more, o.closed = make(chan struct{}, 1), false
}

func (o *ordered) close(t *testing.T) {
	t.Helper()
	if err := errors.Join(o.Replica.Close(), o.store.Close()); err != nil {
		t.Error(err)
	}
}

func (o *ordered) Append(_ context.Context, entries ...*storage.Entry) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return errors.New("closed")
	}
	for _, e := range entries {
		o.next++
		o.items = append(o.items, storage.Item{Offset: o.next, Time: uint64(time.Now().UnixMicro()), Entry: e})
		if o.next%7 == 0 {
			o.next += 2 // a transaction's end
		}
	}
	select {
	case o.more <- struct{}{}:
	default:
	}
	return nil
}

func (o *ordered) take(last bool) []storage.Item {
	o.mu.Lock()
	defer o.mu.Unlock()
	items := o.items
	o.items, o.closed = nil, last
	return items
}

func (o *ordered) Run(ctx context.Context, apply func(*storage.Commit)) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	ran := make(chan error, 1)
	go func() { ran <- o.Replica.Run(running) }()
	var err error
	for last := false; !last && err == nil; {
		select {
		case <-o.more:
		case <-ctx.Done():
			last = true
		}
		if items := o.take(last); len(items) > 0 {
			var c *storage.Commit
			if c, err = o.Apply(running, items, nil); err == nil {
				apply(c)
			}
		}
	}
	stop()
	return errors.Join(err, <-ran)
}

// Resolve asks as the bridge does, which knows where the stream ends.
func (o *ordered) Resolve(s protocol.Start, f protocol.Filter, head uint64) (storage.Resolved, error) {
	at, err := o.Replica.Resolve(s, f, head)
	if at.Ahead {
		at.Gap = &storage.Gap{Reason: storage.GapRolledBack}
	}
	return at, err
}

func TestReplicaSuite(t *testing.T) {
	logtest.Test(t, logtest.Maker{
		Open: func(t *testing.T) logtest.Log {
			o := &ordered{term: protocol.NewTerm(), disk: disk{dir: t.TempDir()}}
			o.open(t)
			t.Cleanup(func() { o.close(t) })
			return o
		},
		Reopen: func(t *testing.T, l logtest.Log) logtest.Log {
			o := l.(*ordered)
			o.close(t)
			o.open(t)
			return o
		},
	})
}
