package kafka

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"time"
)

// metadata is what is known of the topics in use. It never expires: who is told
// that a leader has changed asks for something newer. All who ask at the same
// time share one request, and requests keep a pause, so that many partitions
// that lose their leader at once do not ask for each.
//
// The naive way, to ask at fixed intervals, costs requests for ever and is
// late when it matters.
type metadata struct {
	client *Client

	mu      sync.Mutex
	gen     uint64 // of the newest answer
	topics  map[string]known
	wanted  map[string]struct{} // asked for by the next request
	running chan struct{}       // closed when the request under way has ended; nil if none is
	last    time.Time           // when it began
	brokers []int32             // of the newest answer
	good    int32               // who gave it
}

// known is an answer about one topic.
type known struct {
	gen    uint64
	topic  Topic
	err    error // what Kafka said instead
	failed error // of the last request; topic and err are of an older one
}

// refreshPause is the least time between two requests, plus up to half of it.
const refreshPause = 100 * time.Millisecond

func newMetadata(c *Client) *metadata {
	return &metadata{client: c, topics: map[string]known{}, wanted: map[string]struct{}{}, good: anyBroker}
}

// get returns what is known of a topic, newer than the answer of number after;
// 0 takes any. The error is that of the newest request.
func (m *metadata) get(ctx context.Context, name string, after uint64) known {
	for {
		m.mu.Lock()
		if k, ok := m.topics[name]; ok && k.gen > after {
			m.mu.Unlock()
			return k
		}
		m.wanted[name] = struct{}{}
		if m.running == nil {
			m.running = make(chan struct{})
			go m.refresh(m.running)
		}
		wait := m.running
		m.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return known{gen: after, failed: failf(Unreachable, ctx.Err(), "Kafka did not say in time who leads topic %s", name)}
		}
	}
}

// peek returns what is known of a topic without asking anybody. That the last
// request failed does not count: who led the topic before may still lead it.
func (m *metadata) peek(name string) (known, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, ok := m.topics[name]
	k.failed = nil
	return k, ok && (k.err != nil || k.topic.Name != "")
}

// refresh asks for all topics that are wanted, after the pause.
func (m *metadata) refresh(done chan struct{}) {
	c := m.client
	m.mu.Lock()
	pause := time.Until(m.last.Add(refreshPause + rand.N(refreshPause/2)))
	m.mu.Unlock()
	_ = sleep(c.ctx, pause) // if the client is closed, the request says so
	m.mu.Lock()
	m.last = time.Now()
	names := make([]string, 0, len(m.wanted))
	for name := range m.wanted {
		names = append(names, name)
	}
	clear(m.wanted)
	m.mu.Unlock()

	ctx, cancel := context.WithTimeout(c.ctx, setupTimeout+c.opts.Timeout)
	list, _, err := c.askMetadata(ctx, names)
	cancel()

	m.mu.Lock()
	defer m.mu.Unlock()
	m.gen++
	for _, name := range names {
		k := m.topics[name]
		k.failed = err
		if err == nil {
			k.topic, k.err = list[name].topic, list[name].err
		}
		k.gen = m.gen
		m.topics[name] = k
	}
	m.running = nil
	close(done)
}

// sleep waits, or returns early with an error.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A pauser makes random pauses: below 0.3 s for the first ten seconds or so,
// since a leader that dies has a successor within seconds, and up to 2 s after
// that.
type pauser struct{ n int }

func (p *pauser) next() time.Duration {
	d := 25 * time.Millisecond << min(p.n, 3)
	if p.n > 30 {
		d = 1350 * time.Millisecond
	}
	p.n++
	return d/2 + rand.N(d)
}

// holdAfter says until when to leave a leader alone that failed, unless there is
// a new one: if it stands still, trying it would take as long as electing one.
func holdAfter(err error) time.Time {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return time.Now().Add(2 * time.Second)
	}
	return time.Time{}
}

// hedge is how long a broker may take to answer about topics before another one
// is asked as well.
const hedge = 400 * time.Millisecond

// askMetadata asks the network about topics; it returns for each what is known,
// and which broker is the controller. The broker that answered last is asked
// first; if it stands still, so do its connections, and waiting for that would
// take longer than Kafka needs to replace a leader.
func (c *Client) askMetadata(ctx context.Context, names []string) (map[string]known, int32, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		broker int32
		r      *wireReader
		err    error
	}
	candidates := c.meta.candidates()
	results := make(chan result, len(candidates))
	var first error
	for asked, ended := 0, 0; ended < len(candidates); {
		if asked == ended || asked < len(candidates) {
			broker := candidates[asked]
			asked++
			go func() {
				r, _, err := c.do(ctx, call{api: apiMetadata, broker: broker, body: func(w *wireWriter) { writeMetadata(w, names) }})
				results <- result{broker, r, err}
			}()
		}
		var more <-chan time.Time
		if asked < len(candidates) {
			t := time.NewTimer(hedge)
			defer t.Stop()
			more = t.C
		}
		select {
		case <-more:
		case got := <-results:
			ended++
			if got.err == nil {
				c.meta.answered(got.broker)
				return c.readMetadata(got.r, names)
			}
			first = cmp.Or(first, got.err)
		}
	}
	return nil, 0, first
}

// candidates are the brokers to ask, at most three: who answered last, whoever
// the library is connected with, and others in random order.
func (m *metadata) candidates() []int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := []int32{anyBroker}
	if m.good != anyBroker {
		list = []int32{m.good, anyBroker}
	}
	for _, i := range rand.Perm(len(m.brokers)) {
		if len(list) < 3 && m.brokers[i] != m.good {
			list = append(list, m.brokers[i])
		}
	}
	return list
}

func (m *metadata) answered(broker int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.good = broker
}

func writeMetadata(w *wireWriter, names []string) {
	w.count(len(names))
	for _, name := range names {
		w.id(TopicID{})
		w.string(name)
		w.end()
	}
	w.no() // create no topics
	w.no() // no permissions
	w.end()
}

func (c *Client) readMetadata(r *wireReader, names []string) (map[string]known, int32, error) {
	r.int32() // throttle
	var brokers []int32
	for range r.count() {
		brokers = append(brokers, r.int32())
		r.bytes()
		r.int32()
		r.bytes()
		r.end()
	}
	r.bytes() // id of the cluster
	controller := r.int32()
	list := map[string]known{}
	for range r.count() {
		t, err := readTopic(r)
		list[t.Name] = known{topic: t, err: err}
	}
	if r.err != nil {
		return nil, 0, failf(Corrupt, r.err, "the answer of Kafka about its topics cannot be read")
	}
	c.meta.mu.Lock()
	c.meta.brokers = brokers
	c.meta.mu.Unlock()
	for _, name := range names {
		if _, ok := list[name]; !ok {
			list[name] = known{err: failf(NoTopic, nil, "Kafka has no topic %s", name)}
		}
	}
	return list, controller, nil
}

func readTopic(r *wireReader) (Topic, error) {
	code := r.int16()
	t := Topic{Name: r.string(), ID: r.id()}
	r.skip(1) // internal
	t.Partitions = make([]PartitionInfo, r.count())
	for range t.Partitions {
		r.int16() // the leader says it all
		p := PartitionInfo{Number: r.int32(), Leader: r.int32(), Epoch: r.int32(), Replicas: r.int32s(), InSync: r.int32s()}
		r.int32s() // offline
		r.end()
		if p.Number >= 0 && int(p.Number) < len(t.Partitions) {
			t.Partitions[p.Number] = p
		}
	}
	r.int32() // permissions
	r.end()
	if err := answerError(code, "", "topic "+t.Name); err != nil {
		return t, err
	}
	return t, nil
}

// leader returns who leads a partition according to k.
func (k known) leader(p Partition) (PartitionInfo, error) {
	if err := cmp.Or(k.failed, k.err); err != nil {
		return PartitionInfo{}, err
	}
	if p.Number < 0 || int(p.Number) >= len(k.topic.Partitions) {
		return PartitionInfo{}, failf(NoTopic, nil, "topic %s has %d partitions, not one of number %d", p.Topic, len(k.topic.Partitions), p.Number)
	}
	info := k.topic.Partitions[p.Number]
	if info.Leader < 0 {
		return info, failf(NoLeader, nil, "nobody leads %s at the moment", p)
	}
	return info, nil
}

// String names the partition in sentences.
func (p Partition) String() string {
	return "partition " + strconv.Itoa(int(p.Number)) + " of topic " + p.Topic
}
