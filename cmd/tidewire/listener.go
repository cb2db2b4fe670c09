package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"
)

// listen opens a listener; setting is where its address comes from.
func listen(setting, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("the address %s is in use by another program: stop that one, or choose another address with --%s", address, setting)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("this user may not listen on %s: choose a port from 1024 up with --%s", address, setting)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%s is not an address of this machine: choose another one with --%s", address, setting)
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		err = e.Err
	}
	return nil, fmt.Errorf("cannot listen on %s (%w): choose another address with --%s", address, err, setting)
}

// lastWords is how long answers may take to leave once there is nothing else to
// wait for.
const lastWords = time.Second

// door is a listener with what answers on it. Its end waits for answers that
// are on their way: closing the connections cuts them off behind the handler's
// back.
type door struct {
	listener net.Listener
	http     *http.Server
	cancel   context.CancelFunc // of the requests
}

func newDoor(l net.Listener, h *http.Server) *door {
	requests, cancel := context.WithCancel(context.Background())
	h.BaseContext = func(net.Listener) context.Context { return requests }
	return &door{listener: l, http: h, cancel: cancel}
}

// serve answers until close, or until the listener fails.
func (d *door) serve() error {
	if err := d.http.Serve(d.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("the listener on %s failed: %w", d.listener.Addr(), err)
	}
	return nil
}

// close lets the requests that run end, but not for long.
func (d *door) close() {
	ctx, stop := context.WithTimeout(context.Background(), lastWords)
	defer stop()
	if d.http.Shutdown(ctx) != nil {
		_ = d.http.Close()
	}
	d.cancel()
}
