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

// outbox is what waits to be written to a session, in order. It is guarded by
// its session, and empty it holds no memory.
type outbox struct {
	frames  []Frame
	next    int // index of the first frame that was not taken
	bytes   int // of the frames that wait
	writing int // of the frames that were taken last and are being written
}

// size returns the bytes that the session holds for its client.
func (o *outbox) size() int { return o.bytes + o.writing }

// push appends a frame that belongs to this session alone.
func (o *outbox) push(body []byte) {
	if len(body) == 0 {
		return // the codec has no form for it
	}
	o.frames = append(o.frames, Frame{Tail: body})
	o.bytes += len(body)
}

// pushDeliver appends a Deliver frame with a shared tail.
func (o *outbox) pushDeliver(codec protocol.Codec, sub uint32, tail []byte) {
	o.frames = append(o.frames, Frame{Tail: tail})
	f := &o.frames[len(o.frames)-1]
	f.headSize = uint8(len(codec.AppendDeliverHead(f.head[:0], sub, len(tail))))
	o.bytes += f.Size()
}

// take appends waiting frames to into, at most about maxBytes of them.
func (o *outbox) take(into []Frame, maxBytes int) []Frame {
	taken := 0
	for o.next < len(o.frames) && taken < maxBytes {
		f := &o.frames[o.next]
		taken += f.Size()
		into = append(into, *f)
		*f = Frame{}
		o.next++
	}
	o.bytes -= taken
	o.writing += taken
	if o.next == len(o.frames) {
		o.next = 0
		o.frames = o.frames[:0]
		if cap(o.frames) > 64 {
			o.frames = nil
		}
	}
	return into
}

// written says that what was taken is out.
func (o *outbox) written() { o.writing = 0 }

// clear drops what waits.
func (o *outbox) clear() {
	o.frames, o.next, o.bytes = nil, 0, 0
}
