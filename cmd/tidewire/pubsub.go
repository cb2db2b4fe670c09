package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	tidewire "github.com/tidewire/tidewire/clients/go"
)

// firstConnect is how long pub and sub try to reach a broker before they give
// up. Once they have reached one they go on trying for ever.
const firstConnect = 10 * time.Second

// clientFlags say which broker to talk to, and as whom.
type clientFlags struct {
	server   string
	token    string
	wait     bool
	patience time.Duration // instead of firstConnect, if above 0
}

func (f *clientFlags) add(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.server, "server", "", "`URL` of the broker, or several with commas between them\n(default: TIDEWIRE_SERVER, else "+tidewire.DefaultURL+")")
	flags.StringVar(&f.token, "token", "", "`token` to show to the broker (default: TIDEWIRE_TOKEN)")
	flags.BoolVar(&f.wait, "wait", false, fmt.Sprintf("wait for a broker that cannot be reached, longer than %v", firstConnect))
}

// connect reaches the broker. What happens to the connection later is told on
// errs.
func (f *clientFlags) connect(ctx context.Context, errs io.Writer) (*tidewire.Client, error) {
	server := cmp.Or(f.server, os.Getenv("TIDEWIRE_SERVER"), tidewire.DefaultURL)
	token := cmp.Or(f.token, os.Getenv("TIDEWIRE_TOKEN"))
	news := &news{errs: errs, server: server}
	if !f.wait {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cmp.Or(f.patience, firstConnect))
		defer cancel()
	}
	c, err := tidewire.Connect(ctx, tidewire.Options{
		URLs:    strings.Split(server, ","),
		Name:    "tidewire/" + programVersion(),
		Token:   func(context.Context) (string, error) { return token, nil },
		OnState: news.tell,
	})
	if err != nil {
		return nil, connectError(err, server)
	}
	return c, nil
}

// connectError says what to do about a broker that cannot be reached, or that
// does not let the client in.
func connectError(err error, server string) error {
	if e, ok := errors.AsType[*tidewire.HandshakeError](err); ok && e.Err != nil && e.Err.Code == tidewire.CodeUnauthorized {
		return fmt.Errorf("the broker at %s lets nobody in without a valid token: %s; give one with --token or TIDEWIRE_TOKEN", server, e.Err.Message)
	}
	if refusedToken(err) {
		return tokenError(err)
	}
	e, ok := errors.AsType[*tidewire.UnreachableError](err)
	if !ok {
		return err
	}
	if errors.Is(e.Err, context.Canceled) {
		return fmt.Errorf("interrupted before the broker at %s was reached", server)
	}
	return fmt.Errorf("cannot reach the broker at %s (%s): is it running? start it with `tidewire serve`", server, reason(e.Last))
}

// refusedToken reports whether it is the token that the broker does not take any
// more.
func refusedToken(err error) bool {
	e, ok := errors.AsType[*tidewire.Error](err)
	return ok && e.Code == tidewire.CodeTokenExpired
}

// tokenError says what to do about a token that has expired. The command has this
// one alone, so it cannot come back.
func tokenError(err error) error {
	if !refusedToken(err) {
		return err
	}
	return errors.New("the token has expired, and the broker lets nobody in with it; give a new one with --token or TIDEWIRE_TOKEN")
}

// reason is the shortest text that says why a connection failed.
func reason(err error) string {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return e.Err
	}
	return cmp.Or(fmt.Sprint(err), "no answer")
}

// jsonLine writes v as one line, with filters as people write them.
func jsonLine(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

// news tells people when the connection is lost and when it is back, once each.
type news struct {
	errs   io.Writer
	server string

	mu   sync.Mutex
	open bool // it was open before
	lost bool // and they know that it is lost
}

func (n *news) tell(state tidewire.State, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case state == tidewire.StateWaiting && n.open && !n.lost:
		n.lost = true
		_, _ = fmt.Fprintf(n.errs, "tidewire: %v; trying again at %s\n", err, n.server)
	case state == tidewire.StateOpen && n.lost:
		n.lost = false
		_, _ = fmt.Fprintln(n.errs, "tidewire: connected again")
	}
	n.open = n.open || state == tidewire.StateOpen
}
