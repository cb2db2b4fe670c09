package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/server"
	"github.com/tidewire/tidewire/config"
	"github.com/tidewire/tidewire/storage"
)

// A Program is a broker with its listeners, as a value. Its fields are set
// before Run and not changed.
type Program struct {
	Config  *config.Config
	Version string
	Out     io.Writer    // takes the line for people that says where everything is
	Logger  *slog.Logger // takes the rest
	Reload  Reload

	// Started, if not nil, is called once with the addresses of the listeners,
	// when both take requests.
	Started func(public, admin net.Addr)

	// Process is set if a supervisor starts the broker again when it dies.
	Process *server.Process

	// Watch, if not nil, runs while requests are taken, until its context ends;
	// audience counts who listens to a topic.
	Watch func(ctx context.Context, audience func(topic string) int)
}

// Run serves until ctx ends, and then lets the clients go. It returns nil if
// everything that was taken in has been answered; an error is one sentence.
func (p *Program) Run(ctx context.Context) error {
	files, err := p.shareFiles()
	if err != nil {
		return err
	}
	pages, err := pages(p.Version, p.Config.Dev)
	if err != nil {
		return err
	}
	if !config.Loopback(p.Config.Admin) {
		p.Logger.Warn("the admin listener asks nobody for a key: let only operators reach it", "address", p.Config.Admin)
	}
	// The ports come first: where one is taken, the data is not touched.
	public, err := listen("listen", p.Config.Listen)
	if err != nil {
		return err
	}
	defer func() { _ = public.Close() }()
	admin, err := listen("admin", p.Config.Admin)
	if err != nil {
		return err
	}
	defer func() { _ = admin.Close() }()

	o := options{config: p.Config, logger: p.Logger, registry: prometheus.NewRegistry(), files: files, pages: pages}
	store, err := storage.Open(p.Config.Data, o.storage())
	if err != nil {
		return err
	}
	defer p.close("data directory", store)
	logs := &logs{options: o, store: store}
	defer logs.close(p)
	if err := logs.open(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // it was asked to end while it waited for Kafka
		}
		return err
	}

	b := broker.New(logs.main, o.broker(), logs.others...)
	if err := logs.consumers(b); err != nil {
		return err
	}
	if err := configured(p.Config.Consumers).check(b); err != nil {
		return err
	}
	s, err := server.New(b, p.edge(o, logs))
	if err != nil {
		return err
	}
	r := &running{
		program: p, options: o, broker: b, server: s, cluster: logs.shared,
		public: newDoor(s.Gate(public), s.HTTP(s.Public())),
		admin:  newDoor(s.AdminGate(admin), s.HTTP(s.Admin())),
	}
	return r.run(ctx)
}

// edge returns the options of the server before all that.
func (p *Program) edge(o options, logs *logs) server.Options {
	edge := o.server(p.Version)
	edge.Process = p.Process
	edge.Ready = logs.ready
	edge.Degraded = logs.degraded
	if logs.shared == nil {
		edge.Backup = func(ctx context.Context, w io.Writer) (storage.Manifest, error) {
			return logs.store.Backup(ctx, w, p.Version)
		}
	}
	return edge
}

const connectionsLowered = "limits.connections is lowered to what the open files of this process allow: raise the limit of the system (ulimit -n, or LimitNOFILE of systemd) or lower the setting"

// shareFiles says how many files are for what, and tells if connections get
// fewer than the configuration wants.
func (p *Program) shareFiles() (fileBudget, error) {
	files, wanted := openFiles(), p.Config.Limits.Connections
	b, err := budgetFiles(files, wanted, logsOnDisk(p.Config))
	if err == nil && b.connections < wanted {
		p.Logger.Warn(connectionsLowered,
			"setting", wanted, "connections", b.connections, "open_files", files)
	}
	return b, err
}

func (p *Program) close(what string, c io.Closer) {
	if err := c.Close(); err != nil {
		p.Logger.Error("closing failed", "what", what, "error", err)
	}
}

// running is a broker whose parts are all open.
type running struct {
	program       *Program
	options       options // in effect; those of the configuration change with a reload
	broker        *broker.Broker
	server        *server.Server
	cluster       *clustered // nil unless it is a node of one
	public, admin *door
}

// run starts the log, sees to the consumers of the configuration and opens the
// doors. It ends everything in the order in which nobody who was promised an
// answer is cut off: sessions go, the log takes what is queued and refuses the
// rest, the answers leave, the listeners close.
func (r *running) run(ctx context.Context) error {
	logging, stopLog := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLog()
	ctx, end := context.WithCancelCause(ctx)
	fail := func() { end(errFailed) }
	defer fail()

	var logger, doors sync.WaitGroup
	var logError, publicError, adminError error // read after Wait
	logger.Go(func() {
		defer fail()
		logError = r.broker.Run(logging)
	})
	leave := r.cluster.enter(logging, fail)
	// Nobody is answered before the consumers are there that were promised; in a
	// cluster they may have to wait for Kafka, and readiness does with them.
	refused := r.cluster.promise(ctx, r)
	if refused == nil {
		doors.Go(func() {
			defer fail()
			publicError = r.public.serve()
		})
		doors.Go(func() {
			defer fail()
			adminError = r.admin.serve()
		})
		if watch := r.program.Watch; watch != nil {
			doors.Go(func() { watch(ctx, r.broker.Audience) })
		}
		if r.cluster != nil {
			doors.Go(func() { r.cluster.disperse(ctx, r.disperse) })
		}
		r.announce()
		r.untilEnd(ctx)
		r.letGo(ctx)
	} else if ctx.Err() != nil {
		refused = nil // it was asked to end, or its log has
	}
	stopLog()
	logger.Wait()
	left := leave()
	r.public.close()
	r.admin.close()
	doors.Wait()
	switch {
	case logError != nil && r.cluster != nil:
		return errors.Join(left, logError)
	case logError != nil:
		return fmt.Errorf("the log cannot be written any more, and what was waiting was answered with outcome_unknown (%w): look after the disk, then start the broker again", logError)
	}
	return errors.Join(left, refused, publicError, adminError)
}

// errFailed is why a broker ends that nobody has asked to.
var errFailed = errors.New("a part of the broker failed")

// letGo sends the sessions elsewhere and waits for them. After a failure there
// is less to wait for: what was published has its answer.
func (r *running) letGo(ended context.Context) {
	shutdown := r.options.config.Shutdown
	drain := time.Duration(shutdown.Drain)
	if errors.Is(context.Cause(ended), errFailed) {
		drain = min(drain, lastWords)
	}
	r.program.Logger.Info("shutting down", "drain", drain)
	ctx, stop := context.WithTimeout(context.WithoutCancel(ended), drain)
	defer stop()
	r.server.Drain(ctx, time.Duration(shutdown.Spread))
}

// disperse asks the sessions to go to another node.
func (r *running) disperse(reason string) {
	r.program.Logger.Warn("sessions are asked to go to other nodes", "reason", reason)
	r.server.Disperse(time.Duration(r.options.config.Shutdown.Spread), reason)
}

// announce tells people where everything is.
func (r *running) announce() {
	p := r.program
	data, err := filepath.Abs(p.Config.Data)
	if err != nil {
		data = p.Config.Data
	}
	if r.cluster != nil {
		data += ", " + r.cluster.String()
	}
	base := "http://" + r.public.listener.Addr().String()
	who := "clients need a key or a token"
	switch {
	case !p.Config.Auth.Configured():
		who = "anonymous, this machine only"
	case p.Config.Auth.Anonymous.Allows():
		who = "some topics are open to anonymous clients"
	}
	_, _ = fmt.Fprintf(p.Out, "Tidewire %s listens on %s (%s), admin http://%s, data in %s\n", p.Version, base, who, r.admin.listener.Addr(), data)
	if p.Config.Dev {
		_, _ = fmt.Fprintf(p.Out, "  demo     %s/\n", base)
		_, _ = fmt.Fprintf(p.Out, "  watch    %s/v1/events?filter=room.1 (a browser shows it too)\n", base)
		_, _ = fmt.Fprintf(p.Out, "  publish  curl -d hello %s/v1/topics/room.1/messages\n", base)
	}
	if p.Started != nil {
		p.Started(r.public.listener.Addr(), r.admin.listener.Addr())
	}
}
