package broker_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/tidewire/tidewire/broker"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// BenchmarkConsume is the broker's part of a stored message that a member takes
// and acknowledges, without sockets and disks: bench/consume has these.
func BenchmarkConsume(b *testing.B) {
	const stored = 20_000
	all := benchBroker(b, stored)
	woken := make(chan struct{}, 1)
	session := all.NewSession(sessionOf(woken))
	defer session.Close()
	b.ReportAllocs()
	for sub := uint32(1); b.Loop(); sub++ {
		session.Subscribe(&tidewirev1.Subscribe{
			Sub: sub, Consumer: protocol.Position{Term: 1, Offset: uint64(sub)}.String(), Filter: "bench.one",
			Settings: &tidewirev1.ConsumerSettings{MaxInFlight: new(uint32(4096))},
		})
		for got := 0; got < stored; {
			<-woken
			for {
				frames, end := session.Take(nil)
				if end != nil {
					b.Fatal(end)
				}
				if len(frames) == 0 {
					break
				}
				for i := range frames {
					got += ackFrame(b, session, append(append([]byte(nil), frames[i].Head()...), frames[i].Tail...))
				}
			}
		}
		session.Unsubscribe(sub)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/stored, "ns/message")
}

func sessionOf(woken chan struct{}) broker.SessionOptions {
	return broker.SessionOptions{Identity: workerIdentity, Codec: protocol.Proto{}, Wake: func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	}}
}

// benchBroker has so many messages in memory.
func benchBroker(b *testing.B, stored int) *broker.Broker {
	all := broker.New(storage.NewMemoryLog("main", storage.MemoryOptions{}), broker.Options{Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- all.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	for range stored {
		m := protocol.Message{Topic: "bench.one", Payload: make([]byte, 128)}
		if _, err := all.Publish(b.Context(), workerIdentity, &m, 0); err != nil {
			b.Fatal(err)
		}
	}
	return all
}

// ackFrame acknowledges what a frame delivers, and returns how much that is.
func ackFrame(b *testing.B, session *broker.Session, frame []byte) int {
	f, err := protocol.Proto{}.DecodeServer(frame)
	if err != nil {
		b.Fatal(err)
	}
	d, ok := f.(*protocol.Deliver)
	if !ok {
		return 0
	}
	first, _ := protocol.RecordPlace(firstRecord(d.Records))
	session.Settle(&protocol.Settle{
		Sub: d.Sub, Generation: d.Generation, Term: d.Term,
		Ranges: []protocol.OffsetRange{{From: first, Through: first + uint64(d.Count) - 1}},
	})
	return d.Count
}

func firstRecord(records []byte) []byte {
	record, _, _ := protocol.NextFramed(records)
	return record
}
