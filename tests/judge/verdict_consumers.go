package judge

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

const (
	// lateReceipt is how long a delivery may lie unread between the broker and
	// a session that is older than what has overtaken it.
	lateReceipt = 2 * time.Second
	// noticed is how much later than the broker a member may notice the end of
	// its session.
	noticed = 500 * time.Millisecond
	// forgetful is how long before a crash deliveries may have been that the
	// broker has not written down: it does not wait for that.
	forgetful = 2 * time.Second
)

// chair is one session of a member, or one fetch, read from its file.
type chair struct {
	member string
	opened int64
	ended  int64
	clean  bool
	life   int // of the broker: how many crashes lie before
}

// conLine is an event with the session that it belongs to.
type conLine struct {
	*conEvent
	file  string
	chair *chair
}

// task is one message in the eyes of one consumer.
type task struct {
	receipts   []handed
	ackSent    int64 // the first acknowledgement; 0 = none
	ackLife    int   // life of the broker in which the last one was sent, from 1 on
	rejected   int64 // sent
	finished   int64 // an acknowledgement or a reject was confirmed; 0 = none
	finishedBy string
	// acknowledged is when an acknowledgement was.
	acknowledged int64
	unneeded     bool // answered as settled before
	dead         *deadLetter
	deadAttempts int
}

type handed struct {
	at      int64
	attempt int
	chair   *chair
}

// ledger is one consumer, read from the files of its members.
type ledger struct {
	*verdict
	Consumer
	crashes []int64
	lines   []conLine
	lost    []*chair        // that ended without a goodbye
	tasks   map[int32]*task // by message number
	byPlace map[place]int32
	asked   map[string]*request // by file and number
	// newest is the highest generation that anybody got, since newestAt.
	newest   uint64
	newestAt int64
	holder   map[uint64]*chair // of an exclusive consumer, by generation
	keys     map[orderKey]*taken
	gaps     int
}

// request is a settlement that was sent.
type request struct {
	kind      string
	confirm   bool // without it an answer comes too, if something is refused, but promises nothing
	messages  []int32
	outdated  bool // its generation was known to be over
	positions []string
	// fresh are the messages that had come in the same life of the broker.
	fresh map[int32]bool
}

// orderKey is an ordering key in a partition.
type orderKey struct {
	key       string
	partition uint32
}

// taken is an ordering key that a message holds in one generation and life.
type taken struct {
	message    int32
	generation uint64
	life       int
	first      uint64 // highest offset whose first delivery was seen
}

// judgeConsumers reads the files of the members. Unlike those of subscribers it
// keeps them in memory, since what one member does is judged by what another got.
func (v *verdict) judgeConsumers(dir string) error {
	if len(v.plan.Consumers) == 0 {
		return nil
	}
	crashes, err := readCrashes(filepath.Join(dir, crashFile))
	if err != nil {
		return err
	}
	for i, c := range v.plan.Consumers {
		l := &ledger{
			verdict: v, Consumer: c, crashes: crashes, tasks: map[int32]*task{}, byPlace: map[place]int32{},
			asked: map[string]*request{}, holder: map[uint64]*chair{}, keys: map[orderKey]*taken{},
		}
		pattern := filepath.Join(dir, fmt.Sprintf("con-%02d-*.jsonl", i))
		if err := v.readAll(pattern, l.reader); err != nil {
			return err
		}
		l.judge()
	}
	return nil
}

func readCrashes(file string) (at []int64, err error) {
	err = eachLine(file, func(text []byte) error {
		var e conEvent
		if err := json.Unmarshal(text, &e); err != nil {
			return err
		}
		at = append(at, e.At)
		return nil
	})
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return at, err
}

// reader takes the lines of one member, of a fetcher, or of the group itself.
func (l *ledger) reader(name string) (func([]byte) error, func()) {
	var now *chair
	ended := false
	line := func(text []byte) error {
		e := new(conEvent)
		if err := json.Unmarshal(text, e); err != nil {
			return err
		}
		switch e.Event {
		case evJoin:
			now = l.newChair(name, e.At)
		case evLeave:
			now.ended, now.clean = e.At, e.Clean
			if !e.Clean {
				l.lost = append(l.lost, now)
				l.report.Work.Lost++
			}
		case evEnd:
			ended = true
			if !e.Complete {
				l.report.fault(&l.report.Faults.Stuck, "stuck: the consumer %s has not come to its end", l.Name)
			}
		case evReceive, evSettle, evSettled, evDead, evRefused, evGap:
			l.lines = append(l.lines, conLine{e, name, now})
		}
		return nil
	}
	return line, func() { l.end(ended) }
}

func (l *ledger) newChair(member string, opened int64) *chair {
	l.report.Work.Sessions++
	return &chair{member: member, opened: opened, ended: math.MaxInt64, life: l.lifeAt(opened)}
}

// lifeAt counts the lives of the broker, from 1 on.
func (l *ledger) lifeAt(at int64) int {
	before, _ := slices.BinarySearch(l.crashes, at)
	return 1 + before
}

// judge goes through everything in the order in which it happened: a request is
// written down before it is sent, a receipt after it came, so what caused
// something comes before it.
func (l *ledger) judge() {
	for i := range l.all {
		if m := &l.all[i]; m.known {
			l.byPlace[m.at] = int32(i)
		}
	}
	slices.SortStableFunc(l.lines, func(a, b conLine) int { return cmp.Compare(a.At, b.At) })
	for _, e := range l.lines { // for whoever was finished by a dead letter is so before that was read
		for i := range e.Dead {
			l.buried(&e.Dead[i])
		}
	}
	for _, e := range l.lines {
		switch e.Event {
		case evReceive:
			for i := range e.Messages {
				l.receive(e, &e.Messages[i])
			}
			if e.Generation > l.newest {
				l.newest, l.newestAt = e.Generation, e.At
			}
		case evSettle:
			l.settle(e)
		case evSettled:
			l.settled(e)
		case evRefused:
			l.refused(e.file, e.Code, "the consumer "+l.Name)
		case evGap:
			l.gaps++
			if !l.plan.Tuning.Retention {
				l.report.fault(&l.report.Faults.FalseGaps, "false gap: %s was told of one (%s)", l.Name, e.Code)
			}
		}
	}
	l.judgeTasks()
}

func (l *ledger) task(i int32) *task {
	t := l.tasks[i]
	if t == nil {
		t = new(task)
		l.tasks[i] = t
	}
	return t
}

func (l *ledger) settle(e conLine) {
	q := &request{kind: e.Kind, confirm: e.Confirm, positions: e.Positions, fresh: map[int32]bool{}}
	q.outdated = e.Generation != 0 && e.Generation < l.newest
	l.asked[e.file+strconv.Itoa(int(e.Ref))] = q
	for _, text := range e.Positions {
		at, err := parsePlace(text)
		i, found := l.byPlace[at]
		if err != nil || !found {
			continue // it was told when it came
		}
		q.messages = append(q.messages, i)
		t := l.task(i)
		q.fresh[i] = slices.ContainsFunc(t.receipts, func(h handed) bool { return h.chair.life >= l.lifeAt(e.At) })
		switch e.Kind {
		case kindAck:
			t.ackSent, t.ackLife = cmp.Or(t.ackSent, e.At), l.lifeAt(e.At)
		case kindReject:
			t.rejected = cmp.Or(t.rejected, e.At)
		}
	}
}

// changes: the generation does while there are members, so that answers may come
// too late for theirs.
func (l *ledger) changes() bool { return l.Exclusive || l.plan.Tuning.Nodes }

func (l *ledger) settled(e conLine) {
	q := l.asked[e.file+strconv.Itoa(int(e.Ref))]
	switch {
	case q == nil:
		return
	case e.Code != "":
		if e.Code != "fenced" && e.Code != "taken_over" || !l.changes() {
			l.refused(e.file, e.Code, q.kind+" for the consumer "+l.Name)
		}
		return
	}
	good := 0
	for _, i := range q.messages {
		code := refusalOf(l.all[i].at, e.Refused)
		if code == "" {
			good++
			l.confirmed(e, q, i)
		} else {
			l.turnedDown(e, q, i, code)
		}
	}
	if q.outdated && good > 0 {
		l.report.fault(&l.report.Faults.Unfenced, "not fenced: %s of %v was taken though its generation was over", q.kind, q.positions)
	}
	if e.Settled >= 0 && e.Settled != good && len(q.messages) == len(q.positions) {
		l.report.fault(&l.report.Faults.Refused, "refused: %d of %v are settled, it says, but refuses %d of them",
			e.Settled, q.positions, len(q.positions)-good)
	}
}

func (l *ledger) confirmed(e conLine, q *request, i int32) {
	t := l.task(i)
	if !q.confirm {
		return
	}
	if (q.kind == kindAck || q.kind == kindReject) && t.finished == 0 {
		t.finished, t.finishedBy = e.At, e.file+" "+q.kind
		l.report.Work.Confirmed++
	}
	if q.kind == kindAck && t.acknowledged == 0 {
		t.acknowledged = e.At
	}
}

// turnedDown: a refusal must be one that what happened before explains.
func (l *ledger) turnedDown(e conLine, q *request, i int32, code string) {
	switch code {
	case "not_pending":
		l.task(i).unneeded = true
		l.report.Work.NotPending++
		return
	case "fenced":
		l.report.Work.Fenced++
		if l.changes() {
			return
		}
	case "never_delivered": // which a crash may make of it
		if !q.fresh[i] {
			return
		}
	}
	l.refused(e.file, code, q.kind+" of "+l.all[i].String())
}
