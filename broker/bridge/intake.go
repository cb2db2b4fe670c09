package bridge

import (
	"fmt"

	"github.com/tidewire/tidewire/broker/bridge/kafka"
	"github.com/tidewire/tidewire/storage"
)

// intake turns what is read from a partition of Kafka into what its copy
// applies. It has no clock and no chance: what it makes of the same batches does
// not depend on how they are cut into calls. One goroutine uses it.
//
// After a crash the copy may have more than the newest note speaks of. Then the
// batches from the note on are read again: what the copy has is judged, so that
// the rules know it, and not applied a second time.
type intake struct {
	rules *rules
	note  note
	head  uint64 // of the copy
}

// A Refused record is none of the stream's messages.
type Refused struct {
	Reason    Reason
	Partition kafka.Partition
	Record    kafka.Record // shares memory with its neighbours; has only an offset if it cannot be read
}

// judged is called for each record: it returns who waits for the answer, or nil.
type judged func(rec *kafka.Record, v *verdict) (done func(storage.Result))

// maxJump is how far offsets may jump. Kafka leaves small holes where
// transactions ended; nothing that a stream may do leaves larger ones.
const maxJump = 100 * storage.MaxHole

// take returns the items of batches that follow what was taken before.
func (in *intake) take(batches []kafka.Batch, tell judged) (items []storage.Item, err error) {
	var last *kafka.Record
	room := 0
	for i := range batches {
		room += len(batches[i].Records) + 1
	}
	items = make([]storage.Item, 0, room)
	for i := range batches {
		b := &batches[i]
		end := offsetOf(b.Last)
		if end <= in.note.head {
			continue
		}
		if end-in.note.head > maxJump {
			return nil, fmt.Errorf("the offsets of Kafka jump from %d to %d, which a topic without compaction does not do", in.note.head, b.Last)
		}
		if b.Bad != nil {
			tell(&kafka.Record{Offset: max(b.Base, int64(in.note.head))}, &verdict{reason: Unreadable})
		}
		for j := range b.Records {
			rec := &b.Records[j]
			if offsetOf(rec.Offset) <= in.note.head {
				continue
			}
			items = in.record(items, rec, b.Transactional, tell)
			last = rec
			in.note.mark.Epoch = b.Epoch
		}
		items = in.slots(items, end)
		in.note.head = end
	}
	if last != nil {
		in.note.mark.Offset, in.note.mark.Checksum = last.Offset, checksum(last)
	}
	return items, nil
}

// record judges one record.
func (in *intake) record(items []storage.Item, rec *kafka.Record, transactional bool, tell judged) []storage.Item {
	offset := offsetOf(rec.Offset)
	items = in.slots(items, offset-1)
	in.note.head = offset
	v := in.rules.judge(rec, transactional)
	done := tell(rec, &v)
	if offset <= in.head {
		return items
	}
	it := storage.Item{Offset: offset, Time: v.micros}
	if v.reason == Accepted {
		it.Entry = v.entry()
		it.Entry.Done = done
	}
	return append(items, it)
}

// slots adds items without a record, so that the last one has the offset and none
// is too far behind the one before.
func (in *intake) slots(items []storage.Item, offset uint64) []storage.Item {
	at := max(in.note.head, in.head)
	if len(items) > 0 {
		at = items[len(items)-1].Offset
	}
	for offset > at {
		at = min(at+storage.MaxHole, offset)
		items = append(items, storage.Item{Offset: at})
	}
	return items
}

// encoded is the note to be stored with the items that take returned last.
func (in *intake) encoded() []byte { return encodeNote(in.note, &in.rules.sequences) }
