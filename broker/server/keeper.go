package server

import (
	"math/rand/v2"
	"time"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// keeperTick is how often the keeper looks at all connections, and so how
// exact their timers are.
const keeperTick = time.Second

// keeping is what the keeper notes about a connection.
type keeping struct {
	opened   time.Time
	nextPing time.Time
	pinged   time.Time // when the last ping was queued; zero before the first
	seq      uint32
	ending   time.Time // when the session was ended by the keeper
}

// register adds a connection. The first one starts the keeper.
func (s *Server) register(c *conn) {
	now := time.Now()
	c.keeper = keeping{opened: now, nextPing: now.Add(rand.N(s.limits().PingInterval))}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keeper == nil {
		s.keeper = make(chan struct{})
		go s.keep(s.keeper)
	}
	s.conns[c] = struct{}{}
}

// unregister removes a connection. With the last one the keeper ends.
func (s *Server) unregister(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if len(s.conns) == 0 && s.keeper != nil {
		close(s.keeper)
		s.keeper = nil
	}
}

// keep is the keeper: one goroutine that exists while there are connections and
// serves the timers of all.
func (s *Server) keep(stop <-chan struct{}) {
	ticker := time.NewTicker(keeperTick)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			for _, c := range s.connections() {
				select {
				case <-stop: // another keeper may be at work by now
					return
				default:
					c.look(now)
				}
			}
		case <-stop:
			return
		}
	}
}

// look serves the timers of one connection.
func (c *conn) look(now time.Time) {
	k, l := &c.keeper, c.server.limits()
	if !k.ending.IsZero() {
		if now.Sub(k.ending) > l.PingTimeout {
			c.wire.abort() // it does not even take its close frame
		}
		return
	}
	if err := c.overdue(now); err != nil {
		k.ending = now
		c.session.End(err)
		return
	}
	if c.connected.Load() && !now.Before(k.nextPing) {
		k.seq++
		k.pinged, k.nextPing = now, now.Add(l.PingInterval)
		c.wire.drained.Store(0)
		c.session.Progress()
		c.session.Send(&tidewirev1.Ping{Seq: k.seq})
	}
}

// overdue returns why the session must end now, or nil. Time for a pong runs
// from when the ping was written, so that a slow client is not taken for a dead
// one: one that takes nothing at all is cut off by the writer.
func (c *conn) overdue(now time.Time) *protocol.Error {
	k, l := &c.keeper, c.server.limits()
	if at := c.expires.Load(); at != 0 && now.UnixNano() >= at {
		return protocol.Errorf(protocol.CodeTokenExpired, "the token has expired: come back with a new one")
	}
	if !c.connected.Load() {
		if now.Sub(k.opened) > l.ConnectTimeout {
			return protocol.Exceeded(protocol.LimitConnect, "no connect frame came within %v", l.ConnectTimeout)
		}
		return nil
	}
	written := c.wire.drained.Load()
	if k.pinged.IsZero() || written == 0 || c.reading.Load() || c.lastRead.Load() >= k.pinged.UnixNano() {
		return nil
	}
	if now.UnixNano()-written > l.PingTimeout.Nanoseconds() {
		return protocol.Exceeded(protocol.LimitPing, "no pong came within %v", l.PingTimeout)
	}
	return nil
}
