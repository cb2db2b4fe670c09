package kafka

import (
	"slices"
	"time"
)

// A lane sends to one leader.
type lane struct {
	broker int32
	wake   chan struct{} // holds one token if ready may have grown

	ready []*queue // belongs to the mutex of the producer
}

// placeLocked gives a queue that has something to the lane of its leader, or
// looks for the leader first.
func (p *Producer) placeLocked(q *queue) {
	if k, ok := p.client.meta.peek(q.partition.Topic); ok {
		if info, err := k.leader(q.partition); err == nil {
			p.readyLocked(q, info, k.gen)
			return
		}
	}
	p.searchLocked([]*queue{q}, 0)
}

func (p *Producer) readyLocked(q *queue, leader PartitionInfo, gen uint64) {
	l := p.lanes[leader.Leader]
	if l == nil {
		l = &lane{broker: leader.Leader, wake: make(chan struct{}, 1)}
		p.lanes[leader.Leader] = l
		p.wg.Go(func() { p.drive(l) })
	}
	q.state, q.gen, q.epoch = queueReady, gen, leader.Epoch
	l.ready = append(l.ready, q)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// searchLocked looks for the leaders of queues after a pause. Those that a
// request lost together are looked for together, so that a leader that is away
// is tried by all of them at once and not by each.
func (p *Producer) searchLocked(group []*queue, pause time.Duration) {
	gens := make([]uint64, len(group))
	for i, q := range group {
		q.state = queueSearching
		gens[i] = q.gen
	}
	p.wg.Go(func() {
		for len(group) > 0 {
			if sleep(p.ctx, pause) != nil {
				return
			}
			answers := make([]known, len(group))
			for i, q := range group {
				answers[i] = p.client.meta.get(p.ctx, q.partition.Topic, gens[i])
			}
			group, gens, pause = p.found(group, answers)
		}
	})
}

// found gives queues to the lanes of their leaders. It returns those that have
// none, and how long to wait before asking again.
func (p *Producer) found(group []*queue, answers []known) (left []*queue, gens []uint64, pause time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, q := range group {
		k := answers[i]
		switch info, err := k.leader(q.partition); {
		case p.closed:
		case q.batch == nil && len(q.waiting) == 0:
			q.state = queueIdle
		case err == nil && (info.Epoch != q.epoch || !time.Now().Before(q.hold)):
			p.readyLocked(q, info, k.gen)
		default:
			if err != nil {
				q.failure = asError(err)
			}
			left, gens = append(left, q), append(gens, k.gen)
			pause = max(pause, q.pause.next())
		}
	}
	return left, gens, pause
}

// drive sends what is ready, one request at a time.
func (p *Producer) drive(l *lane) {
	for {
		select {
		case <-l.wake:
		case <-p.ctx.Done():
			return
		}
		for {
			batches, sent := p.gather(l)
			if len(batches) == 0 {
				break
			}
			for i, b := range batches {
				sent[i].data = b.encode()
			}
			p.client.produce(p.ctx, l.broker, p.opts.Timeout, sent)
			p.settle(batches, sent)
		}
	}
}

// gather takes a batch of each queue that is ready, up to the bytes of a
// request. The first to be asked is whoever waited longest.
func (p *Producer) gather(l *lane) ([]*batch, []*produceBatch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil
	}
	var batches []*batch
	var sent []*produceBatch
	size, used := 0, 0
	for _, q := range l.ready {
		if size >= p.opts.RequestBytes {
			break
		}
		used++
		b := q.take(p.opts.BatchBytes)
		if b == nil {
			q.state = queueIdle
			continue
		}
		q.state = queueUnderway
		size += b.size
		batches = append(batches, b)
		sent = append(sent, &produceBatch{partition: q.partition})
	}
	l.ready = slices.Delete(l.ready, 0, used)
	return batches, sent
}

// settle looks at what became of the batches of a request. Their owners are told
// before the queues go on, so that nothing that comes later is told earlier.
func (p *Producer) settle(batches []*batch, sent []*produceBatch) {
	var calls []func()
	p.mu.Lock()
	for i, s := range sent {
		if !p.closed {
			calls = p.judgeLocked(p.queues[s.partition], batches[i], s, calls)
		}
	}
	p.mu.Unlock()
	run(calls)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	var lost []*queue
	var pause time.Duration
	for _, s := range sent {
		q := p.queues[s.partition]
		if final(s) {
			p.continueLocked(q)
			continue
		}
		lost = append(lost, q)
		pause = max(pause, q.pause.next())
		q.hold = holdAfter(s.err)
	}
	if len(lost) > 0 {
		p.searchLocked(lost, pause)
	}
}

// judgeLocked answers the writes of a batch, or keeps them for another try.
func (p *Producer) judgeLocked(q *queue, b *batch, s *produceBatch, calls []func()) []func() {
	b.landed = b.landed || s.landed
	q.failure = s.err
	switch {
	case s.err == nil:
		calls = b.stored(calls, s.base)
		p.doneLocked(q)
		q.most, q.pause = grow(q.most), pauser{}
	case final(s):
		calls = p.refusedLocked(q, calls)
	case !b.landed:
		p.bytes -= q.takeApart()
	}
	return calls
}

// final reports whether the same need not be tried again.
func final(s *produceBatch) bool {
	if s.err == nil {
		return true
	}
	switch s.err.Kind {
	case TooLarge, Invalid, Denied, TooOld:
		return true
	default:
		return false
	}
}

// refusedLocked ends a batch that Kafka will never take. If it has several
// writes, one of them may be at fault: then they are tried again by halves.
func (p *Producer) refusedLocked(q *queue, calls []func()) []func() {
	b, e := q.batch, q.failure
	if !b.landed && len(b.items) > 1 && (e.Kind == TooLarge || e.Kind == Invalid) {
		q.most = len(b.items) / 2
		p.bytes -= q.takeApart()
		return calls
	}
	for _, it := range b.items {
		r := Produced{Err: e}
		if b.landed {
			r.Err = failf(Unknown, e, "it is not known whether %s has stored this", q.partition)
		}
		calls = it.answer(calls, r)
	}
	p.doneLocked(q)
	return calls
}

// grow undoes the halving step by step.
func grow(most int) int {
	if most > 1<<16 {
		return 0
	}
	return 2 * most
}

// doneLocked is done with the batch of a queue.
func (p *Producer) doneLocked(q *queue) {
	p.bytes -= q.batch.size
	q.batch = nil
}

// continueLocked sends what has gathered meanwhile.
func (p *Producer) continueLocked(q *queue) {
	q.state = queueIdle
	if len(q.waiting) > 0 {
		p.placeLocked(q)
	}
}
