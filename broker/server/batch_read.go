package server

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// A batchSource splits the body of a batch into messages. next returns the text
// of the next one, valid until the call after; or what is wrong with it alone;
// or [io.EOF] at the end; or the error that ends the batch early.
type batchSource interface {
	next() (text []byte, bad *protocol.Error, err error)
}

// batchBody is the body of a batch. Each part of it has its time to arrive, so
// that nobody holds a place among the batches for ever.
type batchBody struct {
	body    io.Reader
	control *http.ResponseController
	timeout time.Duration
	read    int64
	renew   int64 // the deadline moves when so much is read
}

// Read reads, and turns what goes wrong into what the client is told.
func (b *batchBody) Read(p []byte) (int, error) {
	if b.read >= b.renew {
		b.renew = b.read + writePiece
		_ = b.control.SetReadDeadline(time.Now().Add(b.timeout))
	}
	n, err := b.body.Read(p)
	if b.read += int64(n); b.read > int64(batchBytes) {
		return n, protocol.Exceeded(protocol.LimitBatchBytes, "the batch has more than the %d bytes that are allowed: the messages from this one on were not taken, send them in another batch", batchBytes)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return n, brokenBody(err, b.timeout)
	}
	return n, err
}

// messageTooLarge refuses a text that no message within the limits needs.
func messageTooLarge(limit int) *protocol.Error {
	return protocol.Errorf(protocol.CodePayloadTooLarge, "the text of the message has more than %d bytes", limit)
}

// lines is a body of one message in each line.
type lines struct {
	in    *bufio.Reader
	limit int
	buf   []byte
}

// next returns the next line that is not blank. A last line without a line end
// counts; one that was cut off does not.
func (l *lines) next() ([]byte, *protocol.Error, error) {
	for {
		long, err := l.line()
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return nil, nil, err
		case long:
			return nil, messageTooLarge(l.limit), nil
		case len(bytes.TrimSpace(l.buf)) > 0:
			return l.buf, nil, nil
		case err != nil:
			return nil, nil, io.EOF
		}
	}
}

// line reads a line into buf, of one that is too long only so much.
func (l *lines) line() (long bool, err error) {
	l.buf = l.buf[:0]
	for {
		part, err := l.in.ReadSlice('\n')
		if long = long || len(l.buf)+len(part) > l.limit; !long {
			l.buf = append(l.buf, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return long, err
		}
	}
}

// elements is a body that is a JSON array. It looks only for where elements end:
// a wrong one does not hide those behind it, and a long one is never held.
type elements struct {
	in    *bufio.Reader
	limit int
	buf   []byte
	begun bool
	ended bool
}

// next returns the next element.
func (a *elements) next() ([]byte, *protocol.Error, error) {
	if a.ended {
		return nil, nil, a.end()
	}
	first := !a.begun
	if first {
		if err := a.begin(); err != nil {
			return nil, nil, err
		}
	}
	long, err := a.element()
	switch {
	case errors.Is(err, io.EOF):
		return nil, nil, protocol.Errorf(protocol.CodeBadRequest, "the array does not end: what follows its last whole element was not taken, close it with ']'")
	case err != nil:
		return nil, nil, err
	case long:
		return nil, messageTooLarge(a.limit), nil
	case first && a.ended && len(bytes.TrimSpace(a.buf)) == 0:
		return nil, nil, a.end()
	}
	return a.buf, nil, nil
}

func (a *elements) begin() error {
	c, err := a.skipSpace()
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err != nil || c != '[' {
		return protocol.Errorf(protocol.CodeBadRequest, "the body is no JSON array: send [{\"topic\":...},...], or one message in each line as application/x-ndjson")
	}
	a.begun = true
	return nil
}

// end says that there is nothing more, unless there is.
func (a *elements) end() error {
	_, err := a.skipSpace()
	if err == nil {
		return protocol.Errorf(protocol.CodeBadRequest, "something follows the array: a body is one array")
	}
	return err
}

func (a *elements) skipSpace() (byte, error) {
	for {
		c, err := a.in.ReadByte()
		if err != nil || (c != ' ' && c != '\t' && c != '\r' && c != '\n') {
			return c, err
		}
	}
}

// element reads up to the ',' or ']' that ends an element into buf, of one that
// is too long only so much.
func (a *elements) element() (long bool, err error) {
	a.buf = a.buf[:0]
	depth, text, escaped := 0, false, false
	for {
		c, err := a.in.ReadByte()
		if err != nil {
			return long, err
		}
		switch {
		case text:
			text = escaped || c != '"'
			escaped = !escaped && c == '\\'
		case c == '"':
			text = true
		case c == '[' || c == '{':
			depth++
		case depth == 0 && (c == ',' || c == ']'):
			a.ended = c == ']'
			return long, nil
		case c == ']' || c == '}':
			depth = max(depth-1, 0)
		}
		if long = long || len(a.buf) == a.limit; !long {
			a.buf = append(a.buf, c)
		}
	}
}
