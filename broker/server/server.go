package server

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// Options are the settings of a [Server]. Zero values mean the defaults.
type Options struct {
	Access   Access   // who may come in
	Limits   Limits   // how much of it
	Version  string   // shown in Welcome
	Dev      bool     // admit local pages; see Access
	Process  *Process // nil if nobody starts the broker again when it dies
	Registry *prometheus.Registry
	Logger   *slog.Logger
	Ready    func() error    // nil means ready; else why not
	Degraded func() []string // what an operator must look at although requests are served

	// Files are served beside the API; the paths of the API come first.
	Files []File

	// Backup writes a backup to w; nil if there is nothing to back up.
	Backup func(ctx context.Context, w io.Writer) (storage.Manifest, error)
}

// A Server is the edge of one broker.
type Server struct {
	broker  *broker.Broker
	options Options
	rules   atomic.Pointer[rules]

	reloading sync.Mutex // held while sessions are looked at for new rules

	metrics *metrics
	log     *slog.Logger

	streams   streams   // of server-sent events
	pages     pages     // of history
	receiving receiving // of frames and bodies
	batches   batchTurns

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
	rules, err := newRules(o.Access, o.Limits, o.Dev)
	if err != nil {
		return nil, err
	}
	s := &Server{
		broker: b, options: o,
		metrics: newMetrics(o.Registry), log: o.Logger, conns: make(map[*conn]struct{}),
	}
	s.draining.ctx, s.draining.begin = context.WithCancelCause(context.Background())
	s.rules.Store(rules)
	s.receiving.gauge = s.metrics.receiving
	s.receiving.bound = func() int64 { return int64(s.limits().ReceivingBytes) }
	return s, nil
}

// Public returns the handler of the public listener.
func (s *Server) Public() http.Handler {
	r := newRouter()
	r.handle("GET", "/v1/ws", s.serveWebSocket)
	r.handle("POST", "/v1/topics/{topic}/messages", s.publish)
	r.handle("GET", "/v1/topics/{topic}/messages", s.history)
	r.handle("POST", "/v1/messages", s.publishBatch)
	r.handle("GET", "/v1/events", s.events)
	r.handle("POST", "/v1/consumers/{name}/fetch", s.fetch)
	r.handle("POST", "/v1/consumers/{name}/ack", s.ack)
	r.handle("GET", "/v1/openapi.yaml", openAPI)
	r.handle("GET", "/healthz", s.healthz)
	r.handle("GET", "/readyz", s.readyz)
	if s.options.Dev && s.options.Process != nil {
		r.add(http.MethodGet, "/dev/processes", s.processes)
		r.add(http.MethodPost, "/dev/kill", s.kill)
	}
	for i := range s.options.Files {
		f := &s.options.Files[i]
		r.add(http.MethodGet, f.Path, f.handler())
	}
	return s.guard(r)
}

// HTTP returns what answers requests with one of the server's handlers. The
// caller serves its listeners with it, which [Server.Gate] and
// [Server.AdminGate] bound, and ends it with Shutdown, after
// [Server.Drain]: then answers that are on their way are not cut off.
func (s *Server) HTTP(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ConnContext:       withGuest,
		ConnState:         connState,
		ReadHeaderTimeout: s.limits().ConnectTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    protocol.LimitRequestHead.Default(),
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
		c.goAway(spread, "the broker is shutting down")
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

// Disperse asks all sessions to go elsewhere and come back after a random part of
// spread, and goes on serving those that do not. It is for a node of a cluster that
// is not ready any more.
func (s *Server) Disperse(spread time.Duration, reason string) {
	for _, c := range s.connections() {
		c.goAway(spread, reason)
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
