package disk_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// job is what the process under test is to do. It is given as the first line of
// standard input; commands follow, a line each:
//
//	read            print every record that is stored
//	write           begin to publish
//	publish W SEQ   publish one message
//	repeat W SEQ    the same once more
//	stop            end in an orderly way
//
// It prints, a line each:
//
//	open                        the log is open
//	bounds EARLIEST HEAD        before the records of a read
//	record W SEQ POSITION       in the order of the log
//	end COUNT                   of a read
//	stored W SEQ POSITION DUP   a message was answered; DUP is true or false
//	repeated W SEQ POSITION DUP
//	refused W SEQ CODE
//	damage TEXT                 what is stored is not what was published
//	failed TEXT                 Run or Open returned an error
//	unanswered COUNT            entries whose Done was not called, after that
type job struct {
	Dir     string
	Workers int
	Next    []int // for each worker: the first message that was not answered
	Seed    uint64
	Burst   int // messages that a worker has in flight at most
	Payload int // bytes that a payload has at most

	Segment   int64
	Retention int64
	Age       time.Duration
	Window    int64
	Reserve   int64
	Dedupe    int

	Check bool // before the log is opened; it always is in the end
}

// topicOf, idOf and payloadOf say what message seq of a worker is: the same in
// every process.
func topicOf(worker, seq int) string { return fmt.Sprintf("t.%d.%d", worker, seq%5) }
func idOf(worker, seq int) string    { return fmt.Sprintf("%d-%d", worker, seq) }

func payloadOf(worker, seq, limit int) []byte {
	rng := rand.New(rand.NewPCG(uint64(worker), uint64(seq)))
	size := rng.IntN(200)
	if rng.IntN(20) == 0 {
		size = rng.IntN(limit)
	}
	b := make([]byte, min(size, limit))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// publisher is the process under test.
type publisher struct {
	job     job
	log     *storage.Log
	pending atomic.Int64 // entries that have not been answered
	workers sync.WaitGroup

	mu  sync.Mutex
	out *bufio.Writer
}

func storeChild() int {
	p := &publisher{out: bufio.NewWriter(os.Stdout)}
	in := bufio.NewScanner(os.Stdin)
	if !in.Scan() {
		return fail(io.ErrUnexpectedEOF)
	}
	if err := json.Unmarshal(in.Bytes(), &p.job); err != nil {
		return fail(err)
	}
	if p.job.Check {
		p.check()
	}
	if err := p.run(in); err != nil {
		p.awaitWorkers()
		p.say("failed %s", strings.ReplaceAll(err.Error(), "\n", " / "))
		p.say("unanswered %d", p.pending.Load())
		return fail(err)
	}
	p.check()
	return 0
}

// check says what storage.Check finds wrong while nobody has the store open.
func (p *publisher) check() {
	if _, err := os.Stat(filepath.Join(p.job.Dir, "FORMAT")); err != nil {
		return // the power was cut before there was one
	}
	report, err := storage.Check(context.Background(), p.job.Dir, nil)
	if err := errors.Join(append(report.Problems, err)...); err != nil {
		p.say("damage by the check: %s", strings.ReplaceAll(err.Error(), "\n", " / "))
	}
}

// awaitWorkers waits until all have learned of the end, or will not.
func (p *publisher) awaitWorkers() {
	done := make(chan struct{})
	go func() {
		p.workers.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
	}
}

func (p *publisher) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = fmt.Fprintf(p.out, format+"\n", args...)
	_ = p.out.Flush()
}

func (p *publisher) run(in *bufio.Scanner) error {
	quiet := slog.New(slog.DiscardHandler)
	store, err := storage.Open(p.job.Dir, storage.Options{ReserveBytes: p.job.Reserve, Logger: quiet})
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	p.log, err = store.OpenLog("main", storage.LogOptions{
		DedupeWindow:   p.job.Dedupe,
		SegmentBytes:   p.job.Segment,
		RetentionAge:   p.job.Age,
		RetentionBytes: p.job.Retention,
		WindowBytes:    p.job.Window,
		Logger:         quiet,
	})
	if err != nil {
		return err
	}
	p.say("open")
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	commands := make(chan struct{})
	go func() {
		defer close(commands)
		defer stop()
		for in.Scan() && p.command(ctx, in.Text()) {
		}
	}()
	if err := p.log.Run(ctx, p.apply); err != nil {
		return err // Close would wait for what never comes
	}
	<-commands
	p.workers.Wait()
	return p.log.Close()
}

// apply answers: the lines of a commit leave in one write, after its answers.
func (p *publisher) apply(c *storage.Commit) {
	for _, a := range c.Answers {
		a.Entry.Done(a.Result)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.out.Flush()
}

// command does what a line says, and returns whether more may follow.
func (p *publisher) command(ctx context.Context, line string) bool {
	var word string
	var a, b int
	_, _ = fmt.Sscan(line, &word, &a, &b)
	switch word {
	case "read":
		if err := p.read(); err != nil {
			p.say("damage %v", err)
		}
	case "write":
		for w := range p.job.Workers {
			p.workers.Go(func() { p.publish(ctx, w) })
		}
	case "publish":
		p.one(ctx, "stored", a, b)
	case "repeat":
		p.one(ctx, "repeated", a, b)
	case "stop":
		return false
	}
	return true
}

// publish is one publisher with an outbox: it begins with the first message that
// was not answered, and after a refusal goes back to the one refused.
func (p *publisher) publish(ctx context.Context, worker int) {
	rng := rand.New(rand.NewPCG(p.job.Seed, uint64(worker)))
	order := new(storage.Order)
	next, resume := p.job.Next[worker], false
	for ctx.Err() == nil {
		entries := make([]*storage.Entry, 1+rng.IntN(p.job.Burst))
		answers := make(chan bool, len(entries))
		for i := range entries {
			e := p.entry("stored", worker, next+i, func(r storage.Result) { answers <- r.Err == nil })
			e.Order, e.Resume = order, resume && i == 0
			entries[i] = e
		}
		if !p.append(ctx, entries) {
			return
		}
		resume = false
		for range entries {
			if <-answers && !resume {
				next++
			} else {
				resume = true
			}
		}
		if resume {
			select { // as a client would
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
}

// append appends some entries one by one and the others as one.
func (p *publisher) append(ctx context.Context, entries []*storage.Entry) bool {
	p.pending.Add(int64(len(entries)))
	for i := range len(entries) / 2 {
		if err := p.log.Append(ctx, entries[i]); err != nil {
			p.pending.Add(int64(i - len(entries)))
			return false
		}
	}
	if rest := entries[len(entries)/2:]; p.log.Append(ctx, rest...) != nil {
		p.pending.Add(-int64(len(rest)))
		return false
	}
	return true
}

// entry returns a message whose answer is printed, and then given to done. The
// line leaves with the commit.
func (p *publisher) entry(word string, worker, seq int, done func(storage.Result)) *storage.Entry {
	m := protocol.Message{ID: idOf(worker, seq), Topic: topicOf(worker, seq), Payload: payloadOf(worker, seq, p.job.Payload)}
	return &storage.Entry{
		Topic:   m.Topic,
		Record:  protocol.AppendRecord(nil, &m),
		Key:     storage.KeyOf(m.Topic, m.ID),
		Payload: storage.PayloadHash(m.Payload),
		Done: func(r storage.Result) {
			p.pending.Add(-1)
			p.mu.Lock()
			if r.Err == nil {
				_, _ = fmt.Fprintln(p.out, word, worker, seq, r.Position, r.Duplicate)
			} else {
				_, _ = fmt.Fprintln(p.out, "refused", worker, seq, r.Err.Code)
			}
			p.mu.Unlock()
			done(r)
		},
	}
}

// one publishes one message and waits for the answer.
func (p *publisher) one(ctx context.Context, word string, worker, seq int) {
	answered := make(chan struct{})
	e := p.entry(word, worker, seq, func(storage.Result) { close(answered) })
	p.pending.Add(1)
	if err := p.log.Append(ctx, e); err != nil {
		p.pending.Add(-1)
		return
	}
	<-answered
}
