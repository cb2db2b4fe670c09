package main

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// framesAtOnce is how many frames of a member wait for their answer: while one is
// being stored the next one is on its way.
const framesAtOnce = 2

// confirming is the goroutines of a member that wait for confirmations.
type confirming struct {
	*member
	ask   chan asked
	slots chan struct{} // holds something for each frame without an answer

	mu      sync.Mutex
	waiting map[uint32][]asked // by the frame that has them
}

// asked is an acknowledgement and who waits for its confirmation.
type asked struct {
	offset uint64
	answer chan error
}

// confirmAll has so many goroutines acknowledge, each one message at a time, and
// wait for the broker's answer. What they ask for while two frames are under way
// goes together in the next one.
func (m *member) confirmAll(done *tally, goroutines int) {
	c := &confirming{member: m, ask: make(chan asked, goroutines), slots: make(chan struct{}, framesAtOnce), waiting: map[uint32][]asked{}}
	work := make(chan uint64, 1<<16) // more than can be in flight
	for range goroutines {
		go func() {
			answer := make(chan error, 1)
			for offset := range work {
				c.ask <- asked{offset, answer}
				done.one(<-answer)
			}
		}()
	}
	terms := make(chan protocol.Term, 1)
	go func() { done.stop(c.write(terms)) }()
	done.stop(c.read(terms, work))
}

// read hands out what comes.
func (c *confirming) read(terms chan<- protocol.Term, work chan<- uint64) error {
	for {
		frame, err := c.next()
		if err != nil {
			return err
		}
		switch f := frame.(type) {
		case *protocol.Deliver:
			select {
			case terms <- f.Term: // it has room for one, which is all there are
			default:
			}
			for message, err := range f.Messages() {
				if err != nil {
					return err
				}
				work <- message.Position.Offset
			}
		case *tidewirev1.Acked:
			c.answered(f)
		}
	}
}

// answered tells those whose acknowledgements a frame had.
func (c *confirming) answered(f *tidewirev1.Acked) {
	c.mu.Lock()
	waiting := c.waiting[f.Ref]
	delete(c.waiting, f.Ref)
	c.mu.Unlock()
	if !c.apart {
		<-c.slots
	}
	var err error
	if f.Error != nil || len(f.Refused) > 0 || int(f.Settled) != len(waiting) {
		err = fmt.Errorf("%d acknowledgements were answered with %v", len(waiting), f)
	}
	for _, a := range waiting {
		a.answer <- err
	}
}

// write sends what is asked for.
func (c *confirming) write(terms <-chan protocol.Term) error {
	c.term = <-terms
	for ref := uint32(1); ; {
		batch := []asked{<-c.ask}
		if !c.apart {
			c.slots <- struct{}{}
		}
		for len(c.ask) > 0 {
			batch = append(batch, <-c.ask)
		}
		slices.SortFunc(batch, func(a, b asked) int { return cmp.Compare(a.offset, b.offset) })
		var frames []any
		for len(batch) > 0 {
			of := len(batch)
			if c.apart {
				of = 1
			}
			frames = append(frames, c.frame(ref, batch[:of]))
			batch, ref = batch[of:], ref+1
		}
		if err := c.Send(frames...); err != nil {
			return err
		}
	}
}

// frame makes the frame of some acknowledgements.
func (c *confirming) frame(ref uint32, batch []asked) *protocol.Settle {
	var ranges []protocol.OffsetRange
	for _, a := range batch {
		ranges = appendOffset(ranges, a.offset, false)
	}
	s := c.settle(ref, ranges)
	s.Confirm = true
	c.mu.Lock()
	c.waiting[ref] = batch
	c.mu.Unlock()
	return s
}
