package consumer

import "github.com/tidewire/tidewire/protocol"

// A Source is where a consumer's messages come from.
type Source uint8

// The sources. Both lie in the consumer's stream.
const (
	Main    Source = iota // what matches its filter
	Redrive               // its dead letters that were given back to it
	sources
)

// A State says what an entry is about to do.
type State uint8

// The states of an entry.
const (
	InFlight State = iota // delivered; Due is when its ack wait ends
	Waiting               // to be delivered again; Due is from when on
	Held                  // another message of its key goes first; Due is from when on it could go, apart from that
	Dying                 // to be stored as a dead letter
	states
)

// String is the state as people and programs read it.
func (s State) String() string {
	if s >= states {
		return "unknown"
	}
	return [...]string{"in_flight", "waiting", "held", "dying"}[s]
}

// An Entry is a message that was taken and is not done.
type Entry struct {
	Offset   uint64 // its place: in a stream of several partitions see [PlaceIn]
	Source   Source
	State    State
	Key      uint64 // hash of its ordering key, 0 for none
	Size     int    // bytes
	Attempts int    // deliveries begun
	Due      int64  // see the states
	First    int64  // when it was delivered first; 0 if never
	Reason   string // why the last attempt failed; "" if none did
	Holder   uint64 // the member to which it is in flight; 0 if nobody knows. In memory only
}

// entry is an Entry in its lists. It stands in the list of its source; in
// `flying` or `waiting` at `at`; and in the chain of its key, or, when it is
// dying, in the list of those.
type entry struct {
	Entry

	at    int
	chain *chain
	own   links
	other links
}

type links struct{ prev, next *entry }

// list is entries in a row. Of the two pairs of links that an entry has, a list
// uses always the same.
type list struct {
	head, tail *entry
}

func ownLinks(e *entry) *links   { return &e.own }
func otherLinks(e *entry) *links { return &e.other }

// push puts e at the end. What is pending of a source in a partition comes in the
// order of its offsets, and a key is that of a partition; so all lists are sorted.
func (l *list) push(e *entry, of func(*entry) *links) {
	*of(e) = links{prev: l.tail}
	if l.tail != nil {
		of(l.tail).next = e
	} else {
		l.head = e
	}
	l.tail = e
}

func (l *list) remove(e *entry, of func(*entry) *links) {
	own := of(e)
	if own.prev != nil {
		of(own.prev).next = own.next
	} else {
		l.head = own.next
	}
	if own.next != nil {
		of(own.next).prev = own.prev
	} else {
		l.tail = own.prev
	}
	*own = links{}
}

// chain is all entries of one ordering key that are not dying, by source, and
// how many of them are in flight or waiting: those have the key. Held entries
// wait until nobody has it.
type chain struct {
	of   [sources]list
	busy int
}

// first is the entry of the lowest offset, nil if there is none.
func (c *chain) first() *entry { return lower(c.of[Main].head, c.of[Redrive].head) }

// lower returns the one of the lower offset; either may be nil.
func lower(a, b *entry) *entry {
	if a == nil || b != nil && b.Offset < a.Offset {
		return b
	}
	return a
}

// An Outcome is what became of an answer to a message.
type Outcome uint8

// The outcomes.
const (
	Done    Outcome = iota // it counts
	Already                // the message was done before
	Fenced                 // the answer is of another generation
	Unknown                // the message was never delivered
)

// Code is the code for programs, "" if the answer counts.
func (o Outcome) Code() protocol.Code {
	switch o {
	case Done:
		return ""
	case Already:
		return protocol.CodeNotPending
	case Fenced:
		return protocol.CodeFenced
	default:
		return protocol.CodeNeverDelivered
	}
}
