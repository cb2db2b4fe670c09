package judge

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// Verdict reads the files of a run and counts. It needs memory for each message
// once (some 200 bytes) and a bit for each message and subscription; the
// receipts pass by.
func Verdict(dir string) (*Report, error) {
	plan, err := loadPlan(dir)
	if err != nil {
		return nil, err
	}
	v := &verdict{plan: plan, byKey: map[key]int32{}}
	if err := v.readAll(filepath.Join(dir, "pub-*.jsonl"), v.readPublisher); err != nil {
		return nil, err
	}
	if err := v.readAll(filepath.Join(dir, "sub-*.jsonl"), v.readSubscriber); err != nil {
		return nil, err
	}
	v.judgeStored()
	v.judgeGaps()
	v.judgeLost()
	if err := v.judgeConsumers(dir); err != nil {
		return nil, err
	}
	return &v.report, nil
}

type key struct{ topic, id string }

// sent is one message that was sent at least once.
type sent struct {
	key
	publisher string // its file
	sum       uint32
	order     string // its ordering key
	tries     int
	intended  int64 // first attempt
	at        place // as answered, or else as delivered
	known     bool  // at is set
	answered  bool
	seen      int64 // the last time that it was delivered to anybody
}

// cover is one subscription, read from its file.
type cover struct {
	want
	name       string
	started    map[uint32]uint64 // everything after these offsets is to come
	subscribed int64             // when that was known; 0 = never
	cursors    map[uint32]uint64
	newest     map[uint32]uint64 // highest offset received
	got        bits
	gaps       []toldGap
	waited     bool // until it had everything, or in vain
}

type toldGap struct {
	at             int64
	partition      uint32
	reason         string
	after, through uint64
}

func (g *toldGap) covers(p place) bool {
	return g.partition == p.partition && p.offset > g.after && p.offset <= g.through
}

type verdict struct {
	plan   Plan
	report Report
	all    []sent // of each publisher in the order of sending
	byKey  map[key]int32
	covers []*cover
}

// readAll gives each line of each file to a reader made for that file. A torn
// last line is left out: the judge was killed while it wrote it.
func (v *verdict) readAll(pattern string, reader func(name string) (line func([]byte) error, end func())) error {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return fmt.Errorf("find the files of the run: %w", err)
	}
	for _, file := range files {
		line, end := reader(filepath.Base(file))
		if err := eachLine(file, line); err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		end()
	}
	return nil
}

func eachLine(file string, line func([]byte) error) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // was only read
	r := bufio.NewReaderSize(f, 1<<20)
	for n := 1; ; n++ {
		text, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = line(bytes.TrimSuffix(text, []byte("\n")))
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
}

func (v *verdict) readPublisher(name string) (func([]byte) error, func()) {
	ended := false
	line := func(text []byte) error {
		var e pubEvent
		if err := json.Unmarshal(text, &e); err != nil {
			return err
		}
		switch e.Event {
		case evIntent:
			v.intent(name, &e)
		case evAnswer:
			return v.answer(name, &e)
		case evRefused:
			v.refused(name, e.Code, e.Topic+" "+e.ID)
		case evReconnect:
			v.report.Traffic.Reconnects++
		case evEnd:
			ended = true
			if !e.Complete {
				v.report.fault(&v.report.Faults.Stuck, "stuck: %s waited for answers in vain", name)
			}
		}
		return nil
	}
	return line, func() { v.end(ended) }
}

func (v *verdict) end(ended bool) {
	if !ended {
		v.report.Traffic.CutShort++
	}
}

func (v *verdict) intent(publisher string, e *pubEvent) {
	k := key{e.Topic, e.ID}
	i, found := v.byKey[k]
	if !found {
		i = int32(len(v.all))
		v.byKey[k] = i
		v.all = append(v.all, sent{key: k, publisher: publisher, order: e.Key, sum: e.Sum, intended: e.At})
		v.report.Traffic.Published++
	} else {
		v.report.Traffic.Repeats++
	}
	v.all[i].tries++
}

func (v *verdict) answer(name string, e *pubEvent) error {
	i, found := v.byKey[key{e.Topic, e.ID}]
	if !found {
		return fmt.Errorf("%s %s was answered but never sent", e.Topic, e.ID)
	}
	m, faults := &v.all[i], &v.report.Faults
	at, err := parsePlace(e.Position)
	switch {
	case err != nil:
		v.report.fault(&faults.Refused, "refused: %s was answered about %s: %v", name, m, err)
		return nil
	case m.answered && (at != m.at || !e.Duplicate):
		v.report.fault(&faults.WrongDuplicates, "wrong duplicate: %s was answered with %s, then with %s", m, m.at, at)
	case !m.answered && e.Duplicate && m.tries == 1:
		v.report.fault(&faults.WrongDuplicates, "wrong duplicate: the first answer to %s says that it is one", m)
	}
	if e.Duplicate {
		v.report.Traffic.Duplicates++
	}
	if !m.answered {
		m.answered, m.known, m.at = true, true, at
		v.report.Traffic.Answered++
	}
	return nil
}

func (v *verdict) refused(name, code, what string) {
	counter := &v.report.Faults.Refused
	if code == "id_conflict" {
		counter = &v.report.Faults.Conflicts
	}
	v.report.fault(counter, "refused: %s got %s for %s", name, code, what)
}

func (m *sent) String() string { return m.topic + " " + m.id }

func (p place) String() string {
	if p.partition != 0 {
		return fmt.Sprintf("p%s-%d_%d", p.term, p.partition, p.offset)
	}
	return fmt.Sprintf("p%s-%d", p.term, p.offset)
}

// judgeStored looks at the log as the answers and deliveries show it: one
// message at each place, and those of a publisher in its order.
func (v *verdict) judgeStored() {
	type lane struct {
		publisher string
		partition uint32
	}
	last := map[lane]*sent{}
	var placed []*sent
	for i := range v.all {
		m := &v.all[i]
		if !m.answered {
			v.report.Traffic.Unanswered++
			if m.known {
				v.report.Traffic.UnansweredDelivered++
			}
		}
		if !m.known {
			continue
		}
		placed = append(placed, m)
		l := lane{m.publisher, m.at.partition}
		if before := last[l]; before != nil && before.at.offset > m.at.offset {
			v.report.fault(&v.report.Faults.Reordered, "reordered: %s sent %s before %s, but they are stored at %s and %s",
				m.publisher, before, m, before.at, m.at)
		} else {
			last[l] = m
		}
	}
	slices.SortFunc(placed, func(a, b *sent) int {
		return cmp.Or(cmp.Compare(a.at.partition, b.at.partition), cmp.Compare(a.at.offset, b.at.offset))
	})
	for i := 1; i < len(placed); i++ {
		a, b := placed[i-1], placed[i]
		if a.at.partition == b.at.partition && a.at.offset == b.at.offset {
			v.report.fault(&v.report.Faults.Conflicts, "conflict: %s and %s are both at %s", a, b, a.at)
		}
	}
}
