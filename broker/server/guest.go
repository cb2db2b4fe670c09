package server

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/tidewire/tidewire/protocol"
)

// guest is a connection that came through a gate.
type guest struct {
	net.Conn
	gate     *gate
	from     netip.Prefix
	counted  bool            // in gate.from
	refusal  *protocol.Error // why there is no room for it; nil if there is
	patience *time.Timer     // ends it if it is refused
	gone     sync.Once
	inbound  *rate.Limiter // what it sends; nil before that is bounded

	// awaited is set while net/http waits for the head of a request: what it
	// does then, it does without a handler, and can only be seen from here.
	awaited atomic.Bool
}

// Close closes the connection and frees its place.
func (v *guest) Close() error {
	if v.patience != nil {
		v.patience.Stop()
	}
	return v.end()
}

// end is Close without a look at patience, which calls it.
func (v *guest) end() error {
	err := v.Conn.Close()
	v.gone.Do(func() { v.gate.leave(v) })
	return err
}

// CloseWrite says that nothing more is written.
func (v *guest) CloseWrite() error {
	if half, ok := v.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Read counts a head that does not come in time. It takes no more in a second
// than the limit says: then the client's own system holds it back.
func (v *guest) Read(b []byte) (int, error) {
	most := v.gate.server.limits().Rates.InboundBytes
	if most > 0 && len(b) > most {
		b = b[:most]
	}
	n, err := v.Conn.Read(b)
	if most > 0 && n > 0 {
		v.pace(n, most)
	}
	if err != nil && v.awaited.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
		v.gate.server.metrics.limits.Met(protocol.LimitConnect)
	}
	return n, err
}

// pace waits until n bytes may have been read, at most about a second.
func (v *guest) pace(n, perSecond int) {
	if v.inbound == nil || v.inbound.Burst() != perSecond {
		v.inbound = rate.NewLimiter(rate.Limit(perSecond), perSecond)
	}
	now := time.Now()
	if wait := v.inbound.ReserveN(now, n).DelayFrom(now); wait > 0 {
		v.gate.server.metrics.limits.Met(protocol.LimitInboundRate)
		<-time.After(wait)
	}
}

var headTooLarge = []byte("HTTP/1.1 431 ")

// Write counts a head that is too large: net/http answers it by itself.
func (v *guest) Write(b []byte) (int, error) {
	if v.awaited.Load() && bytes.HasPrefix(b, headTooLarge) {
		v.gate.server.metrics.limits.Met(protocol.LimitRequestHead)
	}
	return v.Conn.Write(b)
}

// direct returns the connection below a guest. What is written at once to it
// takes one call of the system, in whatever parts it lies in memory.
func direct(c net.Conn) net.Conn {
	if v, ok := c.(*guest); ok {
		return v.Conn
	}
	return c
}

// connState follows a connection while net/http has it.
func connState(c net.Conn, state http.ConnState) {
	if v, ok := c.(*guest); ok {
		v.awaited.Store(state == http.StateNew || state == http.StateActive)
	}
}

// served notes that a request has found its handler.
func served(r *http.Request) {
	if v, ok := r.Context().Value(guestKey{}).(*guest); ok {
		v.awaited.Store(false)
	}
}
