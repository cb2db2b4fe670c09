package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	tidewire "github.com/tidewire/tidewire/clients/go"
)

// maxWaiting bounds the lines whose answers wait to be looked at. The client's
// outbox bounds what is not answered.
const maxWaiting = 10_000

// maxToldRefusals bounds the refused lines that are told one by one.
const maxToldRefusals = 20

// A lineJob publishes lines. One goroutine reads them, one publishes, and one
// looks at the answers, in the order of the lines; so nothing that could go on
// waits for anything else.
type lineJob struct {
	*publisher
	template tidewire.Message
	client   *tidewire.Client

	mu      sync.Mutex // guards what follows
	read    int        // lines
	stored  int
	refused int
	failure error // why not all lines were read or published
}

// inputLine is a line without its end, or why there are no more.
type inputLine struct {
	text []byte
	err  error
}

// pubLine is a line on its way: published, or refused here.
type pubLine struct {
	number  int
	topic   string
	pending *tidewire.Pending
	err     error
}

func (p *publisher) publishLines(ctx context.Context, template tidewire.Message) error {
	c, err := p.client.connect(ctx, p.errs)
	if err != nil {
		return err
	}
	job := &lineJob{publisher: p, template: template, client: c}
	waiting := make(chan pubLine, maxWaiting)
	go job.publish(ctx, readLines(ctx, p.in), waiting)
	stop := job.progress()
	writeErr := job.answers(ctx, waiting)
	stop()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	_ = c.Close(closing)
	if writeErr != nil {
		return outputError(writeErr)
	}
	return job.outcome(ctx)
}

// readLines reads lines until the input or ctx ends. A read that hangs then is
// left behind.
func readLines(ctx context.Context, in io.Reader) <-chan inputLine {
	lines := make(chan inputLine, 256)
	go func() {
		defer close(lines)
		r := bufio.NewReaderSize(in, 64<<10)
		for {
			text, err := readLine(r)
			if text != nil {
				select {
				case lines <- inputLine{text: text}:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					lines <- inputLine{err: fmt.Errorf("cannot read standard input: %w", err)}
				}
				return
			}
		}
	}()
	return lines
}

// readLine returns a line without its end; nil if there is none.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(part) > 0 {
			line = append(line, part...)
		}
		if len(line) > maxInput {
			return nil, fmt.Errorf("a line has more than %d bytes", maxInput)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if line != nil {
			line = bytes.TrimSuffix(line, []byte("\n"))
		}
		return line, err
	}
}

// publish publishes lines until they or ctx end, and closes waiting.
func (j *lineJob) publish(ctx context.Context, lines <-chan inputLine, waiting chan<- pubLine) {
	defer close(waiting)
	for number := 1; ; number++ {
		var line inputLine
		select {
		case l, ok := <-lines:
			if !ok {
				return
			}
			line = l
		case <-j.client.Ended(): // however long the next line takes
			j.fail(tokenError(j.client.Err()))
			return
		case <-ctx.Done():
			return
		}
		if line.err != nil {
			j.fail(line.err)
			return
		}
		w := pubLine{number: number}
		m, err := j.message(line.text)
		w.topic = m.Topic
		if err == nil {
			w.pending, err = j.client.PublishAsync(ctx, m)
		}
		if _, refused := errors.AsType[*tidewire.Error](err); err != nil && !refused {
			if ctx.Err() == nil {
				j.fail(err)
			}
			return
		}
		w.err = err
		j.count(&j.read)
		waiting <- w // the other end never stops before it is closed
	}
}

// message makes a message of a line.
func (j *lineJob) message(line []byte) (tidewire.Message, error) {
	if !j.jsonLines {
		m := j.template
		m.Payload = line
		return m, nil
	}
	var m tidewire.Message
	err := m.UnmarshalJSON(line)
	return m, err
}

// answers looks at the answers in the order of the lines. When ctx ends it gives
// those under way a moment more. It returns why an answer could not be printed.
func (j *lineJob) answers(ctx context.Context, waiting <-chan pubLine) error {
	grace, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(closeTime, cancel) })
	defer stop()
	out := bufio.NewWriter(j.out)
	var broken error
	for w := range waiting {
		r, err := tidewire.Receipt{}, w.err
		if w.pending != nil {
			r, err = w.pending.Wait(grace)
			r.ID = w.pending.ID()
		}
		j.note(w.number, err)
		if !j.json || broken != nil {
			continue
		}
		_, broken = out.Write(answerLine(w.topic, r, err))
		if broken == nil && len(waiting) == 0 {
			broken = out.Flush()
		}
	}
	if broken == nil {
		broken = out.Flush()
	}
	return broken
}

// note counts the outcome of a line, and tells of a refusal.
func (j *lineJob) note(number int, err error) {
	if err == nil {
		j.count(&j.stored)
		return
	}
	e, ok := errors.AsType[*tidewire.Error](err)
	if !ok {
		return // interrupted, or the client has ended: outcome tells it once
	}
	switch n := j.count(&j.refused); {
	case n <= maxToldRefusals:
		_, _ = fmt.Fprintf(j.errs, "tidewire: line %d: %s\n", number, e.Message)
	case n == maxToldRefusals+1:
		_, _ = fmt.Fprintln(j.errs, "tidewire: more lines are refused; --json prints the answer to each")
	}
}

func (j *lineJob) count(n *int) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	*n++
	return *n
}

func (j *lineJob) fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.failure = err
}

// outcome says whether all lines were stored.
func (j *lineJob) outcome(ctx context.Context) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.stored+j.refused < j.read && j.client.Err() != nil && !errors.Is(j.client.Err(), tidewire.ErrClosed):
		return fmt.Errorf("%d of %d lines were stored: %w", j.stored, j.read, tokenError(j.client.Err()))
	case ctx.Err() != nil:
		return fmt.Errorf("interrupted: %d of the %d lines read were stored", j.stored, j.read)
	case j.failure != nil:
		return fmt.Errorf("%d lines were stored, then: %w", j.stored, j.failure)
	case j.refused > 0:
		return fmt.Errorf("%d of %d lines were refused", j.refused, j.read)
	case j.stored < j.read:
		return fmt.Errorf("only %d of %d lines were stored", j.stored, j.read)
	}
	return nil
}

// progress shows on a terminal how far a long input is. stop ends it.
func (j *lineJob) progress() (stop func()) {
	if !isTerminal(j.errs) {
		return func() {}
	}
	const patience, pace = 2 * time.Second, 500 * time.Millisecond
	done := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		wait := patience
		for {
			select {
			case <-time.After(wait):
				j.showProgress()
				wait = pace
			case <-done:
				if wait == pace {
					j.showProgress()
					_, _ = fmt.Fprintln(j.errs)
				}
				return
			}
		}
	})
	return func() { close(done); work.Wait() }
}

func (j *lineJob) showProgress() {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, _ = fmt.Fprintf(j.errs, "\r%d lines read, %d stored", j.read, j.stored)
}
