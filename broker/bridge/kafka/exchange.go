package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// anyBroker sends a request to whichever broker of Options.Brokers answers.
const anyBroker int32 = -1

// An api is a request that Kafka knows, with the one version that is spoken.
type api struct {
	key     protocol.ApiKey
	version int16
	name    string
}

// What is spoken here. Each version is known to every Kafka from 3.1 to 4.x.
var (
	apiProduce         = api{protocol.Produce, 9, "Produce"}
	apiFetch           = api{protocol.Fetch, 13, "Fetch"} // the first that names topics by id
	apiListOffsets     = api{protocol.ListOffsets, 6, "ListOffsets"}
	apiMetadata        = api{protocol.Metadata, 12, "Metadata"}
	apiCreateTopics    = api{protocol.CreateTopics, 7, "CreateTopics"}
	apiDescribeConfigs = api{protocol.DescribeConfigs, 4, "DescribeConfigs"}
)

// An exchange is one request and its answer. To the library it is a message
// that writes itself to the connection and reads its answer from there.
//
// state says whether the request was begun: a request that is given up before
// it was begun is never sent, although the library may still have it in hand.
type exchange struct {
	api      api
	broker   int32
	clientID string
	body     func(w *wireWriter)
	answer   []byte        // filled by RawExchange, not to be read before it has returned
	limit    int           // of the answer, in bytes
	patience time.Duration // how long no byte may arrive
	deadline time.Time
	state    atomic.Int32

	mu   sync.Mutex
	conn net.Conn // while the request is under way on it
}

// States of an exchange.
const (
	exchangeNew int32 = iota
	exchangeBegun
	exchangeGivenUp
)

var errGivenUp = errors.New("the request was given up before it was sent")

// ApiKey, Broker, Required and RawExchange are what the library asks a message.

//nolint:revive // the library spells it so
func (x *exchange) ApiKey() protocol.ApiKey { return x.api.key }

// Broker routes by what the caller knows, which is newer than what the library
// knows.
func (x *exchange) Broker(protocol.Cluster) (protocol.Broker, error) {
	return protocol.Broker{ID: x.broker}, nil
}

// Required says that the message always writes itself.
func (x *exchange) Required(map[protocol.ApiKey]int16) bool { return true }

// RawExchange writes the request and reads its answer.
func (x *exchange) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	if !x.state.CompareAndSwap(exchangeNew, exchangeBegun) {
		return nil, errGivenUp
	}
	progress := func() {}
	if c, ok := rw.(net.Conn); ok {
		x.hold(c)
		defer x.hold(nil) // whatever comes next on it is not ours to interrupt
		progress = func() { _ = c.SetDeadline(x.next()) }
	}
	progress()
	w := wireWriter{b: make([]byte, 0, 512)}
	w.int32(0) // its size, below
	w.int16(int16(x.api.key))
	w.int16(x.api.version)
	w.int32(correlation)
	w.int16(int16(len(x.clientID)))
	w.b = append(w.b, x.clientID...)
	w.end()
	x.body(&w)
	binary.BigEndian.PutUint32(w.b, uint32(len(w.b)-4))
	if _, err := rw.Write(w.b); err != nil {
		return nil, err
	}
	return x, x.read(rw, progress)
}

// correlation is the number of every request: a connection has one at a time.
const correlation = 7

func (x *exchange) read(r io.Reader, progress func()) error {
	var head [8]byte
	progress()
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	size := int64(int32(binary.BigEndian.Uint32(head[:]))) - 4
	if size < 0 || size > int64(x.limit) {
		return failf(Corrupt, nil, "an answer of %d bytes to %s is not what was asked for; at most %d were expected", size, x.api.name, x.limit)
	}
	if id := binary.BigEndian.Uint32(head[4:]); id != correlation {
		return failf(Corrupt, nil, "an answer to another request than %s arrived", x.api.name)
	}
	b, err := readExactly(r, x.answer, int(size), progress)
	if err != nil {
		return err
	}
	x.answer = b
	return nil
}

// next is the deadline for the next bytes.
func (x *exchange) next() time.Time {
	if t := time.Now().Add(x.patience); t.Before(x.deadline) {
		return t
	}
	return x.deadline
}

func (x *exchange) hold(c net.Conn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.conn = c
}

// interrupt ends a request that nobody waits for any more, at once: the library
// alone would let it occupy its connection until the deadline.
func (x *exchange) interrupt() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.conn != nil {
		_ = x.conn.Close()
	}
}

// A call is what do needs to know of a request.
type call struct {
	api      api
	broker   int32
	wait     time.Duration // that Kafka may take before it answers, besides its work
	limit    int           // bytes of the answer
	buf      []byte        // for the answer, may be nil
	patience time.Duration // how long nothing may arrive; zero: as the client has it
	waits    bool          // for a broker that the library has not heard of yet
	hurry    bool          // wait for a connection no longer than beginTimeout
	body     func(w *wireWriter)
}

// do sends a request and returns its answer, without the header. An error is
// an [Error] that says what is wrong with the connection; sent is false only if
// not a byte of the request can ever reach Kafka.
func (c *Client) do(ctx context.Context, q call) (answer *wireReader, sent bool, err error) {
	const pause = 100 * time.Millisecond
	for end := time.Now().Add(2 * addressesTTL); ; {
		answer, sent, err = c.try(ctx, q)
		if !q.waits || !errors.Is(err, kafkago.BrokerNotAvailable) || time.Now().After(end) || sleep(ctx, pause) != nil {
			return answer, sent, err
		}
	}
}

func (c *Client) try(ctx context.Context, q call) (answer *wireReader, sent bool, err error) {
	if q.limit == 0 {
		q.limit = 64 << 20
	}
	if q.patience == 0 {
		q.patience = c.opts.Timeout
	}
	x := &exchange{
		api: q.api, broker: q.broker, clientID: c.opts.ClientID, body: q.body,
		answer: q.buf, limit: q.limit, patience: q.patience + q.wait,
	}
	// The patience begins with the request, but before that a connection
	// may have to be made.
	x.deadline = time.Now().Add(q.wait + 30*time.Second)
	if t, ok := ctx.Deadline(); ok && t.Before(x.deadline) {
		x.deadline = t
	}
	ctx, cancel := context.WithDeadline(ctx, x.deadline)
	defer cancel()
	free := context.AfterFunc(c.ctx, cancel)
	defer free()
	// A broker that stands still accepts connections and says nothing. The
	// library goes on connecting behind our back, for whoever comes next.
	slow := time.AfterFunc(beginTimeout, func() {
		if q.hurry && x.state.CompareAndSwap(exchangeNew, exchangeGivenUp) {
			cancel()
		}
	})
	defer slow.Stop()
	msg, err := c.transport.RoundTrip(ctx, c.bootstrap, x)
	if err != nil {
		sent = !x.state.CompareAndSwap(exchangeNew, exchangeGivenUp) && x.state.Load() == exchangeBegun
		x.interrupt()
		return nil, sent, c.explain(q, sent, err)
	}
	r := &wireReader{b: msg.(*exchange).answer}
	r.end() // tagged fields of the header
	return r, true, nil
}
