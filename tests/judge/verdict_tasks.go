package judge

import (
	"cmp"
	"slices"
	"strconv"
)

// receive looks at one delivery to a member.
func (l *ledger) receive(e conLine, r *conReceipt) {
	work, faults := &l.report.Work, &l.report.Faults
	work.Receipts++
	i, found := l.byKey[key{r.Topic, r.ID}]
	if !found || !matches(l.plan.Prefix+".>", r.Topic) {
		l.report.fault(&faults.Foreign, "foreign: %s got %s %s, which nobody sent there", l.Name, r.Topic, r.ID)
		return
	}
	m := &l.all[i]
	at, err := parsePlace(r.Position)
	switch {
	case m.sum != r.Sum:
		l.report.fault(&faults.Damaged, "damaged: %s got %s with another payload than was sent", l.Name, m)
	case err != nil:
		l.report.fault(&faults.Damaged, "damaged: %s got %s: %v", l.Name, m, err)
		return
	case m.known && m.at != at:
		l.report.fault(&faults.Doubled, "doubled: %s is at %s, and %s got it at %s", m, m.at, l.Name, at)
	}
	if !m.known {
		m.known, m.at = true, at
		l.byPlace[at] = i
	}
	t := l.task(i)
	now := handed{e.At, r.Attempt, e.chair}
	late := l.overtaken(t, now)
	if t.finished != 0 && (now.chair.opened > t.finished || now.at > t.finished+lateReceipt.Microseconds()) {
		l.report.fault(&faults.Undone, "undone: %s got %s (attempt %d) %d ms after it was confirmed to %s, %d crashes later",
			e.file, m, r.Attempt, (now.at-t.finished)/1000, t.finishedBy, l.lifeAt(now.at)-l.lifeAt(t.finished))
	} else if t.finished != 0 {
		work.Crossed++
	}
	l.judgeAttempt(m, t, now, late)
	// Another member may have settled it while this delivery was on its way.
	if m.order != "" && !l.Unordered && !late && !l.over(t, now) {
		l.judgeKey(e, i, now)
	}
	if l.Exclusive {
		l.judgeHolder(e, now)
	}
	if len(t.receipts) > 0 {
		work.Redelivered++
	}
	t.receipts = append(t.receipts, now)
}

// overtaken: a delivery that was on its way to one member while a later one came
// to another.
func (l *ledger) overtaken(t *task, now handed) bool {
	return slices.ContainsFunc(t.receipts, func(h handed) bool {
		return h.attempt > now.attempt && now.chair != h.chair && now.chair.opened < h.at && now.at-h.at < lateReceipt.Microseconds()
	})
}

// judgeAttempt: the number of a delivery is above those of the deliveries
// before, but for those that a crash may have made the broker forget.
func (l *ledger) judgeAttempt(m *sent, t *task, now handed, late bool) {
	faults := &l.report.Faults
	if now.attempt < 1 || now.attempt > l.MaxDeliver {
		l.report.fault(&faults.Attempts, "wrong attempts: %s got %s as attempt %d of %d", l.Name, m, now.attempt, l.MaxDeliver)
	}
	for _, h := range t.receipts {
		forgotten := h.chair.life < now.chair.life && l.shortBeforeCrash(h)
		if h.attempt >= now.attempt && !forgotten && !late {
			l.report.fault(&faults.Attempts, "wrong attempts: %s got %s as attempt %d and then as attempt %d",
				l.Name, m, h.attempt, now.attempt)
			return
		}
	}
}

// judgeCount: no attempt is counted that was not made. Numbers that nobody saw
// may be those of deliveries to sessions that ended without a goodbye. That can
// be told only at the end, since a delivery may lie unread for a while.
func (l *ledger) judgeCount(m *sent, t *task) {
	if len(t.receipts) == 0 {
		return
	}
	last := slices.MaxFunc(t.receipts, func(a, b handed) int { return cmp.Compare(a.attempt, b.attempt) })
	seen := map[int]bool{}
	for _, h := range t.receipts {
		seen[h.attempt] = true
	}
	hidden := 0
	for _, c := range l.lost { // which the broker may notice later
		if c.opened < last.at && c.ended+lateReceipt.Microseconds() > m.intended {
			hidden++
		}
	}
	if l.plan.Tuning.Nodes { // what a node was granted, and did not deliver before it died
		hidden += len(l.crashes)
	}
	if last.attempt > len(seen)+hidden {
		l.report.fault(&l.report.Faults.Attempts, "wrong attempts: %s got %s as attempt %d of %d deliveries that came, and %d at most were lost on the way",
			l.Name, m, last.attempt, len(seen), hidden)
	}
}

// shortBeforeCrash: the life of the broker that delivered this ended so soon that
// the delivery may not have been written down.
func (l *ledger) shortBeforeCrash(h handed) bool {
	life := h.chair.life
	return life <= len(l.crashes) && h.at > l.crashes[life-1]-forgetful.Microseconds()
}

// judgeKey: within one generation and one life of the broker a key belongs to
// one message until that is done, and the keys' messages come in the order of
// the log.
func (l *ledger) judgeKey(e conLine, i int32, now handed) {
	m, faults := &l.all[i], &l.report.Faults
	own := orderKey{m.order, m.at.partition} // an ordering key is one of a partition
	k := l.keys[own]
	if k == nil {
		k = &taken{message: i}
		l.keys[own] = k
	}
	if first := len(l.task(i).receipts) == 0; first && m.at.offset < k.first {
		l.report.fault(&faults.Reordered, "reordered: %s got %s at %s for the first time after another of its key at offset %d",
			l.Name, m, m.at, k.first)
	}
	k.first = max(k.first, m.at.offset)
	if before := l.task(k.message); k.message != i && k.generation == e.Generation && k.life == now.chair.life && !l.over(before, now) {
		l.report.fault(&faults.Crowded, "crowded key: %s got %s (attempt %d) while %s (attempt %d) of the same key was not done",
			e.file, m, now.attempt, &l.all[k.message], before.receipts[len(before.receipts)-1].attempt)
	}
	k.message, k.generation, k.life = i, e.Generation, now.chair.life
}

// over: the broker may take this message for done.
func (l *ledger) over(t *task, now handed) bool {
	return t.ackSent != 0 && t.ackLife >= now.chair.life || t.rejected != 0 || t.finished != 0 || t.dead != nil || l.usedUp(t, now)
}

// usedUp: the last attempt may have been made. The broker forgets in a crash that
// it was, if nothing of that was on disk yet.
func (l *ledger) usedUp(t *task, now handed) bool {
	if len(t.receipts) == 0 {
		return false
	}
	best := slices.MaxFunc(t.receipts, func(a, b handed) int { return cmp.Compare(a.attempt, b.attempt) })
	attempts := best.attempt
	for _, c := range l.lost { // what was delivered to these nobody saw, and their end ended the attempt
		if c.opened < now.at && c.ended > best.at && c.ended < now.at+noticed.Microseconds() {
			attempts++
		}
	}
	return attempts >= l.MaxDeliver
}

// judgeHolder: a generation of an exclusive consumer belongs to one session.
func (l *ledger) judgeHolder(e conLine, now handed) {
	if e.Generation < l.newest && (now.chair.opened > l.newestAt || now.at > l.newestAt+lateReceipt.Microseconds()) {
		l.report.fault(&l.report.Faults.Unfenced, "not fenced: %s got messages of generation %d, which is over", e.file, e.Generation)
	}
	before := l.holder[e.Generation]
	if before == nil || before.life < now.chair.life {
		l.holder[e.Generation] = now.chair
		return
	}
	if before != now.chair && before.ended > now.at {
		l.report.fault(&l.report.Faults.Unfenced, "not fenced: %s and %s got messages of generation %d",
			before.member, e.file, e.Generation)
	}
}

func (l *ledger) buried(d *deadLetter) {
	faults := &l.report.Faults
	l.report.Work.Dead++
	i, found := l.byKey[key{d.Topic, d.ID}]
	if !found {
		l.report.fault(&faults.Foreign, "foreign: a dead letter of %s is %s %s, which nobody sent", l.Name, d.Topic, d.ID)
		return
	}
	m, t := &l.all[i], l.task(i)
	if t.dead != nil {
		l.report.fault(&faults.Doubled, "doubled: %s has two dead letters of %s", l.Name, m)
		return
	}
	t.dead = d
	attempts, err := strconv.Atoi(d.Attempts)
	if err != nil || d.Reason == "" || d.At == 0 || m.sum != d.Sum || m.known && m.at.String() != d.Position {
		l.report.fault(&faults.Damaged, "damaged: the dead letter of %s tells not what it must: %+v", m, *d)
	}
	t.deadAttempts = attempts
}

// judgeTasks looks at what became of each message in the end.
func (l *ledger) judgeTasks() {
	faults := &l.report.Faults
	for i := range l.all {
		m := &l.all[i]
		t := l.tasks[int32(i)]
		if t == nil {
			t = new(task)
		}
		l.judgeCount(m, t)
		acked := t.acknowledged != 0 || t.ackSent != 0 && t.unneeded
		switch {
		case m.answered && !acked && t.dead == nil && l.gaps == 0:
			l.report.fault(&faults.Forgotten, "forgotten: %s at %s is neither acknowledged nor a dead letter of %s; %d receipts",
				m, m.at, l.Name, len(t.receipts))
		case t.dead == nil:
		case t.rejected == 0 && t.deadAttempts < l.MaxDeliver:
			l.report.fault(&faults.Attempts, "wrong attempts: %s is a dead letter of %s (%s) after %d of %d, and nobody rejected it",
				m, l.Name, t.dead.Reason, t.deadAttempts, l.MaxDeliver)
		case t.acknowledged != 0 && t.dead.At > t.acknowledged+lateReceipt.Microseconds():
			l.report.fault(&faults.Undone, "undone: %s became a dead letter of %s after its acknowledgement was confirmed", m, l.Name)
		}
	}
}
