package broker_test

import (
	"context"
	"log/slog"
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
}

func (l *brokenLog) Append(ctx context.Context, entries ...*storage.Entry) error {
	if l.broken.Load() {
		return protocol.Errorf(protocol.CodeUnknown, "the disk is broken")
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
			logger := slog.New(slog.DiscardHandler)
			store, err := storage.Open(dir, storage.Options{ReserveBytes: -1, Logger: logger})
			if err != nil {
				t.Fatal(err)
			}
			logs := map[string]*storage.Log{}
			for _, name := range []string{"main", "dead", "control"} {
				if logs[name], err = store.OpenLog(name, storage.LogOptions{Logger: logger}); err != nil {
					t.Fatal(err)
				}
			}
			control := &brokenLog{Log: logs["control"]}
			s := &shop{t: t, broker: broker.New(logs["main"], broker.Options{Logger: logger}, broker.Stream{Name: broker.DeadStream, Log: logs["dead"]})}
			if err := s.broker.OpenConsumers(control); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- s.broker.Run(ctx) }()

			h := s.hire()
			h.consume("w", "job", 0, &tidewirev1.ConsumerSettings{AckWaitMs: new(uint64(100)), BackoffBaseMs: new(uint64(1)), MaxDeliver: new(uint32(1))})
			s.publishMany("job", 1)
			m := h.take(1)[0]
			if when == "after the rejection" {
				_, dead := logs["dead"].Bounds()
				h.settle(protocol.SettleReject, true, func(f *protocol.Settle) { f.Reason = "bad" }, m)
				control.broken.Store(true)
				s.until(func() bool { _, now := logs["dead"].Bounds(); return now > dead })
			} else {
				h.settle(protocol.SettleExtend, true, nil, m) // now it is known that it was delivered
				control.broken.Store(true)
				h.settle(protocol.SettleReject, false, func(f *protocol.Settle) { f.Reason = "bad" }, m)
				s.until(func() bool { _, now := logs["dead"].Bounds(); return now > 0 })
			}
			h.leave()
			cancel()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			for _, l := range logs {
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}

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
