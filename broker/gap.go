package broker

import (
	"errors"

	"github.com/tidewire/tidewire/storage"
)

// gapOf describes what cannot be given above a cursor if that is what a read of
// the log ended with, else nil.
func (pt *partition) gapOf(cursor uint64, err error) *storage.Gap {
	if errors.Is(err, storage.ErrTrimmed) {
		return pt.trimmedGap(cursor)
	}
	lost, ok := errors.AsType[*storage.LostError](err)
	if !ok {
		return nil
	}
	return &storage.Gap{
		Reason: storage.GapPassedOver, Term: pt.log.PositionOf(lost.Through).Term,
		After: lost.After, Through: lost.Through, Next: lost.Through,
	}
}

// trimmedGap describes what retention took above a cursor.
func (pt *partition) trimmedGap(cursor uint64) *storage.Gap {
	earliest, _ := pt.log.Bounds()
	last := earliest - 1
	return &storage.Gap{
		Reason: storage.GapRetention, Term: pt.log.PositionOf(last).Term,
		After: cursor, Through: last, Next: last,
	}
}
