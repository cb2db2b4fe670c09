package server

import (
	"time"

	"github.com/lxzan/gws"

	"github.com/tidewire/tidewire/protocol"
)

// Limits bound what clients can make large, many or slow. Zero values mean the
// defaults, which stand in [protocol.Limits].
type Limits struct {
	PayloadBytes    int
	FrameBytes      int
	PublishMessages int // in one frame
	InFlight        int // told to clients, kept by the broker
	Subscriptions   int // of a session; told to clients, kept by the broker
	Connections     int
	ReceivingBytes  int // of frames and bodies that are arriving, in all
	HistoryMessages int // in one answer
	Rates           Rates

	ConnectionsPerAddress int // 0 is no limit

	PingInterval   time.Duration // 25 s
	PingTimeout    time.Duration
	ConnectTimeout time.Duration // from the handshake to Connect, and for the head of a request
	WriteTimeout   time.Duration // for one write of at most 256 KiB
	BodyTimeout    time.Duration // for the body of a request
}

// Rates bound what clients do in a second. 0 is no limit.
type Rates struct {
	Connections  int // new ones of the public listener
	InboundBytes int // of one connection
}

func (l Limits) withDefaults() Limits {
	setTime := func(v *time.Duration, of protocol.Limit) {
		if *v == 0 {
			*v = of.DefaultTime()
		}
	}
	protocol.LimitPayload.SetDefault(&l.PayloadBytes)
	protocol.LimitFrame.SetDefault(&l.FrameBytes)
	protocol.LimitMessages.SetDefault(&l.PublishMessages)
	protocol.LimitInFlight.SetDefault(&l.InFlight)
	protocol.LimitSubscriptions.SetDefault(&l.Subscriptions)
	protocol.LimitConnections.SetDefault(&l.Connections)
	protocol.LimitReceiving.SetDefault(&l.ReceivingBytes)
	protocol.LimitHistory.SetDefault(&l.HistoryMessages)
	setTime(&l.PingTimeout, protocol.LimitPing)
	setTime(&l.ConnectTimeout, protocol.LimitConnect)
	setTime(&l.WriteTimeout, protocol.LimitWrite)
	setTime(&l.BodyTimeout, protocol.LimitBody)
	if l.PingInterval == 0 {
		l.PingInterval = 25 * time.Second
	}
	return l
}

// rules are what may change while the server runs. They are not changed, but
// others may come into effect.
type rules struct {
	limits    Limits
	access    *access
	upgraders map[string]*gws.Upgrader // by subprotocol
}

func newRules(a Access, l Limits, dev bool) (*rules, error) {
	access, err := newAccess(a, dev)
	if err != nil {
		return nil, err
	}
	r := &rules{limits: l.withDefaults(), access: access, upgraders: make(map[string]*gws.Upgrader)}
	for _, c := range codecs {
		r.upgraders[c.Subprotocol()] = r.newUpgrader(c.Subprotocol())
	}
	return r, nil
}

func (s *Server) limits() *Limits { return &s.rules.Load().limits }

func (s *Server) access() *access { return s.rules.Load().access }
