package storage

import (
	"crypto/sha256"
	"errors"
	"log/slog"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidewire/tidewire/protocol"
)

// ErrTrimmed says that retention has removed what was asked for; [Log.Bounds]
// tells where the log begins now.
var ErrTrimmed = errors.New("storage: removed by retention")

// Options says how to open a [Store]. The zero value is useful.
type Options struct {
	// ReserveBytes are kept free on the disk, so that trimming and sealing can
	// go on when it is full. Default 64 MiB; negative for none.
	ReserveBytes int64
	Logger       *slog.Logger // default slog.Default
}

// LogOptions says how to open a [Log]. The zero value is useful.
type LogOptions struct {
	DedupeWindow   int           // ids that are remembered, fixed with the log; default what it has, 1,000,000 for a new one
	Filters        []string      // of the stream's topics; kept with it, so that a change is told
	SegmentBytes   int64         // size at which a segment is sealed; default 128 MiB, at most a quarter of RetentionBytes
	RetentionAge   time.Duration // default 7 days; negative to keep for ever
	RetentionBytes int64         // default 10 GiB; negative for no bound
	PerTopic       int           // only the newest so many of each topic are given; 0 for no bound
	WindowBytes    int64         // recent blocks kept in memory; default 64 MiB
	OpenSegments   int           // sealed segments whose files are kept open; default 128
	Vital          bool          // it may grow while the disk is full: what is written helps to get over that
	Registerer     prometheus.Registerer
	Logger         *slog.Logger     // default slog.Default
	Now            func() time.Time // default time.Now
}

// An Entry is one publish on its way into the log.
type Entry struct {
	Topic string

	// Record is what [protocol.AppendRecord] made, its place still blank. It
	// belongs to the log from Append on.
	Record []byte

	// Key and Payload identify the message and its content for dedupe, see
	// [KeyOf] and [PayloadHash]. Key is zero for a message without an id.
	Key     DedupeKey
	Payload uint64

	// FirstAttempt is set on a repeat: when the same message was first tried.
	FirstAttempt time.Time

	// Order is shared by the entries of one publisher whose order must hold over
	// refusals; nil if there is none. Resume says that the publisher repeats from
	// the refused entry on: from here order holds again.
	Order  *Order
	Resume bool

	// Received is when the broker took it, for measuring. The log does not look
	// at it.
	Received time.Time

	// Done takes the result. The function given to [Log.Run] calls it, once, in
	// the order of the log; it must not block. The log never calls it.
	Done func(Result)

	mark bool // it takes an offset and stores nothing; it has no answer
}

// A DedupeKey stands for a message id on a topic.
type DedupeKey [16]byte

// KeyOf returns the key of a message id on a topic. It is a truncated SHA-256,
// so that nobody can make an id that collides with a stranger's.
func KeyOf(topic, id string) DedupeKey {
	var buf [512]byte
	b := append(buf[:0], topic...)
	b = append(b, 0)
	b = append(b, id...)
	sum := sha256.Sum256(b)
	return DedupeKey(sum[:16])
}

// PayloadHash returns the hash by which a payload is told from another one that
// comes with the same id.
func PayloadHash(payload []byte) uint64 { return xxhash.Sum64(payload) }

// A Result is what became of an [Entry].
type Result struct {
	Position  protocol.Position // where it is stored; of the first if it is a duplicate
	Duplicate bool
	Err       *protocol.Error // id_conflict, repeat_too_old, storage_full, outcome_unknown
}

// A Commit is what one batch did to the log. It is shared and never changed.
type Commit struct {
	// Chunk has every record that was stored. After is the head before, Through
	// the head now: repeats take offsets too.
	Chunk protocol.Chunk

	// Topics has the topic of each record in the chunk, in order.
	Topics []string

	// Answers has the result of every entry of the batch, refused ones too, in
	// the order of Append.
	Answers []Answer
}

// An Answer is the result of one entry.
type Answer struct {
	Entry  *Entry
	Result Result
}

// A Query asks for the records in (After, Through] that match.
type Query struct {
	Filter   protocol.Filter
	After    uint64
	Through  uint64 // 0 stands for the head
	MaxBytes int    // 0 stands for 64 KiB

	// If Picked is set only the records at Offsets are wanted, which increase:
	// what [Log.Newest] named.
	Picked  bool
	Offsets []uint64
}

// Resolved is where a subscription begins: after the offset After. If Gap is
// not nil the subscriber must be told of it first.
//
// Whoever begins elsewhere than at a position lost nothing by what retention by
// count has hidden before: up to the offset Quiet it need not be told. For many
// topics that bound is generous: some of what lies below was hidden later.
//
// After may lie before the earliest stored offset, if retention has passed the
// place to which a rolled back position leads: the first Read then returns
// [ErrTrimmed], as for any reader that retention overtakes.
type Resolved struct {
	After uint64
	Gap   *Gap
	Quiet uint64
	Ahead bool // After is above the head: see [Replica.Resolve]
}

// A Gap tells what cannot be given: the offsets in (After, Through], counted
// from Term on. Deliveries go on after Next. With other_log the log knows
// nothing of the range: After and Through are both the offset that was asked
// for.
type Gap struct {
	Reason  string // one of the constants below
	Term    protocol.Term
	After   uint64
	Through uint64
	Next    uint64
}

// The reasons of a [Gap].
const (
	GapRetention  = "retention"   // removed by retention
	GapRolledBack = "rolled_back" // the log was put back to an earlier state
	GapOtherLog   = "other_log"   // the position is from another log
	GapPassedOver = "passed_over" // damaged on disk
)
