package connect

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// A Source is one partition of a stream, as it lies on this node.
type Source interface {
	Read(q storage.Query) (protocol.Chunk, error)
	Bounds() (earliest, head uint64)
	// Place is the head, and what is closed when there is another one.
	Place() (head uint64, moved <-chan struct{})
}

// A Header is one that an [Out] puts on each record.
type Header struct {
	Name  string
	Value *Template
}

// ParseHeader reads a header written as name=template.
func ParseHeader(text string) (Header, error) {
	name, value, ok := strings.Cut(text, "=")
	if name = strings.TrimSpace(name); !ok || name == "" {
		return Header{}, fmt.Errorf("%q is no header; write name=value, such as source=tidewire", text)
	}
	if strings.HasPrefix(strings.ToLower(name), "tidewire-") {
		return Header{}, fmt.Errorf("headers that begin with tidewire- are Tidewire's own; give %q another name", name)
	}
	t, err := ParseTemplate(strings.TrimSpace(value), OutFields()...)
	return Header{name, t}, err
}

// OutOptions say what an [Out] carries.
type OutOptions struct {
	Common
	Stream      string
	StreamTopic string // the one in Kafka that is the stream
	Term        protocol.Term
	Partitions  []Source
	Filter      protocol.Filter
	Topic       string // in Kafka
	Key         *Template
	Headers     []Header
	Earliest    bool // begin, the first time, with the oldest message that is there
}

// OutFields are the kinds of fields that Key and the headers may have.
func OutFields() []Kind { return []Kind{FieldTopic, FieldKey, FieldID, FieldHeader, FieldJSON} }

// An Out carries a stream to a topic of Kafka. Each partition of the stream is
// read in order; what one read gives is written, and only when all of it is stored
// the next one is.
type Out struct {
	opts OutOptions

	mu     sync.Mutex
	broken map[brokenPlace]bool // of the copy on this node, where it has given up before
}

// brokenPlace is where a copy of a stream is damaged.
type brokenPlace struct {
	partition int
	after     uint64
}

// NewOut returns a connector, which works while Run does.
func NewOut(o OutOptions) *Out {
	o.metrics = newMetrics(o.Registerer, o.Name, "out")
	return &Out{opts: o, broken: make(map[brokenPlace]bool)}
}

// Run carries until ctx ends, under a generation of the lease; or until it finds
// that the copy on this node is damaged, so that another node may do better.
func (c *Out) Run(ctx context.Context, generation uint64) {
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	run(ctx, &c.opts.Common, func(ctx context.Context) error {
		err := c.carry(ctx, generation)
		if errors.Is(err, errDamaged) {
			c.opts.Logger.Error("a connector stops on this node, so that another one may go on", "connector", c.opts.Name, "error", err)
			giveUp()
		}
		return err
	})
}

var errDamaged = errors.New("the copy of the stream on this node is damaged")

// carry carries until ctx ends or something else has to be done first.
func (c *Out) carry(ctx context.Context, generation uint64) error {
	topic, _, err := look(ctx, c.opts.Client, c.opts.Topic)
	if err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(ctx)
	producer := c.opts.Client.NewProducer(kafka.ProducerOptions{})
	k := newKeeper(&c.opts.Common, generation, c.source())
	var work sync.WaitGroup
	defer k.tell()
	defer work.Wait()
	defer producer.Close()
	defer end(nil)
	for number, at := range c.places(k) {
		w := &writing{
			Out: c, number: number, from: c.opts.Partitions[number], at: at, topic: topic, producer: producer, keeper: k,
			bin: &bin{c.opts.Name, c.opts.BadTopic, producer, c.opts.metrics, c.opts.Logger},
		}
		work.Go(func() { end(w.carry(ctx)) })
	}
	return watch(ctx, &c.opts.Common, k, topic)
}

// source names what is read: a new term of a stream is another one.
func (c *Out) source() []byte {
	return binary.BigEndian.AppendUint64([]byte(c.opts.Stream+" "), uint64(c.opts.Term))
}

// places returns the offset behind which each partition is read.
func (c *Out) places(k *keeper) []uint64 {
	known, same, before := c.opts.Progress.Places(c.opts.Name, k.source)
	if before && !same {
		c.opts.metrics.gaps.Inc()
		c.opts.Logger.Warn("the stream of a connector is another one than before: it is read from its beginning", "connector", c.opts.Name, "stream", c.opts.Stream)
	}
	all := make([]uint64, len(c.opts.Partitions))
	for number, from := range c.opts.Partitions {
		earliest, head := from.Bounds()
		at, ok := known[uint32(number)]
		switch {
		case ok:
		case c.opts.Earliest || before:
			at = max(earliest, 1) - 1
		default:
			at = head
		}
		all[number] = at
		c.opts.Logger.Debug("a connector goes on", "connector", c.opts.Name, "stream", c.opts.Stream, "partition", number, "after", at, "head", head)
		k.begin(uint32(number), at, !ok)
		k.reaches(uint32(number), head)
	}
	return all
}

// writing is an Out at work on one partition of its stream.
type writing struct {
	*Out
	number   int
	from     Source
	at       uint64 // everything up to here is carried
	topic    kafka.Topic
	producer *kafka.Producer
	keeper   *keeper
	bin      *bin
}

// carry returns when ctx ends, or with what has to be seen to first.
func (w *writing) carry(ctx context.Context) error {
	for {
		head, moved := w.from.Place()
		w.keeper.reaches(uint32(w.number), head)
		if head <= w.at {
			select {
			case <-moved:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		chunk, err := w.from.Read(storage.Query{Filter: w.opts.Filter, After: w.at, MaxBytes: windowBytes / 2})
		if err != nil {
			if err = w.missed(err); err != nil {
				return err
			}
			continue
		}
		if err := w.write(ctx, &chunk); err != nil {
			return err
		}
		w.at = chunk.Through
		w.keeper.come(uint32(w.number), w.at)
	}
}

// missed goes on where there is something again.
func (w *writing) missed(err error) error {
	var lost *storage.LostError
	next := uint64(0)
	switch {
	case errors.Is(err, storage.ErrTrimmed):
		earliest, _ := w.from.Bounds()
		next = earliest - 1
	case errors.As(err, &lost):
		// Another node's copy may be whole. If none is, this one comes here again.
		here := brokenPlace{w.number, lost.After}
		if !w.damagedBefore(here) {
			return fmt.Errorf("%w: %w", errDamaged, err)
		}
		next = lost.Through
	default:
		return fmt.Errorf("read the stream %s: %w", w.opts.Stream, err)
	}
	w.opts.metrics.gaps.Inc()
	w.opts.Logger.Warn("the stream does not have any more what a connector has not carried", "connector", w.opts.Name,
		"stream", w.opts.Stream, "partition", w.number, "after", w.at, "next", next, "error", err)
	w.at = max(w.at, next)
	w.keeper.come(uint32(w.number), w.at)
	return nil
}

// partitionOf returns the partition of the topic in which Java's producer would
// put a key.
func (w *writing) partitionOf(key string) kafka.Partition {
	return kafka.Partition{Topic: w.topic.Name, Number: int32(protocol.Partition(key, len(w.topic.Partitions)))}
}

// damagedBefore notes a place, and reports whether it was known.
func (c *Out) damagedBefore(p brokenPlace) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.broken[p]
	c.broken[p] = true
	return known
}
