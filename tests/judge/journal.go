package judge

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// A publisher's file has these events, one JSON object a line.
const (
	evIntent    = "intent"    // about to be sent, for the first time or again
	evAnswer    = "answer"    // stored, says the broker
	evRefused   = "refused"   // a message or the connection, with the code
	evReconnect = "reconnect" // a connection came up after another
	evEnd       = "end"       // the publisher or subscriber is done
)

// A subscriber's file has evRefused, evReconnect, evEnd and these.
const (
	evWant       = "want"       // the subscription it is to hold
	evSubscribed = "subscribed" // it stands
	evDeliver    = "deliver"    // one frame with its messages
	evCaughtUp   = "caught_up"
	evProgress   = "progress"
	evGap        = "gap"
	evHole       = "hole" // a frame began above the cursor
	evGoAway     = "go_away"
)

// pubEvent is a line of a publisher.
type pubEvent struct {
	Event     string `json:"e"`
	At        int64  `json:"at"` // microseconds since 1970
	Topic     string `json:"topic,omitempty"`
	ID        string `json:"id,omitempty"`
	N         int    `json:"n,omitempty"`   // counts the publisher's messages from 1
	Key       string `json:"key,omitempty"` // for the order
	Sum       uint32 `json:"sum,omitempty"` // of the payload
	Via       string `json:"via,omitempty"`
	Position  string `json:"position,omitempty"`
	Duplicate bool   `json:"duplicate,omitempty"`
	Code      string `json:"code,omitempty"`
	Complete  bool   `json:"complete,omitempty"`
}

// subEvent is a line of a subscriber. Sub counts its subscriptions from 0 and
// stays the same over reconnects.
type subEvent struct {
	Event     string    `json:"e"`
	At        int64     `json:"at"`
	Sub       int       `json:"sub"`
	Filter    string    `json:"filter,omitempty"`
	From      string    `json:"from,omitempty"`
	Position  string    `json:"position,omitempty"`
	Partition uint32    `json:"partition,omitempty"`
	Offset    uint64    `json:"offset,omitempty"`
	After     uint64    `json:"after,omitempty"`
	Through   uint64    `json:"through,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	Complete  bool      `json:"complete,omitempty"`
	Messages  []receipt `json:"messages,omitempty"`
}

// receipt is one delivered message.
type receipt struct {
	Topic    string `json:"topic"`
	ID       string `json:"id"`
	Position string `json:"position"`
	Sum      uint32 `json:"sum"`
}

// journal is an append-only file of one publisher or subscriber. What was
// flushed survives a kill of the judge: whole lines, and at most one torn one
// at the end.
type journal struct {
	mu   sync.Mutex // guards what follows
	file *os.File
	buf  *bufio.Writer
	err  error // the first one; everything after it is dropped
}

func openJournal(dir, name string) (*journal, error) {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open a file of the run: %w", err)
	}
	return &journal{file: f, buf: bufio.NewWriterSize(f, 32<<10)}, nil
}

func (j *journal) add(event any) {
	line, err := json.Marshal(event)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		j.failLocked(err)
		return
	}
	_, err = j.buf.Write(append(line, '\n'))
	j.failLocked(err)
}

// flush hands everything added to the operating system.
func (j *journal) flush() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.failLocked(j.buf.Flush())
	return j.err
}

func (j *journal) failLocked(err error) {
	if j.err == nil {
		j.err = err
	}
}

func (j *journal) close() error {
	return errors.Join(j.flush(), j.file.Close())
}
