package bridge

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// A plot is a partition of Kafka as strangers, zombies and faults leave it behind.
type plot struct {
	r       *rand.Rand
	def     Definition
	sealer  *sealer
	batches []kafka.Batch
	next    int64
	used    []protocol.Message // with ids, for repeats
	ever    []kafka.Record     // of brokers, for resends
	top     map[Boot]uint64
}

func newPlot(r *rand.Rand) *plot {
	p := &plot{r: r, def: testDefinition(), top: make(map[Boot]uint64)}
	p.def.DedupeWindow, p.def.Partitions, p.def.Filters = 3+r.IntN(30), 2, []string{"t.>", "$dead.>"}
	p.sealer = newSealer(p.def.Secret)
	p.next = r.Int64N(4)
	for records := 0; records < 14*p.def.DedupeWindow; {
		b := p.batch()
		records += len(b.Records)
		p.batches = append(p.batches, b)
	}
	return p
}

// batch makes the next batch.
func (p *plot) batch() kafka.Batch {
	r := p.r
	b := kafka.Batch{Base: p.next, Epoch: int32(p.next / 40)}
	switch r.IntN(20) {
	case 0:
		b.Control = true
		p.next++
	case 1:
		b.Bad = fmt.Errorf("bad")
		p.next += 1 + r.Int64N(3)
	case 2:
		b.Transactional = true
		p.fill(&b, func() kafka.Record { return p.foreign() })
	case 3:
		p.fill(&b, func() kafka.Record { return p.foreign() })
	case 4, 5: // a resend, or a zombie, of whatever is left of an earlier time
		if n := len(p.ever); n > 0 {
			from := max(0, n-1-r.IntN(2*p.def.DedupeWindow))
			i := 0
			p.fill(&b, func() kafka.Record {
				i++
				return p.ever[min(from+i, n-1)]
			})
			break
		}
		fallthrough
	default:
		boot := Boot(1 + r.IntN(4))
		if r.IntN(12) == 0 { // it has lost its mind, or a machine was set back
			p.top[boot] = r.Uint64N(p.top[boot] + 1)
		}
		p.fill(&b, func() kafka.Record { return p.brokers(boot) })
	}
	b.Last = p.next - 1
	if r.IntN(8) == 0 {
		p.next += r.Int64N(3) // a hole
	}
	return b
}

func (p *plot) fill(b *kafka.Batch, record func() kafka.Record) {
	for range 1 + p.r.IntN(4) {
		rec := record()
		rec.Offset = p.next
		p.next++
		b.Records = append(b.Records, rec)
		if p.r.IntN(9) == 0 {
			p.next++ // a hole within a batch
		}
	}
}

// message makes one, often with an id of some distance ago.
func (p *plot) message() protocol.Message {
	r := p.r
	clocks := []int64{1, 1_700_000_000_000, 1_700_000_000_000 + r.Int64N(1e7), 253402300799_000, -1}
	m := protocol.Message{Payload: []byte{byte(r.IntN(2))}, Time: time.UnixMilli(clocks[r.IntN(len(clocks))])}
	for m.Topic == "" || protocol.Partition(m.Topic, p.def.Partitions) != 0 {
		m.Topic = fmt.Sprint("t.", r.IntN(20))
	}
	switch n := len(p.used); {
	case n > 0 && r.IntN(2) == 0: // a repeat: distances around the window count most
		back := p.def.DedupeWindow - 2 + r.IntN(5)
		if r.IntN(2) == 0 {
			back = 1 + r.IntN(2*p.def.DedupeWindow)
		}
		m = p.used[max(0, n-back)]
	case r.IntN(3) > 0:
		m.ID = fmt.Sprint(r.IntN(1000))
	}
	if m.ID != "" {
		p.used = append(p.used, m)
	}
	return m
}

func (p *plot) brokers(boot Boot) kafka.Record {
	m := p.message()
	if p.r.IntN(10) == 0 {
		m.Topic = "$dead.x"
	}
	p.top[boot]++
	rec := written(p.sealer, &m, boot, p.top[boot])
	if p.r.IntN(15) == 0 {
		rec = written(p.sealer, &protocol.Message{Topic: canaryKey(0)}, boot, p.top[boot])
	}
	p.ever = append(p.ever, rec)
	return rec
}

func (p *plot) foreign() kafka.Record {
	m := p.message()
	rec := encode(&m)
	switch p.r.IntN(9) {
	case 0:
		rec.Key = nil
	case 1:
		rec.Value = nil
	case 2:
		rec.Key = []byte("elsewhere")
	case 3:
		rec.Headers = append(rec.Headers, kafka.Header{Key: headerOrigin, Value: bytes.Repeat([]byte{1}, 60)})
	case 4:
		rec.Headers = append(rec.Headers, kafka.Header{Key: "tidewire-key", Value: []byte{0}})
	case 5:
		rec.Key = []byte(canaryKey(0))
	}
	return rec
}

// copied is what a node keeps of a partition. There are two kinds: a model, and
// storage.Replica.
type copied interface {
	apply(items []storage.Item, note []byte)
	head() uint64
	reopen() (note []byte) // after a crash: the head may be further than the note
	remembered() string    // what the next verdicts depend on
	stored(after uint64) string
}

// modelCopy is DECISIONS in the plainest form.
type modelCopy struct {
	r       *rand.Rand
	window  int
	now     modelState
	durable modelState

	onlyAccepted bool // a mutation
}

type modelState struct {
	head   uint64
	ids    []storage.DedupeKey
	events []string // what is stored, by offset
	at     []uint64
	note   []byte
}

// clone shares what is there: states only grow, each in its own room.
func (s modelState) clone() modelState {
	s.ids, s.events, s.at = slices.Clip(s.ids), slices.Clip(s.events), slices.Clip(s.at)
	return s
}

func (c *modelCopy) head() uint64 { return c.now.head }

func (c *modelCopy) apply(items []storage.Item, note []byte) {
	cut := -1
	if c.r.IntN(3) == 0 {
		cut = c.r.IntN(len(items)) // a block ends here, with the note before
	}
	for i, it := range items {
		c.now.head = it.Offset
		if e := it.Entry; e != nil {
			known := false
			if e.Key != (storage.DedupeKey{}) {
				known = slices.Contains(c.now.ids[max(0, len(c.now.ids)-c.window):], e.Key)
				if !known || !c.onlyAccepted {
					c.now.ids = append(c.now.ids, e.Key)
				}
			}
			if !known {
				protocol.PlaceRecord(e.Record, it.Offset, it.Time)
				c.now.events = append(c.now.events, string(e.Record))
				c.now.at = append(c.now.at, it.Offset)
			}
		}
		if i == cut {
			c.durable = c.now.clone()
		}
	}
	c.now.note = note
	if c.r.IntN(2) == 0 {
		c.durable = c.now.clone()
	}
}

func (c *modelCopy) reopen() []byte {
	c.now = c.durable.clone()
	return c.now.note
}

func (c *modelCopy) remembered() string {
	return fmt.Sprintf("%x", c.now.ids[max(0, len(c.now.ids)-c.window):])
}

func (c *modelCopy) stored(after uint64) string {
	i, _ := slices.BinarySearch(c.now.at, after+1)
	return fmt.Sprintf("%q", c.now.events[i:])
}

// replicaCopy is a copy on disk.
type replicaCopy struct {
	t     testing.TB
	def   Definition
	dir   string
	store *storage.Store
	*storage.Replica
}

func newReplicaCopy(t testing.TB, def Definition, first uint64) *replicaCopy {
	c := &replicaCopy{t: t, def: def, dir: t.TempDir()}
	c.open()
	t.Cleanup(c.close)
	if first > 1 {
		if err := c.Reset(first); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *replicaCopy) open() {
	var err error
	quiet := slog.New(slog.DiscardHandler)
	if c.store, err = storage.Open(c.dir, storage.Options{ReserveBytes: -1, Logger: quiet}); err != nil {
		c.t.Fatal(err)
	}
	c.Replica, err = c.store.OpenReplica("main.0", storage.ReplicaOptions{Term: c.def.Term, LogOptions: storage.LogOptions{DedupeWindow: c.def.DedupeWindow, Logger: quiet, RetentionAge: -1}})
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *replicaCopy) close() {
	if err := c.Close(); err != nil {
		c.t.Error(err)
	}
	if err := c.store.Close(); err != nil {
		c.t.Error(err)
	}
}

func (c *replicaCopy) apply(items []storage.Item, note []byte) {
	if _, err := c.Apply(c.t.Context(), items, note); err != nil {
		c.t.Fatal(err)
	}
}

func (c *replicaCopy) head() uint64 {
	_, head := c.Bounds()
	return head
}

func (c *replicaCopy) reopen() []byte {
	c.close()
	c.open()
	return c.Note()
}

// remembered leaves out which record was the first with an id: nodes that began
// behind it cannot know.
func (c *replicaCopy) remembered() string {
	return fmt.Sprintf("%d", binary.BigEndian.Uint64(c.AppendState(nil)))
}

func (c *replicaCopy) stored(after uint64) (all string) {
	f, _ := protocol.ParseFilter(">")
	for head := c.head(); after < head; {
		chunk, err := c.Read(storage.Query{Filter: f, After: after, MaxBytes: 1 << 20})
		if err != nil {
			c.t.Fatal(err)
		}
		all += fmt.Sprintf("%x", chunk.Records)
		after = chunk.Through
	}
	return all
}

// A mutation is a fault that the test must find.
type mutation struct {
	forever    bool // the highest sequence of a boot counts for ever
	forgetful  bool // a restart begins without the sequences
	hasty      bool // a restart goes on at the head, not at the note
	byCall     bool // each call begins anew
	ofAccepted bool // only accepted ids count
	byClock    bool // records that are older than the last one are refused
}

// reader is a node as far as it reads.
type reader struct {
	t      testing.TB
	def    Definition
	copy   copied
	intake *intake
	begun  uint64
	mutation
	newest uint64
}

func (n *reader) start(kept []byte, head uint64) {
	rules := testRules(n.t, n.def, 0)
	n.intake = &intake{rules: rules, head: head, note: note{head: head, mark: noMark}}
	if n.forever {
		rules.sequences.window = 1 << 50
	}
	if len(kept) > 0 {
		at, err := parseNote(kept, &rules.sequences)
		if err != nil {
			n.t.Fatal(err)
		}
		n.intake.note = at
	} else if head > n.begun { // it has lost all but a part of its first call
		n.intake.note.head = n.begun
	}
	if n.forgetful {
		rules.sequences = newSequences(rules.sequences.window)
	}
	if n.hasty {
		n.intake.note.head = head
	}
}

// read takes some batches, cut anyhow.
func (n *reader) read(batches []kafka.Batch) {
	if n.byCall {
		n.intake.rules.sequences = newSequences(n.intake.rules.sequences.window)
	}
	items, err := n.intake.take(batches, func(*kafka.Record, *verdict) func(storage.Result) { return nil })
	if err != nil {
		n.t.Fatal(err)
	}
	for i := range items {
		if n.byClock && items[i].Entry != nil {
			if items[i].Time < n.newest {
				items[i].Entry = nil
			}
			n.newest = max(n.newest, items[i].Time)
		}
	}
	if len(items) > 0 {
		n.copy.apply(items, n.intake.encoded())
		n.intake.head = n.copy.head()
	}
}

// converge lets nodes read a plot, and returns in what they differ, once each has
// read so much that it may not.
func converge(t testing.TB, r *rand.Rand, m mutation, open func(def Definition, first uint64) copied) (difference string) {
	p := newPlot(r)
	var nodes []*reader
	settled := uint64(0)
	for i := range 3 {
		from := 0
		if i > 0 {
			from = r.IntN(len(p.batches) / 3)
		}
		n := &reader{t: t, def: p.def, mutation: m, begun: uint64(p.batches[from].Base)}
		if i > 0 { // in the midst of a batch
			n.begun += r.Uint64N(uint64(p.batches[from].Last-p.batches[from].Base) + 1)
		}
		n.copy = open(p.def, n.begun+1)
		n.start(nil, n.begun)
		nodes = append(nodes, n)
		for at := from; at < len(p.batches); {
			more := min(1+r.IntN(5), len(p.batches)-at)
			n.read(p.batches[at : at+more])
			at += more
			if r.IntN(12) == 0 {
				n.start(n.copy.reopen(), n.copy.head())
				for at = from; at < len(p.batches) && offsetOf(p.batches[at].Last) <= n.intake.note.head; at++ {
					continue
				}
				if at > from && r.IntN(2) == 0 {
					at-- // Kafka may hand over what was read before
				}
			}
		}
		settled = max(settled, n.begun)
	}
	settled = p.settled(t, settled)
	first := nodes[0]
	if len(first.copy.stored(settled)) < 3 {
		t.Fatal("the plot is too short to compare anything")
	}
	for _, n := range nodes[1:] {
		switch {
		case n.copy.head() != first.copy.head():
			return fmt.Sprintf("heads %d and %d", n.copy.head(), first.copy.head())
		case !bytes.Equal(n.intake.encoded(), first.intake.encoded()):
			return fmt.Sprintf("notes %x and %x", n.intake.encoded(), first.intake.encoded())
		case n.copy.remembered() != first.copy.remembered():
			return fmt.Sprintf("ids %s and %s", n.copy.remembered(), first.copy.remembered())
		case n.copy.stored(settled) != first.copy.stored(settled):
			return fmt.Sprintf("what is stored after %d", settled)
		}
	}
	return ""
}

// settled returns the offset from which a node must agree that began behind
// another: the rules look back one window of offsets, and from there on one window
// of ids, whatever they were repeats of, must have passed.
func (p *plot) settled(t testing.TB, begun uint64) uint64 {
	window := uint64(p.def.DedupeWindow)
	rules, ids := testRules(t, p.def, 0), uint64(0)
	for _, b := range p.batches {
		for i := range b.Records {
			v, offset := rules.judge(&b.Records[i], b.Transactional), offsetOf(b.Records[i].Offset)
			if v.reason == Accepted && v.message.ID != "" && offset > begun+window {
				if ids++; ids == window {
					return offset
				}
			}
		}
	}
	return uint64(p.next)
}

func openModel(r *rand.Rand, m mutation) func(Definition, uint64) copied {
	return func(def Definition, first uint64) copied {
		c := &modelCopy{r: r, window: def.DedupeWindow, onlyAccepted: m.ofAccepted}
		c.now.head = first - 1
		c.durable = c.now.clone()
		return c
	}
}

func soak() time.Duration {
	d, _ := time.ParseDuration(os.Getenv("TIDEWIRE_SOAK"))
	return d
}

// TestApplyEquality: nodes that begin to read anywhere, and restart anywhere, are
// the same to the byte once they have read some windows.
func TestApplyEquality(t *testing.T) {
	seeds := newRand(t)
	start := time.Now()
	for i := 0; i < 600 || time.Since(start) < soak(); i++ {
		seed := seeds.Uint64()
		r := rand.New(rand.NewPCG(seed, 1))
		if difference := converge(t, r, mutation{}, openModel(r, mutation{})); difference != "" {
			t.Fatalf("run %d, seed %d: %s", i, seed, difference)
		}
	}
}

// TestApplyEqualityOnDisk is the same on real copies.
func TestApplyEqualityOnDisk(t *testing.T) {
	seeds := newRand(t)
	start := time.Now()
	for i := 0; i < 2 || time.Since(start) < soak(); i++ {
		seed := seeds.Uint64()
		r := rand.New(rand.NewPCG(seed, 1))
		open := func(def Definition, first uint64) copied { return newReplicaCopy(t, def, first) }
		if difference := converge(t, r, mutation{}, open); difference != "" {
			t.Fatalf("run %d, seed %d: %s", i, seed, difference)
		}
	}
}

// TestApplyEqualityFindsFaults: what would let nodes drift apart is found.
func TestApplyEqualityFindsFaults(t *testing.T) {
	for name, m := range map[string]mutation{
		"the highest sequence counts for ever": {forever: true},
		"a restart forgets the sequences":      {forgetful: true},
		"a restart goes on at the head":        {hasty: true},
		"each call begins anew":                {byCall: true},
		"only accepted ids count":              {ofAccepted: true},
		"time decides":                         {byClock: true},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(300) {
				r := rand.New(rand.NewPCG(seed, 1))
				if converge(t, r, m, openModel(r, m)) != "" {
					return
				}
			}
			t.Error("nobody noticed")
		})
	}
}
