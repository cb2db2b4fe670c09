package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/bridge"
	"github.com/tidewire/tidewire/config"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// logs are the logs of all streams.
type logs struct {
	options options
	store   *storage.Store

	main    broker.Log
	others  []broker.Stream // in the order of the configuration, and then the dead letters
	control *storage.Log    // what consumers have done; nil in a cluster
	disk    []*storage.Log
	shared  *clustered // nil unless the broker is a node of a cluster
}

// controlLog is the name of the log that is no stream: it holds what consumers
// have done, and lets go of it by itself.
const controlLog = "control"

// open opens them. What it opened is to be closed even if it fails.
func (l *logs) open(ctx context.Context) (err error) {
	if isClustered(l.options.config) {
		if l.shared, err = joinCluster(ctx, l.options); err != nil {
			return err
		}
	}
	if err := l.survey(l.options.config.Streams); err != nil {
		return err
	}
	if err := l.openOthers(ctx); err != nil {
		return err
	}
	if l.shared != nil {
		return l.openShared(ctx, broker.DeadStream, broker.MainStream)
	}
	return l.openOwn()
}

// openOwn opens what a broker has that is no node of a cluster.
func (l *logs) openOwn() error {
	streams := &l.options.config.Streams
	main, err := l.onDisk(broker.MainStream, l.options.log(streams.Main))
	if err != nil {
		return err
	}
	l.main = main
	dead, err := l.onDisk(broker.DeadStream, l.options.log(streams.Dead))
	if err != nil {
		return err
	}
	l.others = append(l.others, broker.Stream{Name: broker.DeadStream, Logs: []broker.Log{dead}})
	l.control, err = l.onDisk(controlLog, l.options.control())
	return err
}

// openShared opens streams that all nodes of the cluster have.
func (l *logs) openShared(ctx context.Context, names ...string) error {
	for _, s := range kafkaStreams(&l.options.config.Streams) {
		if !slices.Contains(names, s.name) {
			continue
		}
		stream, err := l.shared.open(ctx, l.store, s)
		if err != nil {
			return err
		}
		if stream.Filters, err = parseFilters(s.name, s.filters); err != nil {
			return err
		}
		l.others = append(l.others, stream)
	}
	return nil
}

// openOthers opens the streams beside main and dead.
func (l *logs) openOthers(ctx context.Context) error {
	for _, s := range l.options.config.Streams.Others {
		if l.shared != nil && !s.Local {
			if err := l.openShared(ctx, s.Name); err != nil {
				return err
			}
			continue
		}
		filters, err := parseFilters(s.Name, s.Filters)
		if err != nil {
			return err
		}
		log, err := l.other(s)
		if err != nil {
			return err
		}
		l.others = append(l.others, broker.Stream{Name: s.Name, Filters: filters, Logs: []broker.Log{log}})
	}
	return nil
}

func parseFilters(stream string, texts []string) (all []protocol.Filter, err error) {
	for _, text := range texts {
		f, err := protocol.ParseFilter(text)
		if err != nil {
			return nil, fmt.Errorf("the stream %s: %w", stream, err)
		}
		all = append(all, f)
	}
	return all, nil
}

// logsOnDisk counts the logs that are kept on disk.
func logsOnDisk(c *config.Config) int {
	return len(logNames(c))
}

// logNames are the names of the logs on disk: in a cluster each partition has
// its own, and consumers are in the control topic.
func logNames(c *config.Config) (names []string) {
	shared := isClustered(c)
	if !shared {
		names = append(names, broker.MainStream, broker.DeadStream, controlLog)
	} else {
		for _, s := range kafkaStreams(&c.Streams) {
			for number := range s.settings.Partitions {
				names = append(names, bridge.LogName(s.name, number))
			}
		}
	}
	for _, s := range c.Streams.Others {
		if s.Storage == config.StorageDisk && (s.Local || !shared) {
			names = append(names, s.Name)
		}
	}
	return names
}

// survey compares what is in the data directory with what is configured. Data is
// never removed for a line that is missing in a file: it is told.
func (l *logs) survey(streams config.Streams) error {
	stored, err := l.store.Streams()
	if err != nil {
		return err
	}
	kept := make(map[string]string)
	for _, s := range streams.Others {
		kept[s.Name] = s.Storage
	}
	for _, name := range logNames(l.options.config) {
		kept[name] = config.StorageDisk
	}
	for _, name := range stored {
		switch kept[name] {
		case config.StorageDisk:
		case config.StorageMemory:
			return fmt.Errorf("the stream %s is to be kept in memory, but %s has its data on disk: write storage: disk, or move that directory away", name, l.store.Path(name))
		default:
			l.options.logger.Warn("a stream has data, but is not configured: it is neither served nor removed", "stream", name, "directory", l.store.Path(name))
		}
	}
	return nil
}

// other opens the log of a stream beside main.
func (l *logs) other(s config.OtherStream) (broker.Log, error) {
	if s.Storage == config.StorageMemory {
		return storage.NewMemoryLog(s.Name, l.options.memory(s)), nil
	}
	o := l.options.log(s.Stream)
	o.Filters = s.Filters
	return l.onDisk(s.Name, o)
}

func (l *logs) onDisk(name string, o storage.LogOptions) (*storage.Log, error) {
	log, err := l.store.OpenLog(name, o)
	if err == nil {
		l.disk = append(l.disk, log)
	}
	return log, err
}

// consumers makes the consumers of a broker go on where they were, or be those of
// the cluster.
func (l *logs) consumers(b *broker.Broker) error {
	if l.shared != nil {
		return l.shared.join(b)
	}
	if err := b.OpenConsumers(l.control); err != nil {
		return fmt.Errorf("read what consumers have done: %w", err)
	}
	return nil
}

// ready returns nil, or why some stream cannot do all its work.
func (l *logs) ready() error {
	var reasons []string
	for _, log := range l.disk {
		if err := log.Ready(); err != nil {
			reasons = append(reasons, err.Error())
		}
	}
	if l.shared != nil {
		reasons = append(reasons, l.shared.ready()...)
	}
	return sentences(reasons)
}

// degraded lists what is damaged, of all streams.
func (l *logs) degraded() (all []string) {
	for _, log := range l.disk {
		all = append(all, log.Degraded()...)
	}
	if l.shared != nil {
		all = append(all, l.shared.degraded()...)
	}
	return all
}

func (l *logs) close(p *Program) {
	for _, log := range l.disk {
		p.close("log", log)
	}
	l.shared.close(p.Logger)
}
