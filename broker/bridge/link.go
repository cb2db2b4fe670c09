package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/storage"
)

// A Link is how a broker process is bound to Kafka: one producer and one fetcher
// for all its streams, and the boot by which it knows its own records.
type Link struct {
	client   *kafka.Client
	producer *kafka.Producer
	fetcher  *kafka.Fetcher
	boot     Boot
}

// NewLink returns a link over a client, which stays the caller's.
func NewLink(c *kafka.Client) *Link {
	return &Link{
		client: c, producer: c.NewProducer(kafka.ProducerOptions{}), fetcher: c.NewFetcher(kafka.FetcherOptions{}), boot: NewBoot(),
	}
}

// Boot names this life of the process.
func (l *Link) Boot() Boot { return l.boot }

// Close ends reading and writing. The streams must have ended.
func (l *Link) Close() {
	l.fetcher.Close()
	l.producer.Close()
}

// StreamOptions say how to open a [Stream].
type StreamOptions struct {
	Definition Definition
	Store      *storage.Store
	Log        storage.LogOptions // of each partition; window and filters come from the definition
	RunAhead   int64              // see storage.ReplicaOptions
	Renew      bool               // a copy of another term is dropped
	Registerer prometheus.Registerer
	Logger     *slog.Logger // default slog.Default

	// Bad, if not nil, is told of every record that is no message, but for those that
	// were overtaken, from the goroutines of Run, when it is first read. It must not
	// block.
	Bad func(Refused)
}

// A Stream is a stream whose log is in Kafka, as this node has it.
type Stream struct {
	link       *Link
	def        Definition
	opts       StreamOptions
	partitions []*Partition
}

// Open opens the copies of all partitions. If Kafka can be reached it looks
// whether Kafka's retention has removed what would come next; else that is found
// out later.
func (l *Link) Open(ctx context.Context, o StreamOptions) (s *Stream, err error) {
	def, err := o.Definition.withDefaults()
	if err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	s = &Stream{link: l, def: def, opts: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	for number := range def.Partitions {
		p, err := s.open(number)
		if err != nil {
			return s, err
		}
		s.partitions = append(s.partitions, p)
	}
	return s, s.compare(ctx)
}

// compare looks at what Kafka has, if it can be reached: is the topic as it must
// be, and does it go on where the copies end?
func (s *Stream) compare(ctx context.Context) error {
	findings, err := s.check(ctx)
	var bounds []kafka.Bounds
	if err == nil {
		bounds, err = s.bounds(ctx)
	}
	switch {
	case errors.Is(err, kafka.NoTopic):
		return fmt.Errorf("the stream %s has no topic %s in Kafka: run `tidewire kafka init`, or put it back (%w)", s.def.Stream, s.def.Topic, err)
	case lasting(err):
		return fmt.Errorf("the stream %s: %w", s.def.Stream, err)
	case err != nil:
		s.opts.Logger.Warn("Kafka cannot be asked: what is here can be read, and the rest is looked at later", "stream", s.def.Stream, "error", err)
		return nil
	}
	var fatal []string
	for _, f := range findings {
		if f.Fatal {
			fatal = append(fatal, f.Sentence)
		} else {
			s.opts.Logger.Warn("a topic of Kafka is not quite as it should be", "stream", s.def.Stream, "what", f.Sentence)
		}
	}
	if err := joined(fatal); err != nil {
		return err
	}
	for _, p := range s.partitions {
		if p.number < len(bounds) {
			if err := p.begin(bounds[p.number]); err != nil {
				return err
			}
		}
	}
	return nil
}

// check compares the topic with the definition, and with the retention of the
// copies.
func (s *Stream) check(ctx context.Context) ([]Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, verifyTime)
	defer cancel()
	local := Local{Age: s.opts.Log.RetentionAge, Bytes: s.opts.Log.RetentionBytes}
	if local.Age == 0 {
		local.Age = 7 * 24 * time.Hour // as storage has it
	}
	if local.Bytes == 0 {
		local.Bytes = 10 << 30
	}
	return s.def.Check(ctx, s.link.client, local)
}

// LogName is the name of the copy of a partition in the data directory.
func LogName(stream string, partition int) string { return fmt.Sprintf("%s.%d", stream, partition) }

func (s *Stream) open(number int) (*Partition, error) {
	log := s.opts.Log
	log.DedupeWindow, log.Filters = s.def.DedupeWindow, s.def.Filters
	log.Registerer, log.Logger = s.opts.Registerer, s.opts.Logger
	replica, err := s.opts.Store.OpenReplica(LogName(s.def.Stream, number), storage.ReplicaOptions{
		LogOptions: log, Partition: uint32(number), Term: s.def.Term, Renew: s.opts.Renew, RunAhead: s.opts.RunAhead,
	})
	if err != nil {
		return nil, err
	}
	rules, err := newRules(s.def, number)
	if err != nil {
		return nil, errors.Join(err, replica.Close())
	}
	p := &Partition{
		Replica: replica, stream: s, number: number, name: kafka.Partition{Topic: s.def.Topic, Number: int32(number)},
		inbox: make(chan arrival), metrics: newMetrics(s.opts.Registerer, s.def.Stream, number),
		logger: s.opts.Logger.With("stream", s.def.Stream, "partition", number),
	}
	_, head := replica.Bounds()
	p.intake = intake{rules: rules, head: head, note: p.readNote(rules, head)}
	p.status = newStatus(head, p.intake.note.mark)
	way := route{
		partition: p.name, boot: s.link.boot, sealer: newSealer(s.def.Secret), produce: s.link.producer.Produce,
		forgotten: replica.Forgotten, maxValue: s.def.MaxPayload,
	}
	p.outbox = outbox{route: way, ready: make(chan struct{}, 1), space: make(chan struct{}), held: true}
	return p, nil
}

// readNote returns where reading goes on. Without a note that can be read, it goes
// back as far as the rules look.
func (p *Partition) readNote(r *rules, head uint64) note {
	n, err := note{}, errBadNote
	if b := p.Note(); len(b) > 0 {
		if n, err = parseNote(b, &r.sequences); err == nil && n.head <= head {
			return n
		}
	}
	if head == 0 {
		return note{mark: noMark}
	}
	p.logger.Warn("what is stored beside the messages cannot be read: a part of the log is read again", "error", err)
	r.sequences = newSequences(uint64(p.stream.def.DedupeWindow))
	return note{head: head - min(head, uint64(p.stream.def.DedupeWindow)), mark: noMark}
}

// begin compares where the copy is with what Kafka has.
func (p *Partition) begin(b kafka.Bounds) error {
	_, head := p.Bounds()
	start := uint64(max(b.Start, 0))
	switch {
	case start <= p.intake.note.head:
		return nil
	case start <= head: // the rules look less far back, once
		p.intake.note.head = start
		return nil
	case head > 0:
		p.metrics.gaps.Inc()
		p.logger.Warn("the retention of Kafka has removed what would come next: the copy begins anew, and subscribers are told of a gap", "after", head, "through", start)
	default:
		p.logger.Info("the copy begins where Kafka does", "offset", start)
	}
	return p.restart(b.Start)
}

// bounds asks Kafka where the partitions begin and end.
func (s *Stream) bounds(ctx context.Context) ([]kafka.Bounds, error) {
	ctx, cancel := context.WithTimeout(ctx, verifyTime)
	defer cancel()
	t, err := s.link.client.Topic(ctx, s.def.Topic)
	if err != nil {
		return nil, err
	}
	return s.link.client.Bounds(ctx, t)
}

// Definition returns what the stream is.
func (s *Stream) Definition() Definition { return s.def }

// Partitions returns the logs, the index is the number of the partition.
func (s *Stream) Partitions() []*Partition { return s.partitions }

// Ready returns nil, or why the stream cannot do all its work on this node: it
// catches up, is halted, or its disk does not keep up.
func (s *Stream) Ready() error {
	var reasons []string
	for _, p := range s.partitions {
		if err := p.Ready(); err != nil {
			reasons = append(reasons, err.Error())
		}
	}
	return joined(reasons)
}

// Degraded lists what does not work in all of the cluster, as far as this node
// sees: Kafka does not take, or does not give. Another node would do no better.
func (s *Stream) Degraded() (all []string) {
	for _, p := range s.partitions {
		if why := p.status.degraded(time.Now(), p.outbox.trouble()); why != "" {
			all = append(all, p.name.String()+": "+why)
		}
		all = append(all, p.Degraded()...)
	}
	return all
}

func joined(reasons []string) error {
	if len(reasons) == 0 {
		return nil
	}
	return errors.New(strings.Join(reasons, "; ")) // one line for people
}

// Ready returns nil, or why the partition does not do all its work on this node.
func (p *Partition) Ready() error {
	if err := p.status.ready(time.Now(), p.Unsynced()); err != nil {
		return fmt.Errorf("the stream %s, %s: %w", p.stream.def.Stream, p.name, err)
	}
	return p.Replica.Ready()
}

// Close closes the copies. Run must have returned.
func (s *Stream) Close() error {
	var errs []error
	for _, p := range s.partitions {
		p.metrics.unregister()
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}
