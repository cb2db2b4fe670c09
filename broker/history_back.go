package broker

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// historyBack reads a page from its newest message down. It ends at the limit,
// at 4 MiB or at the beginning of the log. Next is a position before which the
// next page goes on; at the end it is the place before everything.
//
// A gap by retention is what lay before everything that is left: it is told
// once, on the page that reaches the beginning. Any other gap lies between the
// position that was asked for and the messages of the page.
func (pt *partition) historyBack(ctx context.Context, q HistoryQuery) (*Page, error) {
	through, gap, err := pt.resolveBack(q.From, q.Filter, pt.head())
	if err != nil {
		return nil, err
	}
	p := backPager{partition: pt, query: q, cursor: through, now: time.Now(), resumes: q.From.Kind == protocol.StartPosition}
	if gap != nil {
		p.page.Gap = pt.gapFrame(0, gap)
	}
	for p.cursor > 0 && !p.full {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err := p.read(); err != nil {
			return nil, err
		}
	}
	if p.missed > 0 {
		p.page.Gap = pt.countedGap(0, storage.GapRetention, pt.log.PositionOf(min(through+1, pt.head())), p.missed)
	}
	if p.cursor > 0 {
		p.cursor++ // its first message, or the oldest that is left
	}
	p.page.Next = pt.log.PositionOf(p.cursor)
	slices.Reverse(p.page.Messages)
	return &p.page, nil
}

// resolveBack returns the last offset before a place. A position names a message
// that the reader knows already.
func (pt *partition) resolveBack(start protocol.Start, f protocol.Filter, head uint64) (through uint64, gap *storage.Gap, err error) {
	at, perr := pt.resolve(start, f, head)
	if perr != nil {
		return 0, nil, perr
	}
	switch {
	case start.Kind != protocol.StartPosition:
		return min(at.After, head), nil, nil
	case at.Gap == nil || at.Gap.Reason == storage.GapRetention:
		return min(max(start.Position.Offset, 1)-1, head), nil, nil // retention is met on the way
	case at.Gap.Reason == storage.GapOtherLog:
		// Nothing is known to lie before it, so everything may: as forwards, where
		// everything comes after it.
		at.Gap.Next = head
		return head, at.Gap, nil
	}
	at.Gap.Through = start.Position.Offset - 1 // that message itself was not asked for
	if at.Gap.Through <= at.Gap.After {
		at.Gap = nil
	}
	return min(at.After, head), at.Gap, nil
}

// backPager fills a page backwards. Everything above the cursor that matches is
// in it.
type backPager struct {
	partition *partition
	query     HistoryQuery
	page      Page // its messages newest first
	cursor    uint64
	bytes     int
	full      bool
	now       time.Time

	resumes bool   // it begins at a position: what retention by count hides is told
	missed  uint64 // how many that are, down to the cursor
}

// read adds what one look at the log brings.
func (p *backPager) read() error {
	q := storage.Query{Filter: p.query.Filter, Through: p.cursor, MaxBytes: maxChunkBytes}
	c, err := p.partition.log.ReadBack(q, p.query.Limit-len(p.page.Messages))
	if errors.Is(err, storage.ErrTrimmed) {
		p.trimmed()
		return nil
	}
	if gap := p.partition.gapOf(0, err); gap != nil {
		p.damaged(gap)
		return nil
	}
	if err != nil {
		return err
	}
	messages := make([]protocol.Message, 0, c.Count)
	for m, err := range c.Messages() {
		if err != nil {
			return err
		}
		messages = append(messages, m)
	}
	down, hidden := c.After, c.Hidden
	if !p.resumes {
		hidden = nil
	}
	if p.page.Gap != nil && len(hidden) > 0 {
		down, p.full = hidden[len(hidden)-1], true // the next page tells it, one tells one gap
	}
	for _, m := range slices.Backward(messages) {
		if m.Position.Offset <= down {
			break
		}
		if !p.add(m) {
			down = p.cursor
			break
		}
	}
	p.cursor = down
	p.missed += hiddenAbove(hidden, down)
	p.full = p.full || len(p.page.Messages) >= p.query.Limit
	return nil
}

// add takes a message, unless the page is full.
func (p *backPager) add(m protocol.Message) bool {
	if expired := !m.ExpiresAt.IsZero() && !p.now.Before(m.ExpiresAt); !expired {
		if p.bytes > 0 && p.bytes+len(m.Payload) > maxPageBytes {
			p.full = true
			return false
		}
		p.bytes += len(m.Payload)
		p.page.Messages = append(p.page.Messages, m)
	}
	p.cursor = m.Position.Offset - 1
	return true
}

// trimmed notes that retention has taken everything from the cursor down. If
// there is another gap already, this one is left to the next page.
func (p *backPager) trimmed() {
	p.full = true
	if p.page.Gap != nil || p.missed > 0 {
		return
	}
	earliest, _ := p.partition.log.Bounds()
	p.page.Gap = p.partition.gapFrame(0, &storage.Gap{
		Reason: storage.GapRetention, Term: p.partition.log.PositionOf(0).Term,
		Through: p.cursor, Next: earliest - 1,
	})
	p.cursor = 0
}

// damaged notes what cannot be read below the cursor. A page that has something
// already ends there, and the next one begins with the gap.
func (p *backPager) damaged(gap *storage.Gap) {
	if p.page.Gap != nil || len(p.page.Messages) > 0 || p.missed > 0 {
		p.full = true
		return
	}
	gap.Next = gap.After // messages go on there, as of any gap at this end
	p.page.Gap = p.partition.gapFrame(0, gap)
	p.cursor = gap.After
}
