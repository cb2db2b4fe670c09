package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	tidewire "github.com/tidewire/tidewire/clients/go"
)

const (
	// saveDelay is when the position file is written after a flush; it is to be
	// replaced within 100 ms, and the disk takes its share.
	saveDelay = 50 * time.Millisecond
	// saveIdle is how often the file follows positions that move although no
	// message comes, so that a quiet filter does not fall behind retention.
	saveIdle = 5 * time.Second
)

// A line is one subscription of a printer.
type line struct {
	sub *tidewire.Subscription

	// Guarded by printer.mu: the position after the newest printed message, and that
	// of the subscription when it was printed. While the latter has not moved, the
	// former is the newer one.
	at, before string
}

// position returns up to where all is printed. The caller holds printer.mu.
func (l *line) position() string {
	if p := l.sub.Position(); p != l.before {
		return p
	}
	return l.at
}

// A printer writes the messages of all subscriptions. They share one buffer; a
// flusher of its own writes out what has gathered, so that live messages appear
// at once and a long replay is written in large pieces, without a timer.
type printer struct {
	*subscriber
	cancel context.CancelFunc // ends the command
	lines  []*line
	work   sync.WaitGroup // of the subscriptions
	dirty  chan struct{}  // there is something to flush

	mu      sync.Mutex
	out     *bufio.Writer
	torn    bool // the output's last line was cut off in an earlier run: end it first
	printed int
	broken  bool  // the output takes nothing any more
	lost    error // why the output is broken

	once   sync.Once
	reason error // why the command ends, unless it is interrupted
}

func newPrinter(s *subscriber, cancel context.CancelFunc) *printer {
	p := &printer{subscriber: s, cancel: cancel, dirty: make(chan struct{}, 1), out: bufio.NewWriterSize(s.out, 64<<10)}
	if p.torn = endsTorn(s.out); p.torn {
		_, _ = fmt.Fprintln(s.errs, "tidewire: the last line of the output is not complete, an earlier run was cut off; messages begin on a new line")
	}
	return p
}

// end ends the command; the first reason counts.
func (p *printer) end(err error) {
	p.once.Do(func() { p.reason = err })
	p.cancel()
}

// why returns the reason of the end. That of an interrupt is context.Canceled,
// which also is what the subscriptions report then.
//
// The last messages may have been counted and then not been written: then the
// output is the reason, not that there were enough.
func (p *printer) why() error {
	p.end(context.Canceled)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lost != nil && errors.Is(p.reason, errEnough) {
		return p.lost
	}
	return p.reason
}

// print prints the messages of one subscription until it or ctx ends.
func (p *printer) print(ctx context.Context, l *line) {
	for m, err := range l.sub.Messages(ctx) {
		if err != nil {
			p.end(err)
			return
		}
		if !p.write(l, m) {
			return
		}
	}
}

// write prints a message. It reports whether to go on.
func (p *printer) write(l *line, m *tidewire.Message) bool {
	body := m.Payload
	if p.json {
		var err error
		if body, err = m.MarshalJSON(); err != nil {
			p.end(err)
			return false
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken || (p.count > 0 && p.printed == p.count) {
		return false
	}
	if err := p.writeLine(body); err != nil {
		p.breakOff(err)
		return false
	}
	l.before, l.at = l.sub.Position(), l.sub.PositionAfter(m)
	select {
	case p.dirty <- struct{}{}:
	default:
	}
	if p.printed++; p.printed == p.count {
		p.end(errEnough)
		return false
	}
	return true
}

// writeLine writes a message as a line. Lines reach the output whole, as far as
// their size allows: a buffer that was written out in the middle of a line would
// leave the half of it whenever the process is killed.
func (p *printer) writeLine(body []byte) error {
	if p.torn {
		p.torn = false
		_ = p.out.WriteByte('\n')
	}
	if p.out.Buffered() > 0 && p.out.Available() <= len(body) {
		_ = p.out.Flush() // WriteByte returns its error
	}
	_, _ = p.out.Write(body)
	return p.out.WriteByte('\n')
}

// breakOff ends the command because its output cannot be written.
func (p *printer) breakOff(err error) {
	p.broken = true
	if err = outputError(err); err == nil {
		err = errOutput
	}
	p.lost = err
	p.end(err)
}

// flush writes out what has gathered, and returns the positions that are safe to
// keep then; nil if the output is broken.
func (p *printer) flush() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.broken {
		if err := p.out.Flush(); err != nil {
			p.breakOff(err)
		}
	}
	if p.broken {
		return nil
	}
	positions := make(map[string]string, len(p.lines))
	for _, l := range p.lines {
		positions[l.sub.Filter()] = l.position()
	}
	return positions
}

// start starts the flusher, which also keeps the position file. stop ends it when
// nothing is printed any more, and returns why the file could not be written.
func (p *printer) start(positions *positions) (stop func() error) {
	done := make(chan struct{})
	var work sync.WaitGroup
	var failed error
	save := func() {
		if err := positions.save(p.flush()); err != nil && failed == nil {
			failed = err
			p.end(err)
		}
	}
	work.Go(func() {
		save()
		timer := time.NewTimer(saveIdle)
		defer timer.Stop()
		soon := false // the timer is set to saveDelay
		for {
			select {
			case <-p.dirty:
				p.flush()
				if !soon {
					soon = true
					timer.Reset(saveDelay)
				}
			case <-timer.C:
				save()
				soon = false
				timer.Reset(saveIdle)
			case <-done:
				save()
				return
			}
		}
	})
	return func() error { close(done); work.Wait(); return failed }
}
