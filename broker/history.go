package broker

import (
	"context"
	"time"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// maxPageBytes bounds the payloads of one page. One message alone may be larger.
const maxPageBytes = 4 << 20

// HistoryQuery asks for stored messages.
type HistoryQuery struct {
	Filter protocol.Filter
	Stream string // to read; empty for the one that holds what the filter selects
	From   protocol.Start
	Back   bool // the newest before From, in place of the oldest after it
	Limit  int  // messages
}

// A Page is a part of the log as one request sees it, the oldest message first.
type Page struct {
	Messages []protocol.Message
	Next     protocol.Position // where the next page in the same direction begins
	Gap      *tidewirev1.Gap   // what is missing; may be nil
}

// History reads a page of stored messages. It ends at the limit, at 4 MiB, at
// the head of the log or where a gap begins: Next always tells where to go on,
// and whoever goes on from there misses nothing and gets nothing twice.
// Expired messages are left out.
//
// Forwards a gap lies before the messages of its page, and Next is also a good
// beginning for a subscription. Backwards see [Broker.historyBack].
func (b *Broker) History(ctx context.Context, who *Identity, q HistoryQuery) (*Page, error) {
	if err := who.MaySubscribe(q.Filter); err != nil {
		return nil, err
	}
	st, err := b.reading(q.Filter, q.Stream)
	if err != nil {
		return nil, err
	}
	in := st.read(q.Filter)
	if len(in) > 1 {
		return nil, protocol.Errorf(protocol.CodeUnsupported, "the history of a pattern cannot be read in a stream of several partitions: ask for one topic, or subscribe")
	}
	if q.From, err = in[0].own(q.From, q.Filter); err != nil {
		return nil, err
	}
	if q.Back {
		return in[0].historyBack(ctx, q)
	}
	if q.From.Kind == protocol.StartLastPerTopic {
		if !q.Filter.Exact() {
			return nil, protocol.Errorf(protocol.CodeUnsupported, "history cannot begin with last-per-topic for a pattern: subscribe with it, or ask for one topic")
		}
		q.From = protocol.Start{Kind: protocol.StartLast, Last: 1}
	}
	return in[0].history(ctx, q)
}

func (pt *partition) history(ctx context.Context, q HistoryQuery) (*Page, error) {
	head := pt.head()
	at, err := pt.resolve(q.From, q.Filter, head)
	if err != nil {
		return nil, err
	}
	p := pager{partition: pt, query: q, begin: at.After, quiet: at.Quiet, cursor: at.After, now: time.Now()}
	if at.Gap != nil {
		p.page.Gap = pt.gapFrame(0, at.Gap)
	}
	for p.cursor < head && !p.full {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err := p.read(head); err != nil {
			return nil, err
		}
	}
	if p.missed > 0 {
		p.page.Gap = pt.countedGap(0, storage.GapRetention, pt.log.PositionOf(p.begin), p.missed)
	}
	p.page.Next = pt.log.PositionOf(p.cursor)
	return &p.page, nil
}

// pager fills a page. The cursor is the offset up to which everything that
// matches is in it.
type pager struct {
	partition *partition
	query     HistoryQuery
	page      Page
	begin     uint64 // the cursor as it was
	quiet     uint64 // what retention by count hides up to here is not told
	cursor    uint64
	missed    uint64 // what it hides from there on, up to the cursor
	bytes     int
	full      bool
	now       time.Time
}

// read adds what one look at the log brings.
func (p *pager) read(head uint64) error {
	c, err := p.partition.log.Read(storage.Query{Filter: p.query.Filter, After: p.cursor, Through: head, MaxBytes: maxChunkBytes})
	if gap := p.partition.gapOf(p.cursor, err); gap != nil {
		p.gap(gap)
		return nil
	}
	if err != nil {
		return err
	}
	until, hidden := c.Through, c.Hidden[uint64(len(c.Hidden))-hiddenAbove(c.Hidden, p.quiet):]
	if p.page.Gap != nil && len(hidden) > 0 {
		until, p.full = hidden[0]-1, true // the next page tells it, one tells one gap
	}
	for m, err := range c.Messages() {
		if err != nil {
			return err
		}
		if m.Position.Offset > until {
			break
		}
		if !p.add(m) {
			until = p.cursor
			break
		}
	}
	p.cursor = until
	p.missed += uint64(len(hidden)) - hiddenAbove(hidden, until)
	p.full = p.full || len(p.page.Messages) >= p.query.Limit
	return nil
}

// add takes a message, unless the page is full.
func (p *pager) add(m protocol.Message) bool {
	if expired := !m.ExpiresAt.IsZero() && !p.now.Before(m.ExpiresAt); !expired {
		full := len(p.page.Messages) >= p.query.Limit || (p.bytes > 0 && p.bytes+len(m.Payload) > maxPageBytes)
		if full {
			p.full = true
			return false
		}
		p.bytes += len(m.Payload)
		p.page.Messages = append(p.page.Messages, m)
	}
	p.cursor = m.Position.Offset
	return true
}

// gap notes that what follows the cursor cannot be given. A gap behind messages
// or another gap is left to the next page, which begins there.
func (p *pager) gap(gap *storage.Gap) {
	if len(p.page.Messages) > 0 || p.page.Gap != nil || p.missed > 0 {
		p.full = true
		return
	}
	p.page.Gap = p.partition.gapFrame(0, gap)
	p.cursor = gap.Next
}
