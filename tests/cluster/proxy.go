package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// A proxy stands before the brokers, as a load balancer would: each connection
// goes to the next broker that says it is ready. It looks at nothing that passes.
type proxy struct {
	backends []*backend
	next     atomic.Uint32
}

// backend is a broker behind the proxy.
type backend struct {
	name    string
	address string
	ready   atomic.Bool
}

const (
	probeEvery  = 300 * time.Millisecond
	probeWithin = time.Second
	dialWithin  = time.Second
)

// run takes connections from l until ctx ends.
func (p *proxy) run(ctx context.Context, l net.Listener) {
	var all sync.WaitGroup
	defer all.Wait()
	for _, b := range p.backends {
		all.Go(func() { b.watch(ctx) })
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		all.Go(func() { p.carry(ctx, client) })
	}
}

// ready waits until all brokers are, and is false if ctx ends before.
func (p *proxy) ready(ctx context.Context) bool {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		n := 0
		for _, b := range p.backends {
			if b.ready.Load() {
				n++
			}
		}
		if n == len(p.backends) {
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}

// watch asks a broker whether it is ready, again and again.
func (b *backend) watch(ctx context.Context) {
	client := http.Client{Timeout: probeWithin}
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		r, err := client.Get("http://" + b.address + "/readyz")
		if err == nil {
			_ = r.Body.Close()
		}
		b.ready.Store(err == nil && r.StatusCode == http.StatusOK)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// carry brings one client's bytes to a broker and back, until one of them ends.
func (p *proxy) carry(ctx context.Context, client net.Conn) {
	defer func() { _ = client.Close() }()
	server := p.dial()
	if server == nil {
		return // none is ready: the client tries again
	}
	defer func() { _ = server.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = client.Close(); _ = server.Close() })
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { pour(server, client) })
	both.Go(func() { pour(client, server) })
	both.Wait()
}

// dial connects to the next broker that is ready and takes connections; nil if
// there is none.
func (p *proxy) dial() net.Conn {
	for range p.backends {
		b := p.backends[int(p.next.Add(1))%len(p.backends)]
		if !b.ready.Load() {
			continue
		}
		if conn, err := net.DialTimeout("tcp", b.address, dialWithin); err == nil {
			return conn
		}
		b.ready.Store(false)
	}
	return nil
}

// pour copies until the source ends, and then ends the target's side of it.
func pour(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		_ = to.Close() // the other direction has nobody left to talk to
		return
	}
	if t, ok := to.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
}
