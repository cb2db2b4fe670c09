package server

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/protocol"
)

// wire is the net.Conn that gws sees. It owns the write path: whatever gws
// writes after the handshake (answers to pings, close frames) is put aside and
// written by the connection's writer, so that nobody ever waits for a socket.
//
// The writer is a goroutine that exists while there is something to write. It
// takes all that waits at once and hands it to the system in one call.
type wire struct {
	net.Conn
	out     net.Conn // the same, for what takes one call of the system
	timeout time.Duration
	opcode  byte // of data frames
	take    takeFunc
	owner   *conn // who reads; nil during the handshake

	drained atomic.Int64 // when the writer last found nothing to write, in unix nanoseconds

	mu      sync.Mutex
	control []byte // answer to a ping: only the newest is kept
	bye     []byte // close frame, the last thing that is written
	running bool   // the writer exists
	again   bool   // it must look once more before it ends
	closed  bool   // nothing is written any more
	unread  bool   // the reader has gone: the connection can be closed
}

// takeFunc returns the next frames to write. A close frame means that nothing
// comes after them.
type takeFunc func(into []broker.Frame) (frames []broker.Frame, bye []byte)

// start ends the handshake: from now on Write does not write.
func (w *wire) start(owner *conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.owner = owner
}

// Write takes a control frame from gws. During the handshake it writes.
func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	if w.owner == nil {
		w.mu.Unlock()
		return w.Conn.Write(b)
	}
	if len(b) > 0 && b[0] == opClose {
		if w.bye == nil {
			w.bye = append([]byte(nil), b...)
		}
	} else {
		w.control = append(w.control[:0], b...)
	}
	w.mu.Unlock()
	w.kick()
	return len(b), nil
}

// Close is called by gws after its close frame. The writer closes the
// connection when that is out.
func (w *wire) Close() error {
	w.mu.Lock()
	handshake := w.owner == nil
	w.mu.Unlock()
	if handshake {
		return w.Conn.Close()
	}
	return nil
}

// goodbye makes a close frame the last thing that is written.
func (w *wire) goodbye(frame []byte) {
	w.mu.Lock()
	if w.bye == nil {
		w.bye = frame
	}
	w.mu.Unlock()
	w.kick()
}

// abort closes the connection at once; a write under way fails. The session
// ends too, so that work for a client that has gone stops.
func (w *wire) abort() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	_ = w.Conn.Close()
	w.owner.gone()
}

// readerGone says that nothing is read any more. The connection is closed, by
// the writer if a close frame is still to be written.
func (w *wire) readerGone() {
	w.mu.Lock()
	w.unread = true
	last := w.bye != nil && !w.closed
	w.mu.Unlock()
	if !last {
		w.abort()
	}
}

// kick makes sure that the writer looks for something to write.
func (w *wire) kick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running {
		w.again = true
		return
	}
	if !w.closed {
		w.running = true
		go w.write()
	}
}

// rest ends the writer, unless it was kicked meanwhile.
func (w *wire) rest() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.again && !w.closed {
		w.again = false
		return false
	}
	w.running = false
	return true
}

// write is the writer.
func (w *wire) write() {
	b := batches.Get().(*batch)
	defer batches.Put(b)
	for {
		frames, last := w.take(b.frames[:0])
		b.frames = frames
		size := b.load(w.opcode, w.takeControl())
		if size > 0 && !w.flush(b) {
			return
		}
		bye := w.takeBye()
		if bye == nil {
			bye = last // gws comes first: after its verdict the session was closed
		}
		if bye != nil {
			w.finish(bye)
			return
		}
		if size == 0 {
			w.drained.Store(time.Now().UnixNano())
			if w.rest() {
				return
			}
		}
	}
}

// flush writes a batch. A client that does not take it in time is cut off.
func (w *wire) flush(b *batch) bool {
	_ = w.SetWriteDeadline(time.Now().Add(w.timeout))
	n, err := b.buffers.WriteTo(w.out)
	b.clear()
	w.owner.server.metrics.bytesOut.Add(float64(n))
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			w.owner.server.metrics.limits.Met(protocol.LimitWrite)
		}
		w.abort()
	}
	return err == nil
}

// finish writes the close frame and waits a moment for the client to close:
// closing first would let unread input destroy what is still under way.
func (w *wire) finish(bye []byte) {
	const patience = 3 * time.Second
	_ = w.SetWriteDeadline(time.Now().Add(patience))
	_, err := w.Conn.Write(bye)
	w.owner.closed(bye)
	w.mu.Lock()
	w.closed = true
	unread := w.unread
	w.mu.Unlock()
	half, ok := w.Conn.(interface{ CloseWrite() error })
	if err != nil || unread || !ok || half.CloseWrite() != nil {
		_ = w.Conn.Close()
		return
	}
	_ = w.SetReadDeadline(time.Now().Add(patience))
}

func (w *wire) takeControl() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.control
	w.control = nil
	return c
}

func (w *wire) takeBye() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bye
}

// batch is what one write takes: for each frame a WebSocket header and the
// frame's head, which are this connection's own, and its shared tail.
type batch struct {
	frames  []broker.Frame
	heads   []byte
	buffers net.Buffers
	backing net.Buffers // buffers before WriteTo consumed it
}

// batches holds batches that no writer uses, so that a quiet connection has
// none.
var batches = sync.Pool{New: func() any { return new(batch) }}

// load prepares the frames, whose opcode is given, and a control frame before
// them, and returns the number of bytes.
func (b *batch) load(opcode byte, control []byte) int {
	need := len(control)
	for i := range b.frames {
		need += maxHeader + len(b.frames[i].Head())
	}
	if cap(b.heads) < need { // all heads share one piece of memory that must not move
		b.heads = make([]byte, 0, need)
	}
	b.heads = append(b.heads[:0], control...)
	b.buffers = b.backing[:0]
	if len(control) > 0 {
		b.buffers = append(b.buffers, b.heads)
	}
	size := len(control)
	for i := range b.frames {
		f := &b.frames[i]
		from := len(b.heads)
		b.heads = appendHeader(b.heads, opcode, f.Size())
		b.heads = append(b.heads, f.Head()...)
		b.buffers = append(b.buffers, b.heads[from:len(b.heads):len(b.heads)])
		if len(f.Tail) > 0 {
			b.buffers = append(b.buffers, f.Tail)
		}
		size += len(b.heads) - from + len(f.Tail)
	}
	b.backing = b.buffers
	return size
}

// clear drops what was written, so that shared tails can be freed.
func (b *batch) clear() {
	clear(b.frames)
	clear(b.backing)
	if cap(b.frames) > 1024 {
		*b = batch{}
	}
}

// Opcodes of frames that the server writes, with the final bit.
const (
	opText   = 0x81
	opBinary = 0x82
	opClose  = 0x88

	maxHeader = 10 // bytes of a frame header without mask
)

// appendHeader appends the header of an unmasked frame.
func appendHeader(b []byte, opcode byte, size int) []byte {
	switch {
	case size < 126:
		return append(b, opcode, byte(size))
	case size < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, opcode, 126), uint16(size))
	default:
		return binary.BigEndian.AppendUint64(append(b, opcode, 127), uint64(size))
	}
}

// closeFrame returns a close frame. The reason is cut to what a control frame
// may hold.
func closeFrame(code uint16, reason string) []byte {
	const maxReason = 123
	for len(reason) > maxReason { // cut at a character, the text must stay UTF-8
		cut := maxReason
		for cut > 0 && reason[cut]&0xC0 == 0x80 {
			cut--
		}
		reason = reason[:cut]
	}
	b := appendHeader(nil, opClose, 2+len(reason))
	b = binary.BigEndian.AppendUint16(b, code)
	return append(b, reason...)
}
