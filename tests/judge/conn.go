package judge

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

const (
	subprotocol   = "tidewire.v1.json"
	maxFrameBytes = 16 << 20 // what a server may send; far above what it should
	dialTimeout   = 10 * time.Second
)

// conn is one session. A goroutine of its own reads, answers pings and passes
// everything else on; it stops reading while nobody takes the frames.
type conn struct {
	ws      *websocket.Conn
	welcome *welcome
	frames  chan any    // closed when the connection has ended
	mute    atomic.Bool // answers no pings
	err     error       // why; set before frames is closed
	cancel  context.CancelFunc
}

// fatalError is what no broker should do to an honest client: turn it away for
// good, or send what cannot be read.
type fatalError struct{ code string }

func (e *fatalError) Error() string { return e.code }

// A caller says where and how a session is opened.
type caller struct {
	base, token string
	client      *http.Client // nil for the default
}

// dial opens a session and returns after the welcome.
func dial(ctx context.Context, to caller, subs []subscribeForm) (*conn, error) {
	target, err := endpoint(to.base, "ws", "/v1/ws")
	if err != nil {
		return nil, err
	}
	dialCtx, stop := context.WithTimeout(ctx, dialTimeout)
	defer stop()
	ws, resp, err := websocket.Dial(dialCtx, target, &websocket.DialOptions{
		Subprotocols: []string{subprotocol}, HTTPHeader: bearer(to.token), HTTPClient: to.client,
	})
	if err != nil {
		return nil, dialError(resp, err)
	}
	ws.SetReadLimit(maxFrameBytes)
	readCtx, cancel := context.WithCancel(ctx)
	c := &conn{ws: ws, frames: make(chan any), cancel: cancel}
	if err := c.open(dialCtx, subs); err != nil {
		c.close()
		return nil, err
	}
	go c.read(readCtx)
	return c, nil
}

func (c *conn) open(ctx context.Context, subs []subscribeForm) error {
	if got := c.ws.Subprotocol(); got != subprotocol {
		return &fatalError{"subprotocol " + got}
	}
	err := c.send(ctx, connectForm{Type: "connect", Ref: 1, Client: "judge/1", Subscriptions: subs})
	if err != nil {
		return err
	}
	f, err := c.next(ctx)
	if err != nil {
		return err
	}
	switch f := f.(type) {
	case *welcome:
		c.welcome = f
		return nil
	case *failure:
		return fmt.Errorf("connect was refused: %s (%s)", f.Message, f.Code)
	default:
		return fmt.Errorf("the first frame is %T instead of welcome", f)
	}
}

// read passes frames on until the connection ends, or is silent for longer
// than the welcome allows.
func (c *conn) read(ctx context.Context) {
	defer close(c.frames)
	silence := time.Duration(c.welcome.PingIntervalMs+c.welcome.PingTimeoutMs) * time.Millisecond
	for {
		f, err := c.nextWithin(ctx, silence)
		if err != nil {
			c.err = err
			return
		}
		if p, ok := f.(*ping); ok {
			if !c.mute.Load() {
				err = c.send(ctx, pongForm{"pong", p.Seq})
			}
			f = nil
		}
		if f == nil && err == nil {
			continue
		}
		if err != nil {
			c.err = err
			return
		}
		select {
		case c.frames <- f:
		case <-ctx.Done():
			c.err = ctx.Err()
			return
		}
	}
}

func (c *conn) nextWithin(ctx context.Context, silence time.Duration) (any, error) {
	if silence > 0 {
		limited, stop := context.WithTimeout(ctx, silence)
		defer stop()
		ctx = limited
	}
	return c.next(ctx)
}

func (c *conn) next(ctx context.Context) (any, error) {
	kind, text, err := c.ws.Read(ctx)
	if err != nil {
		return nil, closeError(err)
	}
	if kind != websocket.MessageText {
		return nil, &fatalError{"binary frame on the JSON subprotocol"}
	}
	f, err := decodeFrame(text)
	if err != nil {
		return nil, &fatalError{err.Error()}
	}
	return f, nil
}

func (c *conn) send(ctx context.Context, frame any) error {
	text, err := json.Marshal(frame)
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, dialTimeout)
	defer stop()
	return c.ws.Write(ctx, websocket.MessageText, text)
}

// close drops the connection without a goodbye: nothing may depend on one.
func (c *conn) close() {
	c.cancel()
	_ = c.ws.CloseNow()
}

// closeError tells the close codes after which one does not come back.
func closeError(err error) error {
	code := websocket.CloseStatus(err)
	switch {
	case code >= 3500 && code < 4000, code >= 4500 && code < 5000,
		code == 1002, code == 1003, code >= 1007 && code <= 1010:
		return &fatalError{fmt.Sprintf("close code %d", code)}
	default:
		return err
	}
}

func dialError(resp *http.Response, err error) error {
	if resp != nil && resp.StatusCode >= 400 && !retryableStatus(resp.StatusCode) {
		return &fatalError{fmt.Sprintf("status %d", resp.StatusCode)}
	}
	return err
}

func retryableStatus(status int) bool {
	return status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout
}

func bearer(token string) http.Header {
	h := http.Header{}
	if token != "" {
		h.Set("Authorization", "Bearer "+token)
	}
	return h
}

// endpoint turns a base URL, http(s) or ws(s), into one of the other scheme
// with a path.
func endpoint(base, scheme, path string) (string, error) {
	u, err := url.Parse(base)
	if err != nil {
		return "", fmt.Errorf("the URL of a broker: %w", err)
	}
	if strings.HasSuffix(u.Scheme, "s") && u.Scheme != "ws" {
		scheme += "s"
	}
	u.Scheme, u.Path = scheme, path
	return u.String(), nil
}
