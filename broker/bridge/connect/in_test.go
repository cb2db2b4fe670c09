package connect

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/broker/cluster"
	"github.com/tidewire/tidewire/protocol"
)

// in starts a node that may run a connector.
func (w *world) in(name string, k *kept, change ...func(*InOptions)) *member {
	w.t.Helper()
	return w.member(name, "erp", func(_ *member, c Common) func(context.Context, uint64) {
		o := InOptions{Common: c, Topic: foreign, To: template(w.t, "orders.{key}", InFields()), Publish: k.publisher}
		for _, f := range change {
			f(&o)
		}
		return NewIn(o).Run
	})
}

// orders are records of several keys in one partition, each numbered by key.
func orders(partition, keys, each int) (all []kafka.Record) {
	for i := range each {
		for key := range keys {
			all = append(all, kafka.Record{Key: fmt.Appendf(nil, "%d-%d", partition, key), Value: fmt.Append(nil, i)})
		}
	}
	return all
}

func TestInCarriesEachRecordOnceInOrder(t *testing.T) {
	inWorld(t, func(w *world) {
		k := newKept(w.t, 0.01)
		for p := range partitions {
			w.produce(foreign, int32(p), kafka.Record{Key: []byte("same"), Value: fmt.Append(nil, p)})
			w.produce(foreign, int32(p), orders(p, 4, 100)...)
		}
		a := w.in("a", k)
		defer a.stop()
		until(w.t, "everything is there", func() bool { return k.count() >= (4*100+1)*partitions })
		if all := k.got["orders.same"]; len(all) != partitions {
			w.t.Errorf("a key in all partitions: %q", all)
		}
		for p := range partitions {
			for key := range 4 {
				sameTexts(w.t, "one key", k.got[fmt.Sprintf("orders.%d-%d", p, key)], numbers(100))
			}
		}
		w.produce(foreign, 1, kafka.Record{
			Key: []byte("last"), Value: []byte("{}"),
			Headers: []kafka.Header{{Key: "content-type", Value: []byte("application/json")}, {Key: "Shop", Value: []byte("7")}, {Key: "tidewire-id", Value: []byte("x")}, {Key: "bad name", Value: []byte("y")}},
		})
		until(w.t, "what comes later", func() bool { return k.count() > (4*100+1)*partitions })
		m := k.all[len(k.all)-1]
		if m.Topic != "orders.last" || m.ContentType != "application/json" || len(m.Headers) != 1 || m.Headers[0] != (protocol.Header{Name: "shop", Value: "7"}) {
			w.t.Errorf("%+v", m)
		}
		if err := m.Check(100); err != nil || m.ID == "x" {
			w.t.Errorf("the id %q: %v", m.ID, err)
		}
	})
}

// Nodes are frozen, ended and killed in the middle, and others go on: what was
// published is each record, once, in order.
func TestInTakeOver(t *testing.T) {
	inWorld(t, func(w *world) {
		k := newKept(w.t, 0.01)
		const each = 1000
		members := []*member{w.in("a", k), w.in("b", k), w.in("c", k)}
		for round := range 5 {
			for p := range partitions {
				w.produce(foreign, int32(p), orders(p, 2, 200)...)
			}
			until(w.t, "it goes on", func() bool { return k.count() > round*1200+300 })
			holder := members[0]
			for _, m := range members {
				if m.holds() {
					holder = m
				}
			}
			if round%2 == 0 {
				holder.way.Stall(true)
			} else {
				for i, m := range members {
					if m == holder {
						m.stop()
						members[i] = w.in(fmt.Sprintf("new-%d", round), k)
					}
				}
			}
			until(w.t, "another one goes on", func() bool { return k.count() >= (round+1)*1200 })
			holder.way.Stall(false)
		}
		offered := k.offered
		for _, m := range members {
			m.stop()
		}
		for p := range partitions {
			for key := range 2 {
				var want []string
				for range each / 200 {
					want = append(want, numbers(200)...)
				}
				sameTexts(w.t, "one key", k.got[fmt.Sprintf("orders.%d-%d", p, key)], want)
			}
		}
		if offered > 2*len(k.all) {
			w.t.Errorf("%d were offered for %d: a take-over begins too far back", offered, len(k.all))
		}
	})
}

// holds reports whether the node runs the connector.
func (m *member) holds() (mine bool) {
	m.View(func(s *cluster.State) {
		l, held := s.Lease(cluster.ConnectorLease("erp"))
		mine = held && l.Boot == m.Boot()
	})
	return mine
}

func TestInGoesOnWhereItWas(t *testing.T) {
	inWorld(t, func(w *world) {
		k := newKept(w.t, 0)
		w.produce(foreign, 0, orders(0, 1, 50)...)
		a := w.in("a", k)
		until(w.t, "the first", func() bool { return k.count() == 50 })
		pass(time.Second) // until the connector knows
		a.stop()
		w.produce(foreign, 0, orders(0, 1, 50)...)
		b := w.in("b", k)
		until(w.t, "the second", func() bool { return k.count() == 100 })
		b.stop()
		if k.offered != 100 {
			w.t.Errorf("%d were offered: progress was not kept", k.offered)
		}
	})
}

func TestInLatestBeginsOnceAtTheEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		k := newKept(w.t, 0)
		latest := func(o *InOptions) { o.Latest = true }
		w.produce(foreign, 0, orders(0, 1, 50)...)
		a := w.in("a", k, latest)
		until(w.t, "it runs", func() bool { _, same, _ := a.progress.Places("erp", w.id()); return same })
		a.stop()
		w.produce(foreign, 0, kafka.Record{Key: []byte("x"), Value: []byte("while nobody runs")})
		b := w.in("b", k, latest)
		until(w.t, "the message", func() bool { return k.count() > 0 })
		b.stop()
		sameTexts(w.t, "x", k.got["orders.x"], []string{"while nobody runs"})
		if k.count() != 1 {
			w.t.Errorf("%d messages", k.count())
		}
	})
}

func (w *world) id() []byte {
	topic, err := w.client.Topic(w.t.Context(), foreign)
	if err != nil {
		w.t.Fatal(err)
	}
	return topic.ID[:]
}

func TestInPassesOverBadRecords(t *testing.T) {
	inWorld(t, func(w *world) {
		k := newKept(w.t, 0)
		var in *In
		w.produce(
			foreign, 2,
			kafka.Record{Key: []byte("a"), Value: []byte(`{"region":"eu"}`)},
			kafka.Record{Key: []byte("null"), Headers: []kafka.Header{{Key: "h", Value: []byte("v")}}},
			kafka.Record{Value: []byte(`{"region":"eu"}`)},
			kafka.Record{Key: []byte("b"), Value: []byte(`no JSON`)},
			kafka.Record{Key: []byte("b"), Value: []byte(`{}`)},
			kafka.Record{Key: []byte("b b"), Value: []byte(`{"region":"eu"}`)},
			kafka.Record{Key: []byte("b"), Value: []byte(`{"region":"$dead"}`)},
			kafka.Record{Key: []byte("b"), Value: []byte(`{"region":"eu","x":"` + fmt.Sprintf("%070000d", 0) + `"}`)},
			kafka.Record{Key: []byte("z"), Value: []byte(`{"region":"eu"}`)},
		)
		m := w.member("a", "erp", func(_ *member, c Common) func(context.Context, uint64) {
			in = NewIn(InOptions{Common: c, Topic: foreign, To: template(w.t, "{json.region}.{key}", InFields()), Publish: k.publisher})
			return in.Run
		})
		defer m.stop()
		until(w.t, "the last one", func() bool { return k.count() == 2 })
		until(w.t, "the copies", func() bool { return len(w.read(badTopic, 0)) == 7 })
		var reasons []string
		for _, r := range w.read(badTopic, 0) {
			reasons = append(reasons, header(&r, "tidewire-bad-reason")+" "+header(&r, "tidewire-bad-offset"))
			if header(&r, "tidewire-bad-topic") != foreign || header(&r, "tidewire-bad-partition") != "2" || header(&r, "tidewire-bad-connector") != "erp" {
				w.t.Errorf("headers %v", r.Headers)
			}
		}
		sameTexts(w.t, "reasons", reasons, []string{
			"null_value 1", "missing_field 2", "not_json 3", "missing_field 4", "invalid_topic 5", "reserved_topic 6", "too_large 7",
		})
	})
}

// A broker that takes nothing for a while loses nothing, and nothing is skipped.
func TestInWaitsForTheBroker(t *testing.T) {
	inWorld(t, func(w *world) {
		k := newKept(w.t, 0)
		k.away = true
		w.produce(foreign, 0, orders(0, 1, 300)...)
		a := w.in("a", k)
		defer a.stop()
		pass(30 * time.Second)
		if k.offered == 0 || k.offered > 256*20 {
			w.t.Errorf("%d were offered in half a minute", k.offered)
		}
		k.mu.Lock()
		k.away = false
		k.mu.Unlock()
		until(w.t, "everything", func() bool { return k.count() == 300 })
		sameTexts(w.t, "the key", k.got["orders.0-0"], numbers(300))
	})
}

// A topic that is not there yet is waited for.
func TestInWaitsForItsTopic(t *testing.T) {
	inWorld(t, func(w *world) {
		k := newKept(w.t, 0)
		a := w.in("a", k, func(o *InOptions) { o.Topic = "later" })
		defer a.stop()
		pass(10 * time.Second)
		if _, err := w.client.CreateTopic(w.t.Context(), kafka.TopicSpec{Name: "later", Partitions: 1, Replication: 1}); err != nil {
			w.t.Fatal(err)
		}
		w.produce("later", 0, kafka.Record{Key: []byte("k"), Value: []byte("v")})
		until(w.t, "the message", func() bool { return k.count() == 1 })
	})
}
