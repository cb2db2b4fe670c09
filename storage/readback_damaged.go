package storage

import (
	"errors"
	"slices"

	"github.com/tidewire/tidewire/protocol"
)

// damagedStride is how many offsets are read forwards at once where reading
// backwards has met damage.
const damagedStride = 1024

// readBackDamaged reads the newest matches in (floor, through] where a segment
// is damaged. It reads a stretch of the log forwards, which knows the way around
// damage, and keeps the end of it: what lies behind the last damage. If that
// reaches through, all that is said is what is lost. The naive way, to go
// backwards over what a survey has found, would be a second reader of damaged
// segments to keep right, for what hardly ever happens.
func (l *core) readBackDamaged(q Query, floor, through uint64, n int) (protocol.Chunk, error) {
	after := floor
	if through-floor > damagedStride {
		after = through - damagedStride
	}
	out := protocol.Chunk{Partition: l.partition, Term: l.terms.at(through), After: after, Through: through}
	var records [][]byte // framed
	bytes := 0
	for after < through {
		c, err := l.Read(Query{Filter: q.Filter, After: after, Through: through, MaxBytes: q.MaxBytes})
		if lost, ok := errors.AsType[*LostError](err); ok {
			if lost.Through >= through {
				return protocol.Chunk{}, &LostError{After: lost.After, Through: through}
			}
			after, out.After = lost.Through, lost.Through
			records, bytes = records[:0], 0
			continue
		}
		if earliest, _ := l.Bounds(); errors.Is(err, ErrTrimmed) && earliest <= through { // meanwhile
			after, out.After = earliest-1, earliest-1
			records, bytes = records[:0], 0
			continue
		}
		if err != nil {
			return protocol.Chunk{}, err
		}
		after = c.Through
		out.Hidden = append(out.Hidden, c.Hidden...)
		for _, framed := range c.Framed() {
			records = append(records, framed)
			bytes += len(framed)
		}
		for len(records) > 1 && (len(records) > n || bytes-len(records[0]) >= q.MaxBytes) {
			record, _, _ := protocol.NextFramed(records[0])
			out.After, _ = protocol.RecordPlace(record)
			bytes -= len(records[0])
			records = records[1:]
		}
	}
	below, _ := slices.BinarySearch(out.Hidden, out.After+1)
	out.Hidden = out.Hidden[below:]
	out.Count, out.Records = len(records), slices.Concat(records...)
	return out, nil
}
