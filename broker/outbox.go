package broker

import "github.com/tidewire/tidewire/protocol"

// Frame is one encoded frame: one WebSocket message or one server-sent event.
// It is Head followed by Tail; Tail may be shared with other sessions and must
// not be changed.
type Frame struct {
	head     [40]byte
	headSize uint8
	Tail     []byte
}

// Head returns the first part of the frame.
func (f *Frame) Head() []byte { return f.head[:f.headSize] }

// Size returns the bytes of the frame.
func (f *Frame) Size() int { return int(f.headSize) + len(f.Tail) }

// frameOverhead is what a waiting frame takes beside its bytes. It counts, so
// that many small frames are no way around the limits.
const frameOverhead = 96

// costOf is what a waiting frame of so many bytes takes at most: memory is given
// out in sizes that are up to an eighth apart. So the limits bound memory.
func costOf(size int) int { return size + size/8 + frameOverhead }

func (f *Frame) cost() int { return costOf(f.Size()) }

// outbox is what waits to be written to a session, in order. It is guarded by
// its session. Empty it holds next to no memory.
type outbox struct {
	frames  []Frame
	next    int // index of the first frame that was not taken
	bytes   int // cost of the frames that wait
	writing int // cost of the frames that were taken last and are being written
}

// size returns the bytes that the session holds for its client.
func (o *outbox) size() int { return o.bytes + o.writing }

// push appends a frame that belongs to this session alone.
func (o *outbox) push(body []byte) {
	if len(body) == 0 {
		return // the codec has no form for it
	}
	o.frames = append(o.frames, Frame{Tail: body})
	o.bytes += costOf(len(body))
}

// pushDeliver appends a Deliver frame, whose tail may be shared, and returns its
// bytes.
func (o *outbox) pushDeliver(codec protocol.Codec, sub uint32, tail []byte) int {
	o.frames = append(o.frames, Frame{Tail: tail})
	f := &o.frames[len(o.frames)-1]
	f.headSize = uint8(len(codec.AppendDeliverHead(f.head[:0], sub, len(tail))))
	o.bytes += f.cost()
	return f.Size()
}

// take appends waiting frames to into, at most about maxTakeBytes of them.
func (o *outbox) take(into []Frame) []Frame {
	taken := 0
	for o.next < len(o.frames) && taken < maxTakeBytes {
		f := &o.frames[o.next]
		taken += f.cost()
		into = append(into, *f)
		*f = Frame{}
		o.next++
	}
	o.bytes -= taken
	o.writing += taken
	switch {
	case o.next < len(o.frames)/2:
	case o.next < len(o.frames): // what is left moves to the front, so that the slice does not creep on
		n := copy(o.frames, o.frames[o.next:])
		clear(o.frames[n:])
		o.frames, o.next = o.frames[:n], 0
	case cap(o.frames) > keptFrames:
		o.frames, o.next = nil, 0
	default:
		o.frames, o.next = o.frames[:0], 0
	}
	return into
}

// keptFrames is how much of its slice an empty outbox keeps.
const keptFrames = 4

// written says that what was taken is out.
func (o *outbox) written() { o.writing = 0 }

// clear drops what waits.
func (o *outbox) clear() {
	o.frames, o.next, o.bytes = nil, 0, 0
}
