package consumer_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/tidewire/tidewire/broker/consumer"
)

// heap is what is in use after a collection.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// An idle consumer, also one that was busy once, takes less than 2 KB.
func TestIdleMachineIsSmall(t *testing.T) {
	const machines = 2000
	before := heap()
	g := &consumer.Registry{}
	for i := range machines {
		m := create(t, g, fmt.Sprint("consumer-", i))
		for n := range uint64(100) {
			m.Take(consumer.Message{At: at(11 + n), Key: n % 30, Size: 10}, 1, 0)
		}
		m.Advance(moment(30))
		for n := range uint64(100) {
			m.Ack(0, 11+n)
			m.Lost(11 + n)
		}
		m.Deltas()
		want(t, "pending", m.Pending(), 0)
	}
	g.Deltas()
	each := (heap() - before) / machines
	t.Logf("%d bytes for each", each)
	if each > 2000 {
		t.Errorf("an idle machine takes %d bytes, want at most 2,000", each)
	}
	runtime.KeepAlive(g)
}

func TestPendingTakesItsMemoryAndGivesItBack(t *testing.T) {
	const entries = 100_000
	g := &consumer.Registry{}
	m := create(t, g, "c")
	before := heap()
	for n := range uint64(entries) {
		m.Take(consumer.Message{At: at(11 + n), Key: n + 1, Size: 10}, 1, 0)
	}
	m.Deltas()
	each := (heap() - before) / entries
	t.Logf("%d bytes for each entry with a key of its own", each)
	if each > 500 {
		t.Errorf("an entry takes %d bytes, want at most 500", each)
	}
	for n := range uint64(entries) {
		m.Nack(0, 11+n, nil, moment(1))
		m.Deltas()
	}
	for n := range uint64(entries) {
		m.Ack(0, 11+n)
	}
	m.Deltas()
	if left := heap() - before; left > 64<<10 {
		t.Errorf("%d bytes are left when everything is done", left)
	}
	runtime.KeepAlive(g)
}

// A delta of an ack takes a few bytes, one of a delivery a few dozen.
func TestDeltasAreShort(t *testing.T) {
	g := &consumer.Registry{}
	m := create(t, g, "c")
	take(m, 1000)
	if n := m.Unwritten() / 1000; n > 40 {
		t.Errorf("%d bytes for a delivery", n)
	}
	m.Deltas()
	for n := range uint64(1000) {
		m.Ack(0, 11+n)
	}
	if n := m.Unwritten() / 1000; n > 5 {
		t.Errorf("%d bytes for an ack", n)
	}
}

// busy is a machine with that many in flight, each of another key.
func busy(b *testing.B, pending int) (*consumer.Machine, uint64) {
	g := &consumer.Registry{}
	m := create(b, g, "c")
	next := m.Cursor(consumer.Main)
	for range pending {
		next++
		m.Take(consumer.Message{At: at(next), Key: next, Size: 100}, 1, int64(next))
	}
	m.Deltas()
	return m, next
}

// BenchmarkAck takes and acks, and times the acks alone.
func BenchmarkAck(b *testing.B) {
	for _, pending := range []int{1_000, 100_000} {
		b.Run(fmt.Sprint(pending), func(b *testing.B) {
			m, next := busy(b, pending)
			oldest := next - uint64(pending) + 1
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if i%pending == pending/2 { // fill up again
					b.StopTimer()
					for n := m.Pending(); n < pending; n++ {
						next++
						m.Take(consumer.Message{At: at(next), Key: next, Size: 100}, 1, int64(next))
					}
					m.Deltas()
					b.StartTimer()
				}
				m.Ack(0, oldest)
				oldest++
			}
		})
	}
}

// BenchmarkTakeAck is the whole way of a message that is handled at once, while
// others stay pending.
func BenchmarkTakeAck(b *testing.B) {
	for _, pending := range []int{1_000, 100_000} {
		b.Run(fmt.Sprint(pending), func(b *testing.B) {
			m, next := busy(b, pending)
			b.ReportAllocs()
			for b.Loop() {
				next++
				m.Take(consumer.Message{At: at(next), Key: next, Size: 100}, 1, int64(next))
				m.Ack(0, next)
				if m.Unwritten() > 64<<10 {
					m.Deltas()
				}
			}
		})
	}
}

// BenchmarkRetry ends an ack wait and delivers again.
func BenchmarkRetry(b *testing.B) {
	for _, pending := range []int{1_000, 100_000} {
		b.Run(fmt.Sprint(pending), func(b *testing.B) {
			m, _ := busy(b, pending)
			s := m.Settings()
			s.MaxDeliver, s.MaxInFlight, s.MaxInFlightBytes = 1<<30, 1<<30, 1<<40
			s.Backoff.Base = 0
			m.SetSettings(s)
			b.ReportAllocs()
			for b.Loop() {
				now, _ := m.NextDue()
				m.Advance(consumer.Moment{Now: now})
				if _, ok := m.Retry(1, now); !ok {
					b.Fatal("nothing to retry")
				}
				if m.Unwritten() > 64<<10 {
					m.Deltas()
				}
			}
		})
	}
}
