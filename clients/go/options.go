package tidewire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"
)

// DefaultURL is where a broker without configuration listens.
const DefaultURL = "http://127.0.0.1:7070"

// Options say how to connect. The zero value connects to a broker on this
// machine.
type Options struct {
	// URLs of the broker or of several nodes, tried in this order; http, https, ws
	// or wss. Where the path is empty, /v1/ws is added. Default: DefaultURL.
	URLs []string
	// Token is asked for a token before each attempt to connect, and again before
	// the one in force expires (a minute before, or a quarter of its life): a new
	// one then takes its place without a new connection, so give one that lasts
	// longer than the last. Where the broker refuses a token, Token is asked too;
	// the same token again ends the client. So a function that always returns the
	// same one is right for a token that cannot be renewed. An error counts as a
	// failed attempt. Token may be called from several goroutines. Default: no
	// token.
	Token func(ctx context.Context) (string, error)
	// Name and version of the program, for the broker's logs. Default:
	// tidewire-go.
	Name string

	// Dial makes the network connections; it must return when ctx ends. Default:
	// net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// TLS is for https and wss. Default: the system's certificates.
	TLS *tls.Config
	// ConnectTimeout bounds one attempt, from dialling to the broker's welcome.
	// Default: 5 s.
	ConnectTimeout time.Duration

	// OutboxMessages and OutboxBytes bound what was published and is not yet
	// answered; beyond either, publishing waits. Default: 10,000 messages, 16 MiB.
	OutboxMessages int
	OutboxBytes    int

	// OnState is told of each change of state, one call at a time and in order.
	// It must return soon and may not call Close. err says why a connection was
	// lost or an attempt failed, for StateWaiting and StateClosed; else it is nil.
	OnState func(state State, err error)
}

func (o Options) withDefaults() Options {
	if len(o.URLs) == 0 {
		o.URLs = []string{DefaultURL}
	}
	if o.Name == "" {
		o.Name = "tidewire-go"
	}
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	if o.ConnectTimeout <= 0 {
		o.ConnectTimeout = 5 * time.Second
	}
	if o.OutboxMessages <= 0 {
		o.OutboxMessages = 10_000
	}
	if o.OutboxBytes <= 0 {
		o.OutboxBytes = 16 << 20
	}
	return o
}

// A target is an address to connect to.
type target struct {
	url  string // ws or wss, as the handshake wants it
	addr string // host and port
	host string // for the certificate
	tls  bool
}

// parseTarget reads a URL as people write it.
func parseTarget(text string) (target, error) {
	u, err := url.Parse(text)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return target{}, fmt.Errorf("%q is not a URL: %w", text, err)
	}
	t := target{host: u.Hostname()}
	port := "80"
	switch u.Scheme {
	case "http", "ws":
		u.Scheme = "ws"
	case "https", "wss":
		u.Scheme, port, t.tls = "wss", "443", true
	default:
		return target{}, fmt.Errorf("%q does not begin with http://, https://, ws:// or wss://: write it like %s", text, DefaultURL)
	}
	if t.host == "" {
		return target{}, fmt.Errorf("%q names no host: write it like %s", text, DefaultURL)
	}
	if u.User != nil {
		return target{}, fmt.Errorf("the URL of %s holds a user name: leave it out, and give a token instead", u.Host)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/ws"
	}
	u.Fragment = ""
	t.url, t.addr = u.String(), net.JoinHostPort(t.host, port)
	return t, nil
}

func parseTargets(urls []string) ([]target, error) {
	targets := make([]target, 0, len(urls))
	for _, text := range urls {
		t, err := parseTarget(text)
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	return targets, nil
}
