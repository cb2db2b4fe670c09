package tidewire

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/lxzan/gws"

	"github.com/tidewire/tidewire/protocol"
)

const (
	// maxFrameBytes bounds a frame from the broker. A Deliver is about as large as
	// the largest message plus the largest chunk, below 2 MiB.
	maxFrameBytes = 8 << 20
	// writeTimeout bounds one write. gws itself sets no limit: a peer that does not
	// read would block the writer for ever.
	writeTimeout = 10 * time.Second
	// byeTimeout bounds the write of a close frame, which nobody needs, and the
	// wait for one after a write has failed.
	byeTimeout = time.Second
	// maxProblemBytes bounds what is read of a refusal.
	maxProblemBytes = 64 << 10
)

// socket is the net.Conn that gws sees. It gives each read and each write a
// deadline, so that a dead peer is noticed by silence alone.
//
// A write that fails is not told to gws, which would close the connection at
// once: a broker that closes says why first, and the reader is to find that.
type socket struct {
	net.Conn
	raw     net.Conn     // below TLS; closing it never waits for the peer
	silence atomic.Int64 // longest wait for the next byte, in nanoseconds
	events  gws.Event    // who is told of frames
	shaking bool         // during the handshake gws may not close: the refusal is still to be read
	failed  func(error)  // told of an error of Read before gws acts on it
	broken  atomic.Bool  // a write has failed: nothing is written any more
}

// Read waits for the next bytes as long as the peer may be silent.
func (s *socket) Read(b []byte) (int, error) {
	if d := s.silence.Load(); d > 0 {
		_ = s.SetReadDeadline(time.Now().Add(time.Duration(d)))
	}
	n, err := s.Conn.Read(b)
	if err != nil && s.failed != nil {
		s.failed(err)
	}
	return n, err
}

// Write writes one frame.
func (s *socket) Write(b []byte) (int, error) {
	if s.shaking {
		return s.Conn.Write(b)
	}
	if s.broken.Load() {
		return len(b), nil
	}
	timeout := writeTimeout
	if len(b) > 0 && b[0] == opClose {
		timeout = byeTimeout
	}
	_ = s.SetWriteDeadline(time.Now().Add(timeout))
	if _, err := s.Conn.Write(b); err != nil {
		s.broken.Store(true)
		s.silence.Store(int64(byeTimeout))
		_ = s.SetReadDeadline(time.Now().Add(byeTimeout))
	}
	return len(b), nil
}

// opClose begins a close frame: the opcode with the final bit.
const opClose = 0x88

// Close never waits.
func (s *socket) Close() error {
	if s.shaking {
		return nil
	}
	return s.raw.Close()
}

// dial makes a connection to a target and opens a WebSocket on it. ctx bounds
// all of it.
func (o *Options) dial(ctx context.Context, t target, token string, events gws.Event) (*socket, *gws.Conn, error) {
	raw, err := o.Dial(ctx, "tcp", t.addr)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	s := &socket{Conn: raw, raw: raw, shaking: true, events: events}
	ws, err := s.open(ctx, t, o, requestHeader(token))
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = raw.Close()
		if ctx.Err() != nil {
			err = errors.New("no answer in time")
		}
		return nil, nil, err
	}
	s.shaking = false
	return s, ws, nil
}

// open does the handshakes.
func (s *socket) open(ctx context.Context, t target, o *Options, header http.Header) (*gws.Conn, error) {
	if t.tls {
		config := o.TLS.Clone()
		if config == nil {
			config = &tls.Config{}
		}
		if config.ServerName == "" {
			config.ServerName = t.host
		}
		secure := tls.Client(s.raw, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		s.Conn = secure
	}
	ws, resp, err := gws.NewClientFromConn(s.events, &gws.ClientOption{
		Addr:               t.url,
		RequestHeader:      header,
		HandshakeTimeout:   o.ConnectTimeout,
		ReadMaxPayloadSize: maxFrameBytes,
		ReadBufferSize:     16 << 10,
	}, s)
	if err != nil && resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
		_ = s.SetReadDeadline(time.Now().Add(o.ConnectTimeout))
		return nil, refusal(resp)
	}
	return ws, err
}

func requestHeader(token string) http.Header {
	header := http.Header{"Sec-Websocket-Protocol": {protocol.SubprotocolProto}}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	return header
}

// refusal reads the answer to a handshake that failed.
func refusal(resp *http.Response) error {
	e := &HandshakeError{Status: resp.StatusCode, Retryable: retryableStatus(resp.StatusCode)}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		e.RetryAfter = min(time.Duration(seconds)*time.Second, maxDelay)
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxProblemBytes))
	_ = resp.Body.Close()
	var problem struct {
		Code      string `json:"code"`
		Detail    string `json:"detail"`
		Retryable bool   `json:"retryable"`
	}
	if json.Unmarshal(body, &problem) != nil || problem.Code == "" {
		return e
	}
	e.Retryable = problem.Retryable
	e.Err = &Error{Code: Code(problem.Code), Message: problem.Detail, RetryAfter: e.RetryAfter}
	return e
}

// retryableStatus is the verdict on an answer that does not come from a broker,
// but from what stands before it: a client error stays one.
func retryableStatus(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return status < 400 || status > 499
}
