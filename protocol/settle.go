package protocol

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Limits of one request that settles.
const (
	MaxSettleRanges = 10_000
	MaxReasonBytes  = 1024
	MaxExtend       = 12 * time.Hour
)

// SettleKind tells the frames apart that settle what a consumer delivered.
type SettleKind uint8

// The kinds of [Settle].
const (
	SettleAck    SettleKind = iota // done
	SettleNack                     // to be delivered again
	SettleExtend                   // still being worked on
	SettleReject                   // never to be delivered again: a dead letter
)

// settleKinds are the names of the kinds, which are those of their frames.
var settleKinds = [...]string{"ack", "nack", "extend", "reject"}

// String returns the kind as the type of its frame.
func (k SettleKind) String() string { return settleKinds[k] }

// ParseSettleKind returns the kind whose frame has this type, if there is one.
func ParseSettleKind(frameType string) (SettleKind, bool) {
	for i, name := range settleKinds {
		if name == frameType {
			return SettleKind(i), true
		}
	}
	return 0, false
}

// An OffsetRange is some messages of one partition: From up to and including
// Through.
type OffsetRange struct {
	Partition uint32
	From      uint64 // above 0
	Through   uint64 // From or more
}

// Settle is the frame Ack, Nack, Extend or Reject: what a member of a consumer
// says of messages that it got. It is answered by *tidewirev1.Acked.
type Settle struct {
	Kind       SettleKind
	Ref        uint32
	Sub        uint32
	Generation uint64 // of the delivery; 0 stands for the current one
	Term       Term   // of all the messages
	Ranges     []OffsetRange
	UpTo       bool // of an ack: what else is in flight up to the last offset, too
	Confirm    bool // answer when it is stored

	// Delay is, of a nack, how long to wait before the next delivery, and of an
	// extend the time to settle from now on, above 0; nil means as the consumer's
	// settings say.
	Delay  *time.Duration
	Reason string // of a reject
}

// Check returns nil if the broker may take s.
func (s *Settle) Check() *Error {
	switch {
	case len(s.Ranges) == 0:
		return Errorf(CodeBadRequest, "the %s names no message: give the places of at least one", s.Kind)
	case s.Term == 0:
		return Errorf(CodeBadRequest, "the %s has no `term`: give that of the deliver frame", s.Kind)
	case s.Kind == SettleExtend && s.Delay != nil && *s.Delay > MaxExtend:
		return Exceeded(LimitExtend, "the extend is by %v, at most %v are allowed: extend again before the time is over", *s.Delay, MaxExtend)
	}
	if err := checkRanges(s.Kind, len(s.Ranges)); err != nil {
		return err
	}
	for _, r := range s.Ranges {
		switch {
		case r.From == 0 || r.Through > MaxOffset:
			return Errorf(CodeBadRequest, "the %s has the range from %d through %d: offsets are numbers from 1 to %d", s.Kind, r.From, r.Through, uint64(MaxOffset))
		case r.From > r.Through:
			return Errorf(CodeBadRequest, "the %s has a range from %d that ends before it, at %d", s.Kind, r.From, r.Through)
		}
	}
	return checkText(s.Reason, MaxReasonBytes, CodeBadRequest, "reason")
}

// checkRanges refuses too many ranges, before anything is allocated for them.
func checkRanges(kind SettleKind, n int) *Error {
	if n > MaxSettleRanges {
		return Exceeded(LimitSettle, "the %s has %d ranges, at most %d are allowed: send several", kind, n, MaxSettleRanges)
	}
	return nil
}

// setDelay keeps a number of milliseconds as the delay. An extend by 0 means the
// time of the settings.
func (s *Settle) setDelay(ms uint64) {
	s.Delay = nil
	switch {
	case s.Kind == SettleNack, s.Kind == SettleExtend && ms > 0:
		s.Delay = new(repeatAge(ms))
	}
}

// refuse makes the refusal of s.
func (s *Settle) refuse(err *Error) error {
	return &RequestError{Request: s.Kind.String(), Ref: s.Ref, Sub: s.Sub, Err: err}
}

// Field numbers of Ack, Nack, Extend and Reject; those up to fieldConfirm are
// the same in all of them, but for up_to, which is of Ack alone.
const (
	fieldRef        = 1
	fieldSub        = 2
	fieldGeneration = 3
	fieldTerm       = 4
	fieldRanges     = 5
	fieldUpTo       = 6
	fieldConfirm    = 7
	fieldDelay      = 8 // of Nack and Extend
	fieldReason     = 8 // of Reject
)

// A settleReader reads the fields of a frame. What is wrong with one of them is
// kept until all are read, since the number of the request may stand behind it.
type settleReader struct {
	Settle
	skip    bool // the ranges, of which there are too many
	term    string
	refused *Error
}

// decodeSettle reads a frame of the kind.
func decodeSettle(kind SettleKind, b []byte) (any, error) {
	s := settleReader{Settle: Settle{Kind: kind}}
	n := countField(b, fieldRanges)
	if s.refused = checkRanges(kind, n); s.refused != nil {
		s.skip = true
	} else {
		s.Ranges = make([]OffsetRange, 0, n)
	}
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return nil, badFrame(errNotProtobuf)
		}
		if err := s.setField(f); err != nil {
			return nil, badFrame(err)
		}
		b = rest
	}
	if s.term != "" && s.refused == nil {
		if s.Term, s.refused = wireTerm(s.term); s.refused != nil {
			s.refused.Code = CodeBadRequest
		}
	}
	if s.refused == nil {
		s.refused = s.Check()
	}
	if s.refused != nil {
		return nil, s.refuse(s.refused)
	}
	return &s.Settle, nil
}

func (s *settleReader) setField(f field) error {
	switch f.typ {
	case protowire.VarintType:
		s.setVarint(f.num, f.varint())
	case protowire.BytesType:
		return s.setBytes(f.num, f.bytes())
	}
	return nil
}

func (s *settleReader) setVarint(num protowire.Number, v uint64) {
	switch num {
	case fieldRef:
		s.Ref = uint32(v)
	case fieldSub:
		s.Sub = uint32(v)
	case fieldGeneration:
		s.Generation = v
	case fieldUpTo:
		s.UpTo = s.Kind == SettleAck && v != 0
	case fieldConfirm:
		s.Confirm = v != 0
	case fieldDelay:
		s.setDelay(v)
	}
}

func (s *settleReader) setBytes(num protowire.Number, v []byte) error {
	switch {
	case num == fieldTerm:
		s.term = string(v)
	case num == fieldReason && s.Kind == SettleReject:
		s.Reason = string(v)
	case num == fieldRanges && !s.skip:
		r, ok := parseRange(v)
		if !ok {
			return errNotProtobuf
		}
		s.Ranges = append(s.Ranges, r)
	}
	return nil
}

// parseRange reads an OffsetRange.
func parseRange(b []byte) (r OffsetRange, ok bool) {
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return OffsetRange{}, false
		}
		if f.typ == protowire.VarintType {
			switch f.num {
			case 1:
				r.Partition = uint32(f.varint())
			case 2:
				r.From = f.varint()
			case 3:
				r.Through = f.varint()
			}
		}
		b = rest
	}
	if r.Through == 0 {
		r.Through = r.From
	}
	return r, true
}

// appendSettle appends a ClientFrame that holds s.
func appendSettle(b []byte, s *Settle) []byte {
	var body []byte
	body = appendUint(body, fieldRef, uint64(s.Ref))
	body = appendUint(body, fieldSub, uint64(s.Sub))
	body = appendUint(body, fieldGeneration, s.Generation)
	if s.Term != 0 {
		body = appendText(body, fieldTerm, s.Term.String())
	}
	for _, r := range s.Ranges {
		if r.Through == r.From {
			r.Through = 0
		}
		body = protowire.AppendTag(body, fieldRanges, protowire.BytesType)
		body = protowire.AppendVarint(body, uint64(uintSize(uint64(r.Partition))+uintSize(r.From)+uintSize(r.Through)))
		body = appendUint(body, 1, uint64(r.Partition))
		body = appendUint(body, 2, r.From)
		body = appendUint(body, 3, r.Through)
	}
	if s.UpTo && s.Kind == SettleAck {
		body = appendUint(body, fieldUpTo, 1)
	}
	if s.Confirm {
		body = appendUint(body, fieldConfirm, 1)
	}
	switch s.Kind {
	case SettleNack:
		if s.Delay != nil { // 0 too, which means at once
			body = protowire.AppendTag(body, fieldDelay, protowire.VarintType)
			body = protowire.AppendVarint(body, wireMillis(*s.Delay))
		}
	case SettleExtend:
		if s.Delay != nil {
			body = appendUint(body, fieldDelay, wireMillis(*s.Delay))
		}
	case SettleReject:
		body = appendText(body, fieldReason, s.Reason)
	}
	b = protowire.AppendTag(b, clientAck+protowire.Number(s.Kind), protowire.BytesType)
	return protowire.AppendBytes(b, body)
}

// wireMillis rounds a time up to milliseconds; below 0 is 0.
func wireMillis(d time.Duration) uint64 {
	ms := d / time.Millisecond
	if d%time.Millisecond > 0 {
		ms++
	}
	return uint64(max(ms, 0))
}
