package server

import (
	"encoding/json"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// How some events begin. They are told from others by it.
var (
	gapEvent   = []byte("event: gap\n")
	errorEvent = []byte("event: error\ndata: ")
)

// sse is the codec of server-sent events: frames that a stream has no form for
// are empty. It is the same value for all streams, so that they share what is
// encoded.
type sse struct{}

// Subprotocol returns nothing: no WebSocket asks for it.
func (sse) Subprotocol() string { return "" }

// DecodeClient is never called: a stream only goes one way.
func (sse) DecodeClient([]byte, protocol.FrameLimits) (any, error) { return nil, nil }

// AppendServer appends the event of a frame. Subscribed and Progress become an
// id without data: a browser notes it and tells nobody.
func (sse) AppendServer(b []byte, frame any) []byte {
	switch f := frame.(type) {
	case *tidewirev1.Subscribed:
		return append(append(append(b, "id: "...), f.Position...), "\n\n"...)
	case *protocol.Progress:
		return append(f.At.With(f.Others).AppendText(append(b, "id: "...)), "\n\n"...)
	case *tidewirev1.Gap:
		b = append(b, gapEvent...)
		b = append(append(append(b, "id: "...), f.Position...), "\ndata: "...)
		return appendData(b, gapOf(f))
	case *tidewirev1.Error:
		b = append(b, errorEvent...)
		return appendData(b, problemOf(protocol.FrameError(f)))
	case retryIn:
		return f.append(b)
	default:
		return b
	}
}

// AppendDeliverHead appends nothing: a stream has one subscription.
func (sse) AppendDeliverHead(b []byte, _ uint32, _ int) []byte { return b }

// AppendDeliverTail appends an event for each message. An ephemeral one has no
// id: a browser keeps the one it has.
func (sse) AppendDeliverTail(b []byte, c *protocol.Chunk) []byte {
	for m, err := range c.Messages() {
		if err != nil { // chunks are checked when they are read
			break
		}
		text, err := m.MarshalJSON() // one line: JSON escapes line breaks
		if err != nil {
			break
		}
		if !c.Ephemeral() {
			b = append(c.AppendPlace(append(b, "id: "...), m.Position), '\n')
		}
		b = append(b, "data: "...)
		b = append(b, text...)
		b = append(b, "\n\n"...)
	}
	return b
}

// Placed reports true: an id is where the browser comes back to.
func (sse) Placed() bool { return true }

// appendData appends v and ends the event.
func appendData(b []byte, v any) []byte { return append(appendJSON(b, v), "\n\n"...) }

// appendJSON appends v, which is of our own types.
func appendJSON(b []byte, v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return append(b, text...)
}
