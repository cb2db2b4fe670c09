package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// Partition is one partition of a [Stream], a log as the broker needs it: Append
// writes to Kafka, Run applies what comes from there, the node's own records
// among it, and reading is reading the copy.
//
// Who does what: publishers fill the outbox; the producer empties it and tells
// how it went; the fetcher hands over what it has read and waits until it is
// applied; the goroutine of Run alone uses the intake, applies and answers.
type Partition struct {
	*storage.Replica
	stream  *Stream
	name    kafka.Partition
	number  int
	outbox  outbox
	intake  intake
	inbox   chan arrival
	metrics *metrics
	logger  *slog.Logger
	status  status
	run     run
}

// run belongs to the goroutine of Run.
type run struct {
	apply    func(*storage.Commit)
	epoch    int32           // of the leader whose log was verified; -1 before the first
	ended    <-chan struct{} // closed when the end is asked for
	draining time.Time       // until when what waits is waited for, then
	stirred  bool            // something else than canaries was read
	synced   chan error      // takes the end of the copy's Run
	syncEnd  error
}

// arrival is what the fetcher has read; it waits for done.
type arrival struct {
	fetched kafka.Fetched
	done    chan struct{}
}

// Times of Run.
const (
	drainTime  = 5 * time.Second        // for answers, after the end was asked for
	busyTick   = 100 * time.Millisecond // between looks at what waits
	idleTick   = time.Second
	applyTurn  = 500 * time.Millisecond // for one try to apply, so that publishers are not forgotten meanwhile
	verifyRest = 500 * time.Millisecond // between tries to compare
)

// Append writes the entries to Kafka as one: they follow each other in the log,
// as far as one write has room for them. While too much waits it waits for
// space, until ctx ends. An error means that none of them was taken.
func (p *Partition) Append(ctx context.Context, entries ...*storage.Entry) error {
	return p.outbox.put(ctx, entries)
}

// Run applies what Kafka has until ctx ends; then nothing more is taken in, and
// what was gets its answer, or is told after some seconds that it has none. An
// error means that the copy cannot go on; then the process must end.
func (p *Partition) Run(ctx context.Context, apply func(*storage.Commit)) error {
	syncing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	p.run = run{apply: apply, epoch: -1, synced: make(chan error, 1), ended: ctx.Done()}
	go func() { p.run.synced <- p.Replica.Run(syncing) }()
	err := p.stream.link.fetcher.Add(kafka.Source{
		Partition: p.name, ID: p.stream.def.TopicID, Offset: int64(p.intake.note.head), Sink: p.sink,
	})
	if err == nil {
		err = p.loop()
		p.stream.link.fetcher.Remove(p.name)
	}
	p.outbox.close(errClosed())
	p.outbox.end()
	p.answer()
	stop()
	if p.run.synced != nil {
		p.run.syncEnd = <-p.run.synced
	}
	return errors.Join(err, p.run.syncEnd)
}

// sink hands over what was read, and returns when it is applied.
func (p *Partition) sink(ctx context.Context, f kafka.Fetched) error {
	a := arrival{f, make(chan struct{})}
	for _, wait := range []func() bool{
		func() bool {
			select {
			case p.inbox <- a:
				return true
			case <-ctx.Done():
				return false
			}
		},
		func() bool {
			select {
			case <-a.done:
				return true
			case <-ctx.Done():
				return false
			}
		},
	} {
		if !wait() {
			return ctx.Err()
		}
	}
	return p.status.haltedBy() // then nothing more is read
}

func (p *Partition) loop() error {
	timer := time.NewTimer(idleTick)
	defer timer.Stop()
	for {
		select {
		case a := <-p.inbox:
			err := p.arrived(a.fetched)
			close(a.done)
			if err != nil {
				return err
			}
		case <-p.outbox.ready:
		case <-p.status.asked:
			if err := p.flush(); err != nil {
				return err
			}
		case err := <-p.run.synced:
			p.run.synced, p.run.syncEnd = nil, err
			return nil // err tells
		case <-timer.C:
		case <-p.run.ended: // tick sees to it
		}
		busy := p.tick()
		if p.over(busy) {
			return p.flush()
		}
		if busy {
			timer.Reset(busyTick)
		} else {
			timer.Reset(idleTick)
		}
	}
}

// over reports whether Run is to end.
func (p *Partition) over(busy bool) bool {
	return !p.run.draining.IsZero() && (!busy || !time.Now().Before(p.run.draining))
}

// tick does what time and answers ask for, and returns whether something waits
// for its answer.
func (p *Partition) tick() (busy bool) {
	now := time.Now()
	select {
	case <-p.run.ended:
		p.run.ended, p.run.draining = nil, now.Add(drainTime)
		p.outbox.close(errClosed())
	default:
	}
	busy = p.outbox.expire(now)
	p.answer()
	if line := p.status.progress(now); line != "" {
		p.logger.Info("not ready yet", "progress", line)
	}
	if p.run.draining.IsZero() && p.status.mustSing(now, p.outbox.lost()) {
		p.outbox.sing(p.number)
	}
	return busy
}

// answer hands out the answers that no commit has.
func (p *Partition) answer() {
	answers := p.outbox.takeAnswers()
	if len(answers) == 0 {
		return
	}
	_, head := p.Bounds()
	for i := range answers {
		p.metrics.unanswered(answers[i].Result.Err)
	}
	p.run.apply(&storage.Commit{
		Chunk:   protocol.Chunk{Partition: uint32(p.number), Term: p.stream.def.Term, After: head, Through: head},
		Answers: answers,
	})
}

// arrived takes what the fetcher has read. Only what ends the process is an
// error.
func (p *Partition) arrived(f kafka.Fetched) error {
	if p.status.haltedBy() != nil {
		return nil
	}
	if f.Err != nil {
		return p.fetchFailed(f.Err)
	}
	p.status.reached(f.HighWatermark)
	if f.Epoch != p.run.epoch {
		if !p.verifyEpoch(f.Epoch) {
			return nil
		}
		p.status.reached(f.HighWatermark) // whatever went wrong meanwhile
		p.outbox.begin()
	}
	items, err := p.intake.take(f.Batches, p.judged)
	if err != nil {
		p.halt(err)
		return nil
	}
	if len(items) > 0 {
		if err := p.keep(items); err != nil {
			return err
		}
	}
	_, head := p.Bounds()
	if p.status.applied(head, p.intake.note) {
		p.logger.Info("caught up with Kafka", "offset", head)
	}
	p.metrics.applied(p.intake.note.head, f.HighWatermark)
	return nil
}

// keep applies items, unless they are nothing but canaries and marks of Kafka:
// those wait until something comes that is worth a sync, or is asked for. Idle
// nodes would write to all their disks else.
func (p *Partition) keep(items []storage.Item) error {
	_, head := p.Bounds()
	if stirred := p.run.stirred; !stirred && p.intake.note.head-head < maxDeferred && p.status.wanted() <= head {
		return nil
	}
	p.run.stirred = false
	return p.store(items, p.intake.encoded())
}

// maxDeferred is how many offsets without a message may wait.
const maxDeferred = storage.MaxHole / 2

// flush applies what keep has put off.
func (p *Partition) flush() error {
	_, head := p.Bounds()
	last := p.intake.note.head
	if last <= head {
		return nil
	}
	if err := p.store([]storage.Item{{Offset: last}}, p.intake.encoded()); err != nil {
		return err
	}
	p.status.applied(last, p.intake.note)
	return nil
}

// judged is told of every record that was read, and returns who waits for it.
func (p *Partition) judged(rec *kafka.Record, v *verdict) func(storage.Result) {
	p.metrics.judged(v)
	p.run.stirred = p.run.stirred || v.reason != canary
	switch v.reason {
	case Accepted, canary:
		if v.origin.Boot != p.stream.link.boot {
			return nil
		}
		p.status.heard(time.Now())
		if e := p.outbox.came(v.origin.Sequence); e != nil {
			return e.Done
		}
	case Overtaken: // a broker's own, and nobody's fault
	default:
		if p.stream.opts.Bad != nil && offsetOf(rec.Offset) > p.intake.head {
			p.stream.opts.Bad(Refused{Reason: v.reason, Partition: p.name, Record: *rec})
		}
	}
	return nil
}

// store applies items. While the copy has no room, or is too far ahead of its
// disk, publishers are seen to.
func (p *Partition) store(items []storage.Item, note []byte) error {
	for {
		turn, cancel := context.WithTimeout(context.Background(), applyTurn)
		commit, err := p.Apply(turn, items, note)
		cancel()
		if commit != nil {
			p.run.apply(commit)
		}
		if err == nil {
			return nil
		}
		_, head := p.Bounds()
		for len(items) > 0 && items[0].Offset <= head {
			items = items[1:]
		}
		select {
		case p.run.syncEnd = <-p.run.synced:
			p.run.synced = nil
		default:
		}
		busy := p.tick()
		if !errors.Is(err, context.DeadlineExceeded) || p.run.synced == nil || p.over(busy) {
			p.lose(items)
			if errors.Is(err, context.DeadlineExceeded) {
				return nil // it is read again after the start
			}
			return fmt.Errorf("apply to the copy of %s: %w", p.name, err)
		}
	}
}

// lose answers those whose records were read and not applied.
func (p *Partition) lose(items []storage.Item) {
	commit := &storage.Commit{}
	_, head := p.Bounds()
	commit.Chunk = protocol.Chunk{Partition: uint32(p.number), Term: p.stream.def.Term, After: head, Through: head}
	for i := range items {
		if e := items[i].Entry; e != nil && e.Done != nil {
			commit.Answers = append(commit.Answers, storage.Answer{Entry: e, Result: storage.Result{Err: errLost()}})
		}
	}
	p.run.apply(commit)
}
