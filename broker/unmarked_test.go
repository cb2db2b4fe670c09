package broker_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/tidewire/tidewire/broker"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// brokenLog stores nothing more once it is told so, as a disk whose sync fails.
type brokenLog struct {
	*storage.Log
	broken atomic.Bool
	full   atomic.Bool // there is no room
}

func (l *brokenLog) Append(ctx context.Context, entries ...*storage.Entry) error {
	if l.broken.Load() {
		return protocol.Errorf(protocol.CodeUnknown, "the disk is broken")
	}
	if l.full.Load() {
		for _, e := range entries {
			e.Done(storage.Result{Err: protocol.Errorf(protocol.CodeStorageFull, "the disk is full")})
		}
		return nil
	}
	return l.Log.Append(ctx, entries...)
}

// TestDeadLetterWithoutMark: the dead letter is stored, and then the control log
// fails, so that nobody knows. After a restart there is one dead letter, and the
// message is not delivered again.
func TestDeadLetterWithoutMark(t *testing.T) {
	for _, when := range []string{"after the rejection", "before the rejection"} {
		t.Run(when, func(t *testing.T) {
			dir := t.TempDir()
			control := &brokenLog{}
			s := openShopOn(t, dir, func(l *storage.Log) broker.Log { control.Log = l; return control })
			dead := func() uint64 { return uint64(len(s.letters())) }
			h := s.hire()
			h.consume("w", "job", 0, &tidewirev1.ConsumerSettings{AckWaitMs: new(uint64(100)), BackoffBaseMs: new(uint64(1)), MaxDeliver: new(uint32(1))})
			s.publishMany("job", 1)
			m := h.take(1)[0]
			if when == "after the rejection" {
				h.settle(protocol.SettleReject, true, func(f *protocol.Settle) { f.Reason = "bad" }, m)
				control.broken.Store(true)
			} else {
				h.settle(protocol.SettleExtend, true, nil, m) // now it is known that it was delivered
				control.broken.Store(true)
				h.settle(protocol.SettleReject, false, func(f *protocol.Settle) { f.Reason = "bad" }, m)
			}
			s.until(func() bool { return dead() > 0 })
			h.leave()
			s.end()

			s = openShop(t, dir)
			h = s.hire()
			s.publishMany("job", 1)
			h.consume("w", "job", 0, nil)
			h.ack(h.take(1)...)
			s.until(func() bool { return s.info().Dead == 1 && s.info().InFlight == 0 })
			if got := len(h.got); got != 0 {
				t.Fatalf("%d messages are delivered again", got)
			}
			if n := len(s.letters()); n != 1 {
				t.Fatalf("%d dead letters are stored", n)
			}
		})
	}
}

// letters reads what the stream of dead letters holds.
func (s *shop) letters() []protocol.Message {
	s.t.Helper()
	filter, err := protocol.ParseFilter("$dead.w")
	if err != nil {
		s.t.Fatal(err)
	}
	page, err := s.broker.History(s.t.Context(), workerIdentity, broker.HistoryQuery{Filter: filter, From: protocol.Start{Kind: protocol.StartEarliest}, Limit: 100})
	if err != nil {
		s.t.Fatal(err)
	}
	return page.Messages
}

// TestControlLogIsFull: who wants to know is told, and what was decided meanwhile
// is stored, in its order, as soon as there is room.
func TestControlLogIsFull(t *testing.T) {
	dir := t.TempDir()
	control := &brokenLog{}
	s := openShopOn(t, dir, func(l *storage.Log) broker.Log { control.Log = l; return control })
	h := s.hire()
	h.consume("w", "job", 0, nil)
	s.publishMany("job", 3)
	got := h.take(3)
	control.full.Store(true)
	if a := h.settle(protocol.SettleAck, true, nil, got[0]); a.Error == nil || a.Error.Code != "storage_full" {
		t.Fatalf("answer %v", a)
	}
	h.settle(protocol.SettleAck, false, nil, got[1])
	control.full.Store(false)
	h.ack(got[2])
	h.leave()
	s.end()

	s = openShop(t, dir)
	if i := s.info(); i.InFlight != 0 || i.Oldest != nil || i.Lag != 0 {
		t.Fatalf("info %+v", i)
	}
}
