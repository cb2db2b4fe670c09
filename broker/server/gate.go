package server

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tidewire/tidewire/protocol"
)

// Bounds of what is spent on those for whom there is no room.
const (
	refusalsAtOnce  = 32              // connections that are being told
	refusalPatience = 5 * time.Second // for such a connection to ask and to read the answer
)

// gate is the listener that net/http sees. It bounds the connections of every
// kind, idle and half open ones too: each costs a file and memory, whatever it
// asks for.
//
// A connection that it has no room for is handed on with its refusal, so that
// its request is answered in the way that its protocol has; but only a few at
// once, and for a short time. What comes beyond is closed at once.
type gate struct {
	net.Listener
	server *Server
	bounds func() gateBounds

	mu       sync.Mutex
	open     int
	refusing int
	from     map[netip.Prefix]int // connections by address; only while that is bounded
	rate     *rate.Limiter        // of new connections
}

// gateBounds are the limits of a gate as they are now. 0 is no limit, except for
// connections.
type gateBounds struct {
	limit       protocol.Limit // that connections is
	connections int
	perAddress  int
	perSecond   int
}

// Gate bounds the connections of the public listener. The open files that they
// take are as [FilesFor] says.
func (s *Server) Gate(l net.Listener) net.Listener {
	return s.newGate(l, func() gateBounds {
		limits := s.limits()
		return gateBounds{protocol.LimitConnections, limits.Connections, limits.ConnectionsPerAddress, limits.Rates.Connections}
	})
}

// AdminGate bounds the connections of the admin listener.
func (s *Server) AdminGate(l net.Listener) net.Listener {
	bounds := gateBounds{limit: protocol.LimitAdminConnections, connections: protocol.LimitAdminConnections.Default()}
	return s.newGate(l, func() gateBounds { return bounds })
}

func (s *Server) newGate(l net.Listener, bounds func() gateBounds) *gate {
	return &gate{Listener: l, server: s, bounds: bounds, from: make(map[netip.Prefix]int), rate: rate.NewLimiter(rate.Inf, 0)}
}

// Accept returns the next connection that is taken in or told why not. Errors
// are those of the listener: net/http waits before it tries again.
func (g *gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if guest := g.take(c); guest != nil {
			return guest, nil
		}
		_ = c.Close()
	}
}

// take makes a guest of a connection; nil if it cannot even be told.
func (g *gate) take(c net.Conn) *guest {
	v := &guest{Conn: c, gate: g, from: sourceOf(c)}
	bounds := g.bounds()
	g.mu.Lock()
	v.refusal = g.check(bounds, v.from)
	if v.refusal == nil {
		g.open++
		if v.counted = bounds.perAddress > 0 && v.from.IsValid(); v.counted {
			g.from[v.from]++
		}
	} else if g.refusing < refusalsAtOnce {
		g.refusing++
	} else {
		c = nil
	}
	g.mu.Unlock()
	if v.refusal == nil {
		g.server.metrics.open.Inc()
		return v
	}
	g.server.metrics.limits.Refused(v.refusal)
	if c == nil {
		return nil
	}
	v.patience = time.AfterFunc(refusalPatience, func() { _ = v.end() })
	return v
}

// check returns why there is no room; nil if there is. The caller holds mu.
func (g *gate) check(b gateBounds, from netip.Prefix) *protocol.Error {
	if g.open >= b.connections {
		return protocol.Exceeded(b.limit, "the broker has %d connections, at most %d are allowed: come back in a moment", g.open, b.connections)
	}
	if n := g.from[from]; b.perAddress > 0 && from.IsValid() && n >= b.perAddress {
		return protocol.Exceeded(protocol.LimitAddress, "there are %d connections from %s, at most %d are allowed: share one, or close some", n, from, b.perAddress)
	}
	if b.perSecond == 0 {
		return nil
	}
	if g.rate.Limit() != rate.Limit(b.perSecond) {
		g.rate = rate.NewLimiter(rate.Limit(b.perSecond), b.perSecond)
	}
	if g.rate.Allow() {
		return nil
	}
	err := protocol.Exceeded(protocol.LimitConnectionRate, "the broker takes %d new connections a second: come back in a moment", b.perSecond)
	err.RetryAfter = time.Second
	return err
}

// leave frees the place of a guest.
func (g *gate) leave(v *guest) {
	if v.refusal == nil {
		g.server.metrics.open.Dec()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if v.refusal != nil {
		g.refusing--
		return
	}
	g.open--
	if v.counted {
		if g.from[v.from]--; g.from[v.from] == 0 {
			delete(g.from, v.from)
		}
	}
}

// sourceOf returns where a connection comes from, as far as one client can
// choose freely: an IPv4 address, or 64 bits of an IPv6 address. It is invalid if
// that is not known.
func sourceOf(c net.Conn) netip.Prefix {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	address := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := 64
	if address.Is4() {
		bits = 32
	}
	prefix, err := address.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

// guestKey is where the context of a request has its guest.
type guestKey struct{}

// withGuest is the ConnContext of net/http.
func withGuest(ctx context.Context, c net.Conn) context.Context {
	if v, ok := c.(*guest); ok {
		return context.WithValue(ctx, guestKey{}, v)
	}
	return ctx
}

// noRoom returns why the connection of a request should not be here; nil if it
// may, or if there is no gate.
func noRoom(r *http.Request) *protocol.Error {
	if v, ok := r.Context().Value(guestKey{}).(*guest); ok && v.refusal != nil {
		e := *v.refusal // each answer owns its error
		return &e
	}
	return nil
}

// FilesFor returns how many files the connections of both gates may have open
// when the public one takes n.
func FilesFor(n int) int {
	return n + protocol.LimitAdminConnections.Default() + 2*refusalsAtOnce
}
