package judge

import (
	"context"
	"errors"
	"time"
)

// take writes a frame down and then does what the protocol page tells a client
// to do with it, in this order: a position moves only after its messages were
// handled.
func (s *subscriber) take(ctx context.Context, f any) error {
	var err error
	switch f := f.(type) {
	case *subscribed:
		s.takeSubscribed(f)
	case *deliver:
		err = s.takeDeliver(ctx, f)
	case *caughtUp:
		if u := s.byNumber[f.Sub]; u != nil {
			s.log.add(subEvent{Event: evCaughtUp, At: s.load.now(), Sub: u.index})
			u.caughtUp, s.moved = true, time.Now()
		}
	case *progress:
		s.takeProgress(f)
	case *gap:
		s.takeGap(f)
	case *failure:
		err = s.takeFailure(f)
	case *goAway:
		s.log.add(subEvent{Event: evGoAway, At: s.load.now()})
		s.wait = time.Duration(f.ReconnectAfterMs) * time.Millisecond
		err = errLeave
	}
	return errors.Join(err, s.log.flush())
}

func (s *subscriber) takeSubscribed(f *subscribed) {
	u := s.byNumber[f.Sub]
	if u == nil {
		return
	}
	cursors := f.Cursors
	if len(cursors) == 0 {
		at, _ := parsePlace(f.Position) // a position that cannot be read is the beginning
		cursors = []cursor{{at.partition, at.offset}}
	}
	for _, c := range cursors {
		s.log.add(subEvent{
			Event: evSubscribed, At: s.load.now(), Sub: u.index, From: u.position,
			Position: f.Position, Partition: c.Partition, Offset: c.Offset,
		})
		u.cursors[c.Partition] = c.Offset
	}
	u.position, s.moved = f.Position, time.Now()
}

func (s *subscriber) takeDeliver(ctx context.Context, f *deliver) error {
	u := s.byNumber[f.Sub]
	if u == nil {
		return nil
	}
	if f.After > u.cursors[f.Partition] {
		return s.again(ctx, u, f)
	}
	event := subEvent{
		Event: evDeliver, At: s.load.now(), Sub: u.index, Position: f.Position,
		Partition: f.Partition, After: f.After, Through: f.Through,
	}
	for i := range f.Messages {
		m := &f.Messages[i]
		event.Messages = append(event.Messages, receipt{m.Topic, m.ID, m.Position, m.sum()})
	}
	s.log.add(event)
	s.load.received.Add(int64(len(f.Messages)))
	s.advance(u, f.Partition, f.Through, f.Position)
	return nil
}

// again subscribes anew from the cursor: the frame showed that something
// between is missing.
func (s *subscriber) again(ctx context.Context, u *sub, f *deliver) error {
	s.log.add(subEvent{
		Event: evHole, At: s.load.now(), Sub: u.index, Position: u.position,
		Partition: f.Partition, After: f.After, Through: f.Through,
	})
	delete(s.byNumber, u.number)
	if err := s.conn.send(ctx, unsubscribeForm{"unsubscribe", u.number}); err != nil {
		return err
	}
	form := s.form(u)
	form.Type = "subscribe"
	return s.conn.send(ctx, form)
}

func (s *subscriber) takeProgress(f *progress) {
	for _, number := range f.Subs {
		u := s.byNumber[number]
		if u == nil {
			continue
		}
		s.log.add(subEvent{
			Event: evProgress, At: s.load.now(), Sub: u.index, Position: f.Position,
			Partition: f.Partition, Through: f.Through,
		})
		s.advance(u, f.Partition, f.Through, f.Position)
	}
}

func (s *subscriber) advance(u *sub, partition uint32, through uint64, position string) {
	if through > u.cursors[partition] {
		u.cursors[partition], u.position = through, position
		s.moved = time.Now()
	}
}

func (s *subscriber) takeGap(f *gap) {
	u := s.byNumber[f.Sub]
	if u == nil {
		return
	}
	s.log.add(subEvent{
		Event: evGap, At: s.load.now(), Sub: u.index, Position: f.Position, Partition: f.Partition,
		After: f.After, Through: f.Through, Offset: f.Offset, Reason: f.Reason,
	})
	u.cursors[f.Partition], u.position = f.Offset, f.Position
	s.moved = time.Now()
}

func (s *subscriber) takeFailure(f *failure) error {
	u := s.byNumber[f.Sub]
	if u == nil || f.Retryable {
		return errors.New("the broker answers: " + f.Message) // come again
	}
	s.log.add(subEvent{Event: evRefused, At: s.load.now(), Sub: u.index, Reason: f.Code})
	u.refused = true
	return nil
}
