package kafka

import (
	"encoding/hex"
	"strconv"
	"time"
)

// A Record is one entry of a partition. Offset is that of Kafka, which begins
// at 0, and means nothing to a producer. A nil Key or Value is Kafka's null,
// which is something else than an empty one. Time has milliseconds.
//
// The bytes of a fetched record share memory with its neighbours: who keeps
// one for long copies it.
type Record struct {
	Offset  int64
	Time    time.Time
	Key     []byte
	Value   []byte
	Headers []Header
}

// A Header belongs to a record. Keys may repeat; a nil Value is null.
type Header struct {
	Key   string
	Value []byte
}

// A Batch is what a producer appended in one piece. It takes the offsets from
// Base to Last, of which some may have no record: those of control batches, or
// those that compaction took away. Records below the offset that was asked for
// are left out.
type Batch struct {
	Base, Last    int64
	Epoch         int32     // of the leader that appended it
	MaxTime       time.Time // of its newest record; the moment of the append if AppendTime
	AppendTime    bool      // the topic stamps records itself; their own times are as the producer set them
	Transactional bool      // of a transaction, which may have been aborted
	Control       bool      // a marker of Kafka; it has no Records
	Bad           error     // the batch cannot be read, by anybody: what its records were is unknown
	Records       []Record
}

// A TopicID is what Kafka gives a topic when it is created. A topic that is
// deleted and created again under its old name has another one.
type TopicID [16]byte

// String returns the id in hexadecimal.
func (id TopicID) String() string { return hex.EncodeToString(id[:]) }

// A Partition is named by its topic and number.
type Partition struct {
	Topic  string
	Number int32
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }
