package broker

import (
	"slices"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// Retention by count hides single messages, between others that are given. So a
// reader is not told a range, but how many the part of the log that comes next
// lacks: a gap that moves no cursor, right before the frame that does. Whoever is
// cut off between the two asks again from before, and is told again.

// untold is what a subscription is still to be told of.
type untold struct {
	missed uint64 // ephemeral messages that came while it was not live
	hidden uint64 // messages above told, up to cursor, that retention by count hides
	quiet  uint64 // what it hides up to this offset is not told: it was hidden when the subscription began
}

// hiddenAbove returns how many of the offsets, which increase, lie above one.
func hiddenAbove(hidden []uint64, offset uint64) uint64 {
	at, _ := slices.BinarySearch(hidden, offset+1)
	return uint64(len(hidden) - at)
}

// tellHidden tells a subscription what the frame that comes next lacks. Callers
// hold mu.
func (s *Session) tellHidden(sub *part) {
	if sub.hidden == 0 {
		return
	}
	at := sub.partition.log.PositionOf(sub.told)
	s.out.push(s.codec.AppendServer(nil, sub.placed(sub.partition.countedGap(sub.number, storage.GapRetention, at, sub.hidden), at)))
	sub.hidden = 0
}

// countedGap is a gap of so many messages, of which none can be named. The range
// is empty, and the client's cursor stays.
func (pt *partition) countedGap(sub uint32, reason string, at protocol.Position, missed uint64) *tidewirev1.Gap {
	pt.broker.metrics.gaps.WithLabelValues(reason).Inc()
	return &tidewirev1.Gap{
		Sub: sub, Reason: reason, Partition: at.Partition, Term: at.Term.String(),
		After: at.Offset, Through: at.Offset, Position: at.String(), Offset: at.Offset, Missed: missed,
	}
}
