package broker

import (
	"errors"

	"github.com/tidewire/tidewire/storage"
)

// gapOf describes what cannot be given above a cursor if that is what a read of
// the log ended with, else nil.
func (b *Broker) gapOf(cursor uint64, err error) *storage.Gap {
	if errors.Is(err, storage.ErrTrimmed) {
		return b.trimmedGap(cursor)
	}
	lost, ok := errors.AsType[*storage.LostError](err)
	if !ok {
		return nil
	}
	return &storage.Gap{
		Reason: storage.GapPassedOver, Term: b.log.PositionOf(lost.Through).Term,
		After: lost.After, Through: lost.Through, Next: lost.Through,
	}
}

// trimmedGap describes what retention took above a cursor.
func (b *Broker) trimmedGap(cursor uint64) *storage.Gap {
	earliest, _ := b.log.Bounds()
	last := earliest - 1
	return &storage.Gap{
		Reason: storage.GapRetention, Term: b.log.PositionOf(last).Term,
		After: cursor, Through: last, Next: last,
	}
}
