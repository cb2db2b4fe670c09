package bridge

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
)

// Times of health.
const (
	singAfter   = 15 * time.Second // without a record of this node that came back, a canary is written
	singAgain   = time.Second      // between canaries while an outcome is unknown
	silentAfter = 5 * time.Second  // after which a canary that has not come back is told
	stuckAfter  = 5 * time.Second  // without a sync, after which the copy is told to be stuck
	tellEvery   = 5 * time.Second  // progress while catching up
)

// status is what is known of a partition, for readiness and for those who wait.
type status struct {
	mu      sync.Mutex
	halted  error     // why nothing is applied any more
	reading error     // why reading fails
	since   time.Time // when that began
	mark    Mark
	ends
	song
	moved chan struct{} // closed, and replaced, when something is applied
	asked chan struct{} // has a token when somebody waits for an offset
}

// ends are offsets of ours.
type ends struct {
	end      uint64 // of Kafka, as far as is known
	met      bool   // end was told at all
	first    uint64 // the head when the partition was opened
	head     uint64 // what is applied and handed over
	read     uint64 // what was read, without a message above head
	want     uint64 // what somebody waits for
	target   uint64 // Kafka's end when reading began
	caughtUp bool
	told     time.Time // when progress was last logged
}

// song is what is known of this node's own records.
type song struct {
	back   time.Time // when one last came back
	sung   time.Time // when the last canary was written
	silent time.Time // when the first one was written since then
}

func newStatus(head uint64, mark Mark) status {
	return status{mark: mark, ends: ends{first: head, head: head, read: head}, song: song{back: time.Now()}, moved: make(chan struct{}), asked: make(chan struct{}, 1)}
}

// reached notes where Kafka ends.
func (s *status) reached(end int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reading = nil
	if !s.met {
		s.met, s.target = true, uint64(max(end, 0))
	}
	s.end = uint64(max(end, 0))
}

// failing notes that reading fails.
func (s *status) failing(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reading == nil {
		s.since = time.Now()
	}
	s.reading = err
}

// applied notes what was handed over, and what was read. It reports whether that
// is all that was there when reading began, the first time that it is.
func (s *status) applied(head uint64, n note) (caughtUp bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read, s.mark = max(head, n.head), n.mark
	if head > s.head {
		s.head = head
		close(s.moved)
		s.moved = make(chan struct{})
	}
	caughtUp = !s.caughtUp && s.met && s.read >= s.target
	s.caughtUp = s.caughtUp || caughtUp
	return caughtUp
}

// restarted notes that the copy begins anew behind an offset.
func (s *status) restarted(head uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.first, s.head, s.read = head, head, head
}

// place returns what is applied, and what is closed when that changes.
func (s *status) place() (head uint64, moved <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.head, s.moved
}

// ask says that somebody waits for an offset.
func (s *status) ask(offset uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.want = max(s.want, offset)
	poke(s.asked)
}

// wanted returns the highest offset that somebody waits for.
func (s *status) wanted() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.want
}

// known returns Kafka's end as far as it is known.
func (s *status) known() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end
}

func (s *status) halt(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.halted = err
}

func (s *status) haltedBy() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.halted
}

func (s *status) lastMark() Mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mark
}

// heard notes that a record of this node came back.
func (s *status) heard(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.back = now
}

// mustSing reports whether a canary is due, and notes that it is written. If the
// outcome of something is unknown one comes soon: what it overtakes is settled.
func (s *status) mustSing(now time.Time, unknown bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	due := !now.Before(s.back.Add(singAfter)) && !now.Before(s.sung.Add(singAfter)) || unknown && !now.Before(s.sung.Add(singAgain))
	if s.halted != nil || !due {
		return false
	}
	s.sung = now
	if !s.silent.After(s.back) {
		s.silent = now
	}
	return true
}

// progress returns a line about catching up if one is due, else "".
func (s *status) progress(now time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.caughtUp || !s.met || now.Before(s.told.Add(tellEvery)) {
		return ""
	}
	s.told = now
	return s.catchingUp()
}

// catchingUp says how far the copy has come. Callers hold mu.
func (s *status) catchingUp() string {
	done, all := s.read-min(s.first, s.read), s.target-min(s.first, s.target)
	return fmt.Sprintf("catching up: %d %% (%d of %d offsets)", done*100/max(all, 1), done, all)
}

// ready returns nil, or why the partition does not do all its work.
func (s *status) ready(now time.Time, unsynced time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.halted != nil:
		return s.halted
	case !s.met && s.reading != nil:
		return fmt.Errorf("reading from Kafka fails: %w", s.reading)
	case !s.met:
		return errors.New("nothing was heard of Kafka yet")
	case !s.caughtUp:
		return errors.New(s.catchingUp())
	case !unsynced.IsZero() && now.Sub(unsynced) >= stuckAfter:
		return fmt.Errorf("the disk has not taken anything for %v", now.Sub(unsynced).Round(time.Second))
	}
	return nil
}

// degraded returns why nothing goes to Kafka or comes from there, or "".
func (s *status) degraded(now time.Time, writing error) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.reading != nil:
		return fmt.Sprintf("Kafka cannot be read since %v ago: %v", now.Sub(s.since).Round(time.Second), s.reading)
	case writing != nil:
		return fmt.Sprintf("Kafka does not take what is published: %v", writing)
	case s.silent.After(s.back) && now.Sub(s.silent) >= silentAfter:
		return fmt.Sprintf("what is written to Kafka does not come back since %v", now.Sub(s.back).Round(time.Second))
	}
	return ""
}

// lasting reports whether an error of Kafka needs somebody who changes something.
func lasting(err error) bool {
	kind := kafka.KindOf(err)
	return kind != "" && !kind.Retryable()
}
