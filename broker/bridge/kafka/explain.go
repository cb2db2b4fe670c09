package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	kafkago "github.com/segmentio/kafka-go"
)

// explain turns what the library says about a connection or a request into a
// sentence that says what to change. begun says whether the request was begun;
// else it is about making a connection.
func (c *Client) explain(q call, begun bool, err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if c.ctx.Err() != nil {
		return failf(Closed, nil, "the Kafka client is closed")
	}
	if e := c.explainTLS(err); e != nil {
		return e
	}
	if e := c.explainLogin(err); e != nil {
		return e
	}
	timeout := os.IsTimeout(err) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
	cut := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	switch {
	case errors.Is(err, kafkago.BrokerNotAvailable):
		return failf(Unreachable, kafkago.BrokerNotAvailable, "broker %d of Kafka is not known at the moment", q.broker)
	case (timeout || cut) && !begun:
		return failf(Unreachable, err, "no connection to Kafka at %s was made%s", c.brokers(), c.suspicion())
	case timeout:
		return failf(Unreachable, err, "Kafka did not answer %s in time; look whether it runs and %s can be reached", q.api.name, c.brokers())
	case cut:
		return failf(Unreachable, err, "Kafka closed the connection instead of answering %s; if this lasts, it may expect TLS or SASL, or be older than 3.1", q.api.name)
	default:
		return failf(Unreachable, err, "no connection to Kafka at %s; look whether it runs and can be reached", c.brokers())
	}
}

// suspicion is what may be wrong if a connection cannot even be set up, though
// somebody listens.
func (c *Client) suspicion() string {
	what := "; if this lasts, look whether Kafka runs and can be reached"
	if c.opts.TLS == nil {
		what += ", whether this port expects TLS"
	} else {
		what += ", whether this port speaks TLS"
	}
	if s := c.opts.SASL; s.Mechanism != "" {
		what += fmt.Sprintf(", and whether user %q, its password and mechanism %s are right", s.User, s.Mechanism)
	}
	return what
}

func (c *Client) brokers() string { return strings.Join(c.opts.Brokers, ",") }

func (c *Client) explainTLS(err error) *Error {
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return failf(BadTLS, err, "Kafka at %s does not speak TLS on this port; use the port of its TLS listener, or leave TLS off", c.brokers())
	}
	if strings.Contains(err.Error(), "expecting TLS") {
		return failf(BadTLS, err, "Kafka at %s expects TLS on this port; switch TLS on", c.brokers())
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return failf(BadTLS, err, "the certificate of Kafka at %s is signed by nobody who is trusted here; name the file of its authority", c.brokers())
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return failf(BadTLS, err, "the certificate of Kafka is for other hosts than %s; use a name that stands in it", c.brokers())
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if e.Reason == x509.Expired {
			return failf(BadTLS, err, "the certificate of Kafka at %s is expired or not yet valid; renew it, or set the clock", c.brokers())
		}
		return failf(BadTLS, err, "the certificate of Kafka at %s is not valid", c.brokers())
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return failf(BadTLS, err, "the certificate of Kafka at %s is not valid", c.brokers())
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return failf(BadTLS, err, "Kafka at %s refuses our side of TLS; it may want a certificate of ours, or another one", c.brokers())
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return failf(BadTLS, err, "Kafka at %s refuses our side of TLS; it may want a certificate of ours, or another one", c.brokers())
	}
	return nil
}

func (c *Client) explainLogin(err error) *Error {
	s := c.opts.SASL
	switch {
	case errors.Is(err, kafkago.SASLAuthenticationFailed):
		return failf(BadLogin, err, "Kafka at %s refuses user %q with %s; check user and password", c.brokers(), s.User, s.Mechanism)
	case errors.Is(err, kafkago.UnsupportedSASLMechanism):
		return failf(BadLogin, err, "Kafka at %s does not offer SASL mechanism %s on this port; use one that its listener has", c.brokers(), s.Mechanism)
	case errors.Is(err, kafkago.IllegalSASLState):
		return failf(BadLogin, err, "Kafka at %s does not want SASL on this port; leave it off, or use another listener", c.brokers())
	case s.Mechanism != "" && strings.Contains(err.Error(), "scram"):
		return failf(BadLogin, err, "the login with %s failed at %s; check the password", s.Mechanism, c.brokers())
	default:
		return nil
	}
}
