package bridge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
)

// A HaltError says why a partition is no longer applied: what Kafka has is not
// what this node has read before. Going on would mix two logs.
type HaltError struct {
	Partition kafka.Partition
	Why       string

	perhaps bool // a new leader that knows less yet would look alike
}

func (e *HaltError) Error() string {
	return fmt.Sprintf("%s is halted: %s. If Kafka is right, and what this cluster has of the old log may go, run `tidewire kafka new-term`; else put the topic back as it was, and start the broker again", e.Partition, e.Why)
}

// verifyTime bounds one comparison.
const verifyTime = 5 * time.Second

// lagTime is how long a new leader may seem to have less than its predecessor: it
// learns late what all replicas have.
const lagTime = 10 * time.Second

// Mark returns what identifies the last record that was read, for comparing with
// other nodes.
func (p *Partition) Mark() Mark { return p.status.lastMark() }

// Verify compares a mark, of this node or of another, with what Kafka has. A
// [HaltError] says that they differ; any other error that they could not be
// compared. A mark whose record is gone by retention fits.
func (p *Partition) Verify(ctx context.Context, mark Mark) error {
	ctx, cancel := context.WithTimeout(ctx, verifyTime)
	defer cancel()
	def, client := &p.stream.def, p.stream.link.client
	differs := func(format string, args ...any) error {
		return &HaltError{Partition: p.name, Why: fmt.Sprintf(format, args...)}
	}
	t, err := client.Topic(ctx, def.Topic)
	switch {
	case err != nil:
		return err
	case def.TopicID != (kafka.TopicID{}) && t.ID != def.TopicID:
		return differs("the topic was deleted and created again, its id is now %s and was %s", t.ID, def.TopicID)
	case len(t.Partitions) != def.Partitions:
		return differs("the topic has %d partitions, and the stream was made with %d: a topic would lie in another one now", len(t.Partitions), def.Partitions)
	case mark.Offset < 0:
		return nil
	}
	batch, err := client.BatchAt(ctx, t, int32(p.number), mark.Offset)
	if errors.Is(err, kafka.OutOfRange) {
		bounds, err := client.Bounds(ctx, t)
		switch {
		case err != nil:
			return err
		case bounds[p.number].Start > mark.Offset:
			return nil // removed by retention
		}
		return &HaltError{Partition: p.name, perhaps: true, Why: fmt.Sprintf(
			"Kafka has offsets up to %d only, and record %d was read before: records are lost, or the topic was made anew", bounds[p.number].End-1, mark.Offset)}
	}
	if err != nil {
		return err
	}
	for i := range batch.Records {
		if rec := &batch.Records[i]; rec.Offset == mark.Offset {
			switch {
			case checksum(rec) != mark.Checksum:
				return differs("the record at offset %d is another one than was read before: the topic was made anew, or Kafka has lost records and got others", mark.Offset)
			case batch.Epoch != mark.Epoch:
				return differs("the record at offset %d was appended in epoch %d of its leader, and the one that was read before in epoch %d: the topic was made anew", mark.Offset, batch.Epoch, mark.Epoch)
			}
			return nil
		}
	}
	if batch.Base > mark.Offset {
		return differs("Kafka has no record at offset %d, where one was read before: the topic was made anew, or is compacted", mark.Offset)
	}
	return differs("Kafka has a batch without the record at offset %d, which was read before", mark.Offset)
}

// Compare verifies the mark of another node, and halts the partition if Kafka has
// something else there: this node may have lost its data, and then it has nothing
// of its own to compare.
func (p *Partition) Compare(ctx context.Context, mark Mark) error {
	err := p.Verify(ctx, mark)
	if halt, differs := errors.AsType[*HaltError](err); differs && !halt.perhaps {
		p.halt(halt)
	}
	return err
}

// verifyEpoch compares the last record that was read with what a new leader has,
// and waits until that is possible. It reports whether reading may go on.
func (p *Partition) verifyEpoch(epoch int32) bool {
	since := time.Now()
	for {
		err := p.Verify(context.Background(), p.intake.note.mark)
		halt, differs := errors.AsType[*HaltError](err)
		switch {
		case err == nil:
			p.run.epoch = epoch
			return true
		case differs && (!halt.perhaps || time.Since(since) >= lagTime):
			p.halt(halt)
			return false
		}
		p.status.failing(err)
		if p.pause() {
			return false
		}
	}
}

// pause waits a moment before something is tried again, while publishers are seen
// to. It reports whether Run is to end.
func (p *Partition) pause() (over bool) {
	for until := time.Now().Add(verifyRest); time.Now().Before(until) && !over; over = p.over(p.tick()) {
		timer := time.NewTimer(time.Until(until))
		select {
		case <-timer.C:
		case <-p.outbox.ready:
		case <-p.run.ended:
		}
		timer.Stop()
	}
	return over
}

// halt ends applying: readers go on with what is here, publishers are refused.
func (p *Partition) halt(err error) {
	if _, ok := errors.AsType[*HaltError](err); !ok {
		err = &HaltError{Partition: p.name, Why: err.Error()}
	}
	p.status.halt(err)
	p.metrics.halted.Set(1)
	p.logger.Error("a partition is halted", "error", err)
	p.outbox.halt(errHalted())
}

// fetchFailed deals with what the fetcher says is wrong.
func (p *Partition) fetchFailed(err error) error {
	switch kafka.KindOf(err) {
	case kafka.TopicChanged:
		p.halt(&HaltError{Partition: p.name, Why: "the topic was deleted and created again"})
		return nil
	case kafka.OutOfRange:
		return p.outOfRange(err)
	}
	if lasting(err) {
		p.logger.Error("Kafka cannot be read", "error", err)
	} else {
		p.logger.Warn("Kafka cannot be read, it is tried again", "error", err)
	}
	p.status.failing(err)
	return nil
}

// outOfRange deals with an offset that Kafka does not have. Behind the end that is
// a loss; before the start retention was faster than this node.
func (p *Partition) outOfRange(cause error) error {
	ctx, cancel := context.WithTimeout(context.Background(), verifyTime)
	defer cancel()
	next := int64(p.intake.note.head)
	bounds, err := p.stream.bounds(ctx)
	if err != nil || p.number >= len(bounds) {
		p.status.failing(errors.Join(cause, err))
		p.pause()
		p.stream.link.fetcher.Seek(p.name, next) // it is told again
		return nil
	}
	b := bounds[p.number]
	switch _, head := p.Bounds(); {
	case b.Start > next && head == 0:
		if err := p.restart(b.Start); err != nil {
			return err
		}
	case b.Start > next:
		return fmt.Errorf("the retention of Kafka has removed what %s had for this node, offsets %d to %d: start the broker again, it goes on behind that gap, and tells it", p.name, next, b.Start-1)
	case b.End < next:
		p.halt(&HaltError{Partition: p.name, Why: fmt.Sprintf("Kafka ends at offset %d, and %d was read before: records are lost, or the topic was made anew", b.End-1, next-1)})
		return nil
	default:
		p.pause() // a new leader that does not know its end yet
	}
	p.stream.link.fetcher.Seek(p.name, int64(p.intake.note.head))
	return nil
}

// restart begins the copy anew at an offset of Kafka.
func (p *Partition) restart(start int64) error {
	if err := p.Reset(offsetOf(start)); err != nil {
		return fmt.Errorf("begin the copy of %s anew at offset %d: %w", p.name, start, err)
	}
	head := uint64(start)
	p.intake.note, p.intake.head = note{head: head, mark: noMark}, head
	p.intake.rules.sequences = newSequences(uint64(p.stream.def.DedupeWindow))
	p.status.restarted(head)
	return nil
}
