package server

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lxzan/gws"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// Options are the settings of a [Server]. Zero values mean the defaults.
type Options struct {
	Access   Access // who may come in
	Limits   Limits // how much of it
	Version  string // shown in Welcome
	Dev      bool   // admit local pages; see Access
	Registry *prometheus.Registry
	Logger   *slog.Logger
	Ready    func() error // nil means ready; else why not

	// Backup writes a backup to w; nil if there is nothing to back up.
	Backup func(ctx context.Context, w io.Writer) (storage.Manifest, error)
}

// Limits bound what clients can make large or slow. Zero values mean the
// defaults.
type Limits struct {
	PayloadBytes    int           // 256 KiB
	FrameBytes      int           // 1 MiB
	PublishMessages int           // in one frame; 1000
	InFlight        int           // 1024; told to clients, kept by the broker
	Subscriptions   int           // of a session; 1000; told to clients, kept by the broker
	Connections     int           // 10,000
	PingInterval    time.Duration // 25 s
	PingTimeout     time.Duration // 10 s
	ConnectTimeout  time.Duration // from the handshake to Connect, and for the head of a request; 10 s
	WriteTimeout    time.Duration // for one write of at most 256 KiB; 30 s
	HistoryMessages int           // in one answer; 1000
}

func (l Limits) withDefaults() Limits {
	setInt := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	setTime := func(v *time.Duration, def time.Duration) {
		if *v == 0 {
			*v = def
		}
	}
	setInt(&l.PayloadBytes, 256<<10)
	setInt(&l.FrameBytes, 1<<20)
	setInt(&l.PublishMessages, 1000)
	setInt(&l.InFlight, 1024)
	setInt(&l.Subscriptions, 1000)
	setInt(&l.Connections, 10_000)
	setInt(&l.HistoryMessages, 1000)
	setTime(&l.PingInterval, 25*time.Second)
	setTime(&l.PingTimeout, 10*time.Second)
	setTime(&l.ConnectTimeout, 10*time.Second)
	setTime(&l.WriteTimeout, 30*time.Second)
	return l
}

// A Server is the edge of one broker.
type Server struct {
	broker  *broker.Broker
	limits  Limits
	options Options
	access  *access
	metrics *metrics
	log     *slog.Logger

	upgraders map[string]*gws.Upgrader // by subprotocol

	streams streams // of server-sent events
	pages   pages   // of history

	draining draining
	lastSeq  atomic.Uint64 // of sessions

	mu     sync.Mutex
	conns  map[*conn]struct{}
	keeper chan struct{} // closed to end the keeper; nil while there is none
}

// New returns a server. It fails if the access rules make no sense.
func New(b *broker.Broker, o Options) (*Server, error) {
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	access, err := newAccess(o.Access, o.Dev)
	if err != nil {
		return nil, err
	}
	s := &Server{
		broker: b, limits: o.Limits.withDefaults(), options: o, access: access,
		metrics: newMetrics(o.Registry), log: o.Logger, conns: make(map[*conn]struct{}),
		upgraders: make(map[string]*gws.Upgrader),
	}
	s.draining.ctx, s.draining.begin = context.WithCancelCause(context.Background())
	for _, c := range codecs {
		s.upgraders[c.Subprotocol()] = s.newUpgrader(c.Subprotocol())
	}
	return s, nil
}

// Public returns the handler of the public listener.
func (s *Server) Public() http.Handler {
	r := newRouter()
	r.handle("GET", "/v1/ws", s.serveWebSocket)
	r.handle("POST", "/v1/topics/{topic}/messages", s.publish)
	r.handle("GET", "/v1/topics/{topic}/messages", s.history)
	r.handle("GET", "/v1/events", s.events)
	r.handle("GET", "/healthz", s.healthz)
	r.handle("GET", "/readyz", s.readyz)
	return s.guard(r)
}

// HTTP returns what answers requests with one of the server's handlers. The
// caller serves its listeners with it and ends it with Shutdown, after
// [Server.Drain]: then answers that are on their way are not cut off.
func (s *Server) HTTP(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: s.limits.ConnectTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// Drain makes the server not ready, asks all sessions to go and come back
// after a random part of spread, and waits until they have gone or ctx ends;
// then it closes the rest.
func (s *Server) Drain(ctx context.Context, spread time.Duration) {
	s.draining.begin(errDraining)
	s.streams.end(spread)
	for _, c := range s.connections() {
		c.goAway(spread)
	}
	s.untilGone(ctx)
	for _, c := range s.connections() {
		c.session.End(errDraining)
	}
	last, stop := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
	defer stop()
	s.untilGone(last) // their close frames are on the way
	for _, c := range s.connections() {
		c.wire.abort()
	}
}

// lastWords is how long the close frames of a shutdown may take.
const lastWords = time.Second

var errDraining = protocol.Errorf(protocol.CodeGoingAway, "the broker is shutting down: connect again")

// draining is a context that ends when the server lets its clients go.
type draining struct {
	ctx   context.Context
	begin context.CancelCauseFunc
}

// Load reports whether it has.
func (d *draining) Load() bool { return d.ctx.Err() != nil }

// untilGone waits until there are no connections or ctx ends.
func (s *Server) untilGone(ctx context.Context) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for len(s.connections()) > 0 {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) connections() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	return all
}
