package main

import (
	"context"
	"io"
	"time"
)

// steady is a reader that takes no more than so many bytes a second. Who sends
// is slowed down with it, and has its disk and processors for others.
type steady struct {
	ctx  context.Context
	r    io.Reader
	rate int64 // not above 0: no bound

	due time.Time // when what has been read should have come
}

func (s *steady) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	if s.rate <= 0 || n == 0 {
		return n, err
	}
	now := time.Now()
	if s.due.Before(now) { // nothing is made up for
		s.due = now
	}
	s.due = s.due.Add(time.Duration(float64(n) / float64(s.rate) * float64(time.Second)))
	if wait := s.due.Sub(now); wait > 10*time.Millisecond {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.ctx.Done():
			return n, context.Cause(s.ctx)
		}
	}
	return n, err
}
