package kafka

import (
	"context"
	"slices"
	"time"
)

// A poll reads from one leader. Its fields belong to the mutex of the fetcher,
// but for the first three.
type poll struct {
	fetcher *Fetcher
	broker  int32
	wake    chan struct{} // holds one token if there may be something to ask for

	readers []*reader
	stop    context.CancelFunc // ends the request under way, if one is; nil before the first
	idle    pauser             // while fetches return at once and bring nothing
}

// shortWait is how long a poll waits that leaves out partitions whose sinks are
// busy, so that they are not left out for long when they are ready again; and
// one with new partitions, whose sinks want to know where the log ends.
const shortWait = 25 * time.Millisecond

func (l *poll) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// interrupt ends the long poll, which does not know what has changed.
func (l *poll) interrupt() {
	l.nudge()
	if l.stop != nil {
		l.stop()
	}
}

func (l *poll) drop(r *reader) {
	l.readers = slices.DeleteFunc(l.readers, func(x *reader) bool { return x == r })
	r.poll = nil
}

// searchLocked finds the leaders of readers after a pause, and gives them to
// their polls, all at once.
func (f *Fetcher) searchLocked(group []*reader, pause time.Duration) {
	for _, r := range group {
		if r.poll != nil {
			r.poll.drop(r)
		}
		r.state = readerSearching
	}
	f.wg.Go(func() {
		for len(group) > 0 {
			if sleep(f.ctx, pause) != nil {
				return
			}
			answers := make([]known, len(group))
			for i, r := range group {
				answers[i] = f.client.meta.get(f.ctx, r.source.Partition.Topic, r.gen())
			}
			group, pause = f.place(group, answers)
		}
	})
}

func (r *reader) gen() uint64 {
	r.fetcher.mu.Lock()
	defer r.fetcher.mu.Unlock()
	return r.leader.gen
}

// place gives readers to the polls of their leaders. It returns those that have
// none, and how long to wait before asking again.
func (f *Fetcher) place(group []*reader, answers []known) (left []*reader, pause time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, r := range group {
		if r.state != readerSearching || f.ctx.Err() != nil {
			continue
		}
		k := answers[i]
		r.leader.gen = k.gen
		info, err := k.leader(r.source.Partition)
		if err == nil && r.leader.id == (TopicID{}) {
			r.leader.id = k.topic.ID
		}
		switch {
		case err == nil && r.leader.id != k.topic.ID:
			r.fail(failf(TopicChanged, nil, "topic %s was deleted and created again; its id was %s and is %s now", k.topic.Name, r.leader.id, k.topic.ID))
			r.state = readerResting
		case err == nil && info.Epoch == r.leader.epoch && time.Now().Before(r.leader.hold):
			left = append(left, r)
			pause = max(pause, r.pause.next())
		case err == nil:
			r.leader.epoch = info.Epoch
			f.giveLocked(r, info.Leader)
		default:
			left = append(left, r)
			pause = max(pause, r.lose(err))
		}
	}
	return left, pause
}

func (f *Fetcher) giveLocked(r *reader, broker int32) {
	l := f.polls[broker]
	if l == nil {
		l = &poll{fetcher: f, broker: broker, wake: make(chan struct{}, 1)}
		f.polls[broker] = l
		f.wg.Go(l.run)
	}
	r.state, r.poll = readerPlaced, l
	l.readers = append(l.readers, r)
	l.interrupt()
}

// run asks the leader again and again.
func (l *poll) run() {
	f := l.fetcher
	var buf []byte
	for f.ctx.Err() == nil {
		ctx, cancel := context.WithCancel(f.ctx)
		asked, wait := l.gather(cancel)
		if len(asked) == 0 {
			cancel()
			select {
			case <-l.wake:
			case <-f.ctx.Done():
			}
			continue
		}
		began := time.Now()
		parts := make([]*fetchPart, len(asked))
		for i := range asked {
			parts[i] = asked[i].part
		}
		var err *Error
		buf, err = f.client.fetch(ctx, fetchCall{broker: l.broker, wait: wait, maxBytes: f.opts.RequestBytes, buf: buf}, parts)
		interrupted := ctx.Err() != nil
		cancel()
		if err != nil && interrupted {
			continue
		}
		if l.take(asked, err) || time.Since(began) >= wait/2 {
			l.idle = pauser{}
		} else if sleep(f.ctx, l.idle.next()) != nil {
			return
		}
		if cap(buf) > 2*f.opts.RequestBytes {
			buf = nil // after a batch that is larger than all others
		}
	}
}

// asking is a partition in a request.
type asking struct {
	reader *reader
	round  uint64
	part   *fetchPart
}

// gather lists the partitions to ask for. Their order goes round, since Kafka
// fills an answer from the front. From now on stop ends the request.
func (l *poll) gather(stop context.CancelFunc) ([]asking, time.Duration) {
	f := l.fetcher
	f.mu.Lock()
	defer f.mu.Unlock()
	l.stop = stop
	if n := len(l.readers); n > 1 {
		l.readers = append(l.readers[1:n:n], l.readers[0])
	}
	wait := f.opts.Wait
	asked := make([]asking, 0, len(l.readers))
	for _, r := range l.readers {
		if r.told.watermark < 0 {
			wait = min(wait, shortWait)
		}
		if r.queued > 0 && (r.queued >= f.opts.PartitionBytes || f.used >= f.opts.MaxBytes) {
			continue
		}
		asked = append(asked, asking{reader: r, round: r.round, part: &fetchPart{
			partition: r.source.Partition, id: r.leader.id, epoch: r.leader.epoch,
			offset: r.offset, maxBytes: f.opts.ChunkBytes,
		}})
	}
	if len(asked) < len(l.readers) {
		wait = min(wait, shortWait)
	}
	return asked, wait
}

// take gives what was fetched to the readers, and reports whether anything
// moved.
func (l *poll) take(asked []asking, err *Error) bool {
	f := l.fetcher
	chunks := make([]chunk, len(asked))
	faults := make([]*Error, len(asked))
	for i, a := range asked {
		if faults[i] = err; err == nil {
			chunks[i], faults[i] = cut(a.part)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	moved := false
	var lost []*reader
	var pause time.Duration
	for i, a := range asked {
		r := a.reader
		if r.round != a.round || r.poll != l {
			continue
		}
		if a.part.answered && (faults[i] == nil || len(chunks[i].batches) > 0) {
			moved = r.advance(chunks[i]) || moved
		}
		if faults[i] == nil {
			continue
		}
		moved = true
		if faults[i].Kind == OutOfRange {
			r.fail(faults[i])
			l.drop(r)
			r.state = readerResting
			continue
		}
		pause = max(pause, r.lose(faults[i]))
		r.leader.hold = holdAfter(faults[i])
		lost = append(lost, r)
	}
	if len(lost) > 0 && !f.closed {
		f.searchLocked(lost, pause)
	}
	return moved
}

// cut makes a chunk of an answer about one partition.
func cut(p *fetchPart) (chunk, *Error) {
	if err := answerError(p.code, "", p.partition.String()); err != nil {
		if err.Kind == OutOfRange {
			err.Sentence = "offset " + decimal(p.offset) + " is not in the log of " + p.partition.String() + "; it is before its start or behind its end"
		}
		return chunk{}, err
	}
	c := chunk{from: p.offset, fetched: Fetched{HighWatermark: p.watermark, LogStart: p.logStart, Epoch: p.epoch}}
	if len(p.set) == 0 {
		return c, nil
	}
	batches, err := splitBatches(slices.Clone(p.set), p.offset)
	c.batches, c.size = batches, len(p.set)
	return c, asError(err)
}

// advance queues a chunk, if there is anything to tell, and reports whether
// there was.
func (r *reader) advance(c chunk) bool {
	r.pause = pauser{}
	now := news{watermark: c.fetched.HighWatermark, start: c.fetched.LogStart, epoch: c.fetched.Epoch}
	if len(c.batches) == 0 && now == r.told {
		return false
	}
	if n := len(c.batches); n > 0 {
		r.offset = c.batches[n-1].last + 1
	} else {
		c.size = 0
	}
	r.told = now
	r.push(c)
	return true
}
