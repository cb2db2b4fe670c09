package disk_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// message names a message: the worker that published it and its number.
type message struct{ worker, seq int }

func (m message) String() string { return idOf(m.worker, m.seq) }

// place is where a message was said or seen to be.
type place struct {
	message
	position string
	repeat   bool // the answer was "duplicate"
}

// reading is what one read printed.
type reading struct {
	earliest, head uint64
	records        []place
}

// event is an answer, or the beginning or the end of a reading.
type event struct {
	word    string
	place   place
	reading *reading
}

// life is what one run of the process under test printed.
type life struct {
	proc *process
	in   interface{ Write([]byte) (int, error) }

	mu      sync.Mutex
	changed *sync.Cond
	events  []event
	counts  map[string]int // of the lines, by their first word
	refused map[string]int // by code
	late    int            // answers "stored" behind an outcome_unknown
	current *reading
	damage  []string
	failed  string
	left    string // entries without an answer after the failure
	ended   bool
}

// patience is how long a test waits for what a process should do.
const patience = time.Minute

func (m *machine) live(t *testing.T, j job) *life {
	t.Helper()
	first, err := json.Marshal(j)
	must(t, err)
	l := &life{refused: map[string]int{}, counts: map[string]int{}}
	l.changed = sync.NewCond(&l.mu)
	l.proc, l.in = startTalking(t, "store", l.line)
	go func() {
		<-l.proc.closed
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ended = true
		l.changed.Broadcast()
	}()
	l.say(string(first))
	return l
}

// say sends a line. If the process is gone, its end tells.
func (l *life) say(format string, args ...any) {
	_, _ = fmt.Fprintf(l.in, format+"\n", args...)
}

// line takes in a line of output.
func (l *life) line(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	word, rest, _ := strings.Cut(text, " ")
	l.counts[word]++
	var p place
	var code string
	switch word {
	case "open":
	case "bounds":
		l.current = new(reading)
		_, _ = fmt.Sscan(rest, &l.current.earliest, &l.current.head)
		l.events = append(l.events, event{word: word, reading: l.current})
	case "record":
		_, _ = fmt.Sscan(rest, &p.worker, &p.seq, &p.position)
		l.current.records = append(l.current.records, p)
		return // nobody waits for one
	case "end":
		l.events = append(l.events, event{word: word, reading: l.current})
	case "stored", "repeated":
		_, _ = fmt.Sscan(rest, &p.worker, &p.seq, &p.position, &p.repeat)
		l.events = append(l.events, event{word: word, place: p})
		if l.refused["outcome_unknown"] > 0 {
			l.late++
		}
	case "refused":
		_, _ = fmt.Sscan(rest, &p.worker, &p.seq, &code)
		l.refused[code]++
	case "failed":
		l.failed = rest
	case "unanswered":
		l.left = rest
	default: // "damage", and anything unexpected
		l.damage = append(l.damage, text)
	}
	l.changed.Broadcast()
}

// await waits until the condition holds, something is wrong, the process has
// ended or patience is at an end, and returns whether the condition holds.
func (l *life) await(holds func() bool) bool {
	timer := time.AfterFunc(patience, func() { _ = l.proc.cmd.Process.Kill() })
	defer timer.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for !holds() && !l.ended && len(l.damage) == 0 {
		l.changed.Wait()
	}
	return holds()
}

// awaitCount waits until so many lines with the word have come.
func (l *life) awaitCount(word string, n int) bool {
	return l.await(func() bool { return l.counts[word] >= n })
}

// count returns how many lines with the word have come.
func (l *life) count(word string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts[word]
}

// read makes the process read everything and waits for it.
func (l *life) read() error {
	n := l.count("end")
	l.say("read")
	if !l.awaitCount("end", n+1) {
		return l.verdict(errors.New("the log cannot be read"))
	}
	return l.verdict(nil)
}

// verdict returns what the process said was wrong, or err.
func (l *life) verdict(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.damage) > 0 {
		return fmt.Errorf("damage: %s", strings.Join(l.damage[:min(3, len(l.damage))], "; "))
	}
	if err != nil && l.failed != "" {
		return fmt.Errorf("%w: %s", err, l.failed)
	}
	return err
}

// history is all that the process under test has ever answered, over its lives.
// It judges what it answers and shows in the next one.
type history struct {
	stored   map[message]string // position by answer
	next     []int              // for each worker, the first message not answered
	earliest uint64
	answered uint64 // the highest offset in an answer
	trims    bool   // retention may take the oldest
}

func newHistory(workers int) *history {
	return &history{stored: map[message]string{}, next: make([]int, workers), earliest: 1}
}

// absorb judges a life, as far as it went, and adds its answers.
func (h *history) absorb(l *life) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.damage) > 0 {
		return fmt.Errorf("damage: %s", l.damage[0])
	}
	var before map[message]string // the messages that were there when it began
	for _, e := range l.events {
		var err error
		switch e.word {
		case "bounds":
			err = h.begin(e.reading)
		case "end":
			var seen map[message]string
			if seen, err = h.judge(e.reading); before == nil {
				before = seen
			}
		case "stored":
			err = h.add(e.place, before)
		case "repeated":
			if want := h.stored[e.place.message]; !e.place.repeat || e.place.position != want {
				err = fmt.Errorf("message %v was repeated: answered %s, duplicate %v; the first is at %s", e.place.message, e.place.position, e.place.repeat, want)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// begin judges the bounds of a reading against the answers so far.
func (h *history) begin(r *reading) error {
	if r.head < h.answered {
		return fmt.Errorf("LOST: the log ends at %d, but %d was answered", r.head, h.answered)
	}
	if r.earliest < h.earliest || !h.trims && r.earliest != 1 {
		return fmt.Errorf("the log begins at %d, before at %d", r.earliest, h.earliest)
	}
	h.earliest = r.earliest
	return nil
}

// judge compares what is stored with what was answered.
func (h *history) judge(r *reading) (map[message]string, error) {
	seen := make(map[message]string, len(r.records))
	last := map[int]int{}
	for _, p := range r.records {
		if old, twice := seen[p.message]; twice {
			return nil, fmt.Errorf("message %v is stored twice: %s and %s", p.message, old, p.position)
		}
		seen[p.message] = p.position
		if n, more := last[p.worker]; more && p.seq != n+1 || !more && p.seq != 0 && !h.trims {
			return nil, fmt.Errorf("message %v is stored behind number %d of its publisher", p.message, n)
		}
		last[p.worker] = p.seq
		if want, answered := h.stored[p.message]; answered && want != p.position {
			return nil, fmt.Errorf("message %v is at %s, it was answered with %s", p.message, p.position, want)
		}
	}
	for m, position := range h.stored {
		offset := offsetOf(position)
		if _, there := seen[m]; !there && offset >= r.earliest && offset <= r.head {
			return nil, fmt.Errorf("LOST: message %v was answered with %s; the log has %d to %d", m, position, r.earliest, r.head)
		}
	}
	return seen, nil
}

// add takes in an answer.
func (h *history) add(p place, before map[message]string) error {
	if p.seq != h.next[p.worker] {
		return fmt.Errorf("message %v was answered, number %d should be next", p.message, h.next[p.worker])
	}
	old, known := before[p.message]
	switch {
	case p.repeat && known && old != p.position:
		return fmt.Errorf("message %v was answered as a duplicate of %s, it is at %s", p.message, p.position, old)
	case !p.repeat && known:
		return fmt.Errorf("message %v was stored again at %s, it is at %s", p.message, p.position, old)
	}
	h.next[p.worker]++
	h.stored[p.message] = p.position
	h.answered = max(h.answered, offsetOf(p.position))
	return nil
}

func offsetOf(position string) uint64 {
	var offset uint64
	_, digits, _ := strings.Cut(position, "-")
	_, _ = fmt.Sscan(digits, &offset)
	return offset
}
