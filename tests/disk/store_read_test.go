package disk_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// read prints every record, and begins anew if retention is quicker.
func (p *publisher) read() error {
	for {
		if err := p.readOnce(); !errors.Is(err, storage.ErrTrimmed) {
			return err
		}
	}
}

// readOnce prints every record, compares it with what was published, and reads
// some topics once more through their index.
func (p *publisher) readOnce() error {
	p.mu.Lock() // so that every answer that is printed before is within the bounds
	earliest, head := p.log.Bounds()
	_, _ = fmt.Fprintln(p.out, "bounds", earliest, head)
	p.mu.Unlock()
	byTopic := map[string][]uint64{}
	count := 0
	err := p.scan(">", earliest-1, head, func(m protocol.Message) error {
		var worker, seq int
		if _, err := fmt.Sscanf(m.ID, "%d-%d", &worker, &seq); err != nil || idOf(worker, seq) != m.ID {
			return fmt.Errorf("a message with the id %.40q", m.ID)
		}
		if m.Topic != topicOf(worker, seq) || !bytes.Equal(m.Payload, payloadOf(worker, seq, p.job.Payload)) {
			return fmt.Errorf("the message %s is not as it was published", m.ID)
		}
		if want := p.log.PositionOf(m.Position.Offset); want != m.Position {
			return fmt.Errorf("the message %s has the position %v, by its offset %v", m.ID, m.Position, want)
		}
		byTopic[m.Topic] = append(byTopic[m.Topic], m.Position.Offset)
		count++
		p.mu.Lock()
		defer p.mu.Unlock()
		_, err := fmt.Fprintln(p.out, "record", worker, seq, m.Position)
		return err
	})
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(p.job.Seed, head))
	for range 3 {
		topic := topicOf(rng.IntN(p.job.Workers), rng.IntN(5))
		var got []uint64
		err := p.scan(topic, earliest-1, head, func(m protocol.Message) error {
			got = append(got, m.Position.Offset)
			return nil
		})
		if err != nil {
			return err
		}
		if !slices.Equal(got, byTopic[topic]) {
			return fmt.Errorf("the topic %s has %d messages by its index and %d by reading everything", topic, len(got), len(byTopic[topic]))
		}
	}
	p.say("end %d", count)
	return nil
}

// scan hands every message in (after, through] that matches to fn.
func (p *publisher) scan(text string, after, through uint64, fn func(protocol.Message) error) error {
	filter, err := protocol.ParseFilter(text)
	if err != nil {
		return err
	}
	for after < through {
		c, err := p.log.Read(storage.Query{Filter: filter, After: after, Through: through})
		if err != nil {
			return fmt.Errorf("read %s after %d: %w", text, after, err)
		}
		if c.Through <= after {
			return fmt.Errorf("reading %s after %d does not get on", text, after)
		}
		for m, err := range c.Messages() {
			if err != nil {
				return err
			}
			if m.Position.Offset <= after {
				return fmt.Errorf("the offset %d comes after %d", m.Position.Offset, after)
			}
			after = m.Position.Offset
			if err := fn(m); err != nil {
				return err
			}
		}
		after = c.Through
	}
	return nil
}
