package server

import (
	"bufio"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// Bounds of a batch, and of the memory that all of them may take: each has at
// most the text of one message, its result and its record in hand, and the ids
// and topics of those that wait to be answered or written. What waits to be
// stored is bounded by the queue of the log.
var (
	batchBytes    = protocol.LimitBatchBytes.Default()
	batchMessages = protocol.LimitBatchMessages.Default()
	batchesAtOnce = protocol.LimitBatches.Default() // others wait
)

const (
	batchInFlight = 1024            // messages whose result is not written
	batchPatience = 5 * time.Second // for their turn
	batchFlush    = 32 << 10        // bytes of results that are written at once
	ndjsonType    = "application/x-ndjson"
	jsonType      = "application/json"
)

// batchTurns lets a few batches run at once.
type batchTurns struct {
	once    sync.Once
	running chan struct{}
}

func (t *batchTurns) enter(ctx context.Context) *protocol.Error {
	t.once.Do(func() { t.running = make(chan struct{}, batchesAtOnce) })
	timer := time.NewTimer(batchPatience)
	defer timer.Stop()
	select {
	case t.running <- struct{}{}:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	err := protocol.Exceeded(protocol.LimitBatches, "too many batches are under way: try again in a moment")
	err.RetryAfter = time.Second
	return err
}

func (t *batchTurns) leave() { <-t.running }

// batchResult is what became of one message of a batch.
type batchResult struct {
	Index int `json:"index"`
	*published
	Error *problem `json:"error,omitempty"`
	Rest  bool     `json:"rest,omitempty"` // Error is about all behind it too
}

// slot is the place of a message's result in the answer. It does not hold the
// message.
type slot struct {
	id, topic string
	until     time.Time           // when the result is given up
	done      chan storage.Result // gets one
	rest      bool                // the batch ends here
}

// batchRun is one batch under way. One goroutine reads and publishes, the
// request's own writes the results, in the order of the messages.
type batchRun struct {
	server  *Server
	w       http.ResponseWriter
	control *http.ResponseController
	who     *broker.Identity
	batch   *broker.Batch
	age     time.Duration
	source  batchSource
	array   bool // the answer is an array, not lines
	slots   chan *slot

	// Of the goroutine that writes.
	written int // results
	begun   bool
	out     []byte
}

// publishBatch is POST /v1/messages: messages of any topics, each with its own
// result.
func (s *Server) publishBatch(w http.ResponseWriter, r *http.Request) {
	run, err := s.openBatch(w, r)
	if err != nil {
		w.Header().Set("Connection", "close") // the body is not worth reading
		writeProblem(w, err)
		return
	}
	defer s.batches.leave()
	// Not the request's context: net/http ends that when a body breaks off, and
	// there is something to say then.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	var reading sync.WaitGroup
	var panicked any
	reading.Go(func() {
		defer close(run.slots)
		defer func() {
			if panicked = recover(); panicked != nil {
				cancel() // nobody answers what is still waited for
			}
		}()
		run.read(ctx)
	})
	if !run.write(ctx) {
		cancel()
		_ = run.control.SetReadDeadline(time.Now()) // wakes the reader
	}
	if reading.Wait(); panicked != nil {
		panic(panicked) // where guard catches it
	}
}

// openBatch checks what can be known before the body comes.
func (s *Server) openBatch(w http.ResponseWriter, r *http.Request) (*batchRun, *protocol.Error) {
	who, err := s.publisher(r)
	if err != nil {
		return nil, err
	}
	if _, err := parseQuery(r); err != nil {
		return nil, err
	}
	array, age, err := batchHeaders(r)
	if err != nil {
		return nil, err
	}
	if r.ContentLength > int64(batchBytes) {
		return nil, protocol.Exceeded(protocol.LimitBatchBytes, "the batch has %d bytes, at most %d are allowed: cut it into several", r.ContentLength, batchBytes)
	}
	if err := s.batches.enter(r.Context()); err != nil {
		return nil, err
	}
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex() // results are written while the body comes
	run := &batchRun{
		server: s, w: w, control: control, who: who, array: array, age: age,
		batch: s.broker.NewBatch(who, age), slots: make(chan *slot, batchInFlight),
	}
	in := bufio.NewReader(&batchBody{body: r.Body, control: control, timeout: s.limits().BodyTimeout})
	if array {
		run.source = &elements{in: in, limit: s.limits().FrameBytes}
	} else {
		run.source = &lines{in: in, limit: s.limits().FrameBytes}
	}
	return run, nil
}

// batchHeaders reads the headers. Those that describe a message have no place
// here, and must not be without effect.
func batchHeaders(r *http.Request) (array bool, age time.Duration, err *protocol.Error) {
	if err := checkEncoding(r); err != nil {
		return false, 0, err
	}
	for name, values := range r.Header {
		if name != headerID && !strings.HasPrefix(name, headerPrefix) {
			continue
		}
		if name != headerAge {
			return false, 0, protocol.Errorf(protocol.CodeInvalidHeader, "the header %.80q has no meaning for a batch: write `id`, `key`, `headers` and the like into each message", name)
		}
		if len(values) > 1 {
			return false, 0, protocol.Errorf(protocol.CodeInvalidHeader, "the header %s is given %d times, give it once", name, len(values))
		}
		if age, err = parseAge(values[0]); err != nil {
			return false, 0, err
		}
	}
	given := r.Header.Get("Content-Type")
	media, params, perr := mime.ParseMediaType(given)
	charset := params["charset"]
	switch {
	case perr != nil || (media != ndjsonType && media != jsonType):
		return false, 0, protocol.Errorf(protocol.CodeUnsupported, "a batch has the Content-Type %s, one message in each line, or %s, an array of messages, not %.80q", ndjsonType, jsonType, given)
	case charset != "" && !strings.EqualFold(charset, "utf-8"):
		return false, 0, protocol.Errorf(protocol.CodeUnsupported, "the batch is said to be in %.40q: send it in UTF-8", charset)
	}
	return media == jsonType, age, nil
}

// read publishes the messages of the body, until it ends or ctx does.
func (b *batchRun) read(ctx context.Context) {
	for n := 0; ; n++ {
		text, bad, err := b.source.next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err == nil {
			err = b.over(n)
		}
		at := &slot{done: make(chan storage.Result, 1), until: time.Now().Add(publishTimeout), rest: err != nil}
		var m protocol.Message
		if err != nil {
			bad = protocol.AsError(err)
			b.server.metrics.limits.Refused(bad)
		} else if bad == nil {
			bad = b.parse(text, &m)
		}
		at.id, at.topic = m.ID, m.Topic
		select {
		case b.slots <- at:
		case <-ctx.Done():
			return
		}
		if bad != nil {
			at.done <- storage.Result{Err: bad}
		} else {
			b.batch.Publish(ctx, &m, func(r storage.Result) { at.done <- r })
		}
		if at.rest {
			return
		}
	}
}

// over returns why the batch ends before its n-th message, counted from 0; nil
// if it goes on.
func (b *batchRun) over(n int) error {
	switch {
	case n >= batchMessages:
		return protocol.Exceeded(protocol.LimitBatchMessages, "a batch has at most %d messages: those from this one on were not taken, send them in another batch", batchMessages)
	case b.server.draining.Load():
		return errDraining
	case !b.who.Expires.IsZero() && !time.Now().Before(b.who.Expires):
		return protocol.Errorf(protocol.CodeTokenExpired, "the token has expired: send the messages from this one on with a new one")
	}
	return nil
}

// parse reads a message.
func (b *batchRun) parse(text []byte, m *protocol.Message) *protocol.Error {
	if err := m.UnmarshalJSON(text); err != nil {
		return protocol.AsError(err)
	}
	if b.age > 0 && m.ID == "" {
		return protocol.Errorf(protocol.CodeInvalidMessage, "%s says that this is a repeat, but without `id` the message would be stored twice: repeat with the id of the first attempt", headerAge)
	}
	return nil
}

// write writes the results, in order, as they come; what has come is written
// together. It reports whether the client took them.
func (b *batchRun) write(ctx context.Context) bool {
	for {
		at, ok := b.slot()
		if !ok {
			return false
		}
		if at == nil {
			return b.end()
		}
		result, ok := b.await(ctx, at)
		if !ok {
			return false
		}
		if at.rest && b.written == 0 {
			b.w.Header().Set("Connection", "close")
			writeProblem(b.w, result.Err)
			return true
		}
		b.add(at, result)
		if len(b.out) >= batchFlush && !b.flush() {
			return false
		}
	}
}

// slot returns the place of the next result, nil at the end. While it has to
// wait it writes what has come before.
func (b *batchRun) slot() (at *slot, ok bool) {
	select {
	case at = <-b.slots:
		return at, true
	default:
	}
	if len(b.out) > 0 && !b.flush() {
		return nil, false
	}
	return <-b.slots, true
}

// end writes what is left.
func (b *batchRun) end() bool {
	switch {
	case b.array && b.written == 0:
		b.out = append(b.out, "[]\n"...)
	case b.array:
		b.out = append(b.out, "]\n"...)
	}
	ok := b.flush()
	_ = b.control.SetWriteDeadline(time.Time{})
	return ok
}

// await returns the result of a message, and writes meanwhile too.
func (b *batchRun) await(ctx context.Context, at *slot) (storage.Result, bool) {
	select {
	case r := <-at.done:
		return r, true
	default:
	}
	if len(b.out) > 0 && !b.flush() {
		return storage.Result{}, false
	}
	timer := time.NewTimer(time.Until(at.until))
	defer timer.Stop()
	select {
	case r := <-at.done:
		return r, true
	case <-timer.C:
		return storage.Result{Err: protocol.Errorf(protocol.CodeUnknown, "the message was not answered in time: repeat it with the same id")}, true
	case <-ctx.Done():
		return storage.Result{}, false
	}
}

// add appends a result to what is to be written.
func (b *batchRun) add(at *slot, r storage.Result) {
	result := batchResult{Index: b.written, Rest: at.rest}
	if r.Err != nil {
		p := problemOf(inBatch(r.Err))
		result.Error = &p
	} else {
		result.published = newPublished(at.id, at.topic, r)
	}
	if b.array {
		b.out = append(b.out, "[,"[min(b.written, 1)])
	}
	b.written++
	b.out = append(appendJSON(b.out, result), '\n')
}

// inBatch says what out_of_order means here: there is no connection to resume.
func inBatch(err *protocol.Error) *protocol.Error {
	if err.Code != protocol.CodeOutOfOrder {
		return err
	}
	return protocol.Errorf(protocol.CodeOutOfOrder, "an earlier message of this batch was refused for now, and this one must not pass it: send all from the first that was refused on again, in another batch")
}

// flush writes what has come, in bounded time.
func (b *batchRun) flush() bool {
	if !b.begun {
		b.begun = true
		b.w.Header().Set("Content-Type", ndjsonType)
		if b.array {
			b.w.Header().Set("Content-Type", jsonType)
		}
		b.w.Header().Set("Cache-Control", "no-store")
		b.w.Header().Set("X-Accel-Buffering", "no")
	}
	ok := b.server.writePart(b.w, b.control, b.out)
	b.out = b.out[:0]
	return ok
}
