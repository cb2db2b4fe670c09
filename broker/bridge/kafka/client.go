package kafka

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	kafkago "github.com/segmentio/kafka-go"
)

// Options of a [Client]; all but Brokers have useful zero values.
type Options struct {
	Brokers  []string // host:port of some brokers; the others are learned from them
	TLS      *tls.Config
	SASL     SASL
	ClientID string        // what Kafka writes into its logs; "tidewire"
	Timeout  time.Duration // without any byte of an answer, after which a request has failed; 3 s
	Dial     func(ctx context.Context, network, address string) (net.Conn, error)
	Logger   *slog.Logger
}

// Times of connections. A broker that does not accept one within dialTimeout
// is passed over; setupTimeout includes TLS and SASL; writing and reading wait no
// longer than beginTimeout for a connection.
const (
	dialTimeout  = 1500 * time.Millisecond
	beginTimeout = 2 * time.Second
	setupTimeout = 5 * time.Second
	// The library asks again for the addresses of the brokers after a random
	// time up to this; the answer must also come within it. Topics are not
	// part of it: what is known of them comes from our own requests.
	addressesTTL = 2 * time.Second
)

// Client speaks with one cluster. Its methods may be used by many goroutines.
type Client struct {
	opts      Options
	transport *kafkago.Transport
	bootstrap net.Addr
	meta      *metadata
	ctx       context.Context // ends when the client is closed
	cancel    context.CancelFunc

	mu    sync.Mutex
	conns map[*guardedConn]struct{}
}

// New returns a client, which connects when it is needed. It fails only if the
// options cannot be right.
func New(o Options) (*Client, error) {
	if len(o.Brokers) == 0 {
		return nil, failf(Invalid, nil, "no Kafka broker is given; give host:port of at least one")
	}
	for _, b := range o.Brokers {
		if _, _, err := net.SplitHostPort(b); err != nil || strings.Contains(b, ",") {
			return nil, failf(Invalid, err, "%q is not an address of a Kafka broker; write host:port", b)
		}
	}
	if o.ClientID == "" {
		o.ClientID = "tidewire"
	}
	if o.Timeout <= 0 {
		o.Timeout = 3 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
	}
	mechanism, err := o.SASL.mechanism()
	if err != nil {
		return nil, err
	}
	c := &Client{opts: o, bootstrap: kafkago.TCP(o.Brokers...), conns: map[*guardedConn]struct{}{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.transport = &kafkago.Transport{
		Dial:           c.dial,
		DialTimeout:    setupTimeout,
		IdleTimeout:    time.Minute,
		MetadataTTL:    addressesTTL,
		MetadataTopics: []string{}, // none, which is something else than nil
		ClientID:       o.ClientID,
		TLS:            o.TLS,
		SASL:           mechanism,
		Context:        c.ctx,
	}
	c.meta = newMetadata(c)
	return c, nil
}

// Close ends everything that uses the client, and its connections.
func (c *Client) Close() {
	c.cancel()
	c.transport.CloseIdleConnections()
	c.mu.Lock()
	defer c.mu.Unlock()
	for g := range c.conns {
		_ = g.Conn.Close()
	}
	clear(c.conns)
}

func (c *Client) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := c.opts.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	g := &guardedConn{Conn: conn, client: c}
	_ = g.SetDeadline(time.Time{})
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		_ = conn.Close()
		return nil, failf(Closed, nil, "the Kafka client is closed")
	}
	c.conns[g] = struct{}{}
	return g, nil
}

// A guardedConn always has a deadline: the library sets none while it
// authenticates, and would then wait for ever for a broker that is stopped.
type guardedConn struct {
	net.Conn
	client *Client
}

// SetDeadline replaces no deadline by a far one. It is harmless for a
// connection that is idle, since each request sets its own.
func (g *guardedConn) SetDeadline(t time.Time) error {
	if t.IsZero() {
		t = time.Now().Add(setupTimeout)
	}
	return g.Conn.SetDeadline(t)
}

// Close also forgets the connection.
func (g *guardedConn) Close() error {
	g.client.mu.Lock()
	delete(g.client.conns, g)
	g.client.mu.Unlock()
	return g.Conn.Close()
}
