package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tidewire/tidewire/broker"
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
	control *storage.Log    // what consumers have done
	disk    []*storage.Log
}

// controlLog is the name of the log that is no stream: it holds what consumers
// have done, and lets go of it by itself.
const controlLog = "control"

// open opens them. What it opened is to be closed even if it fails.
func (l *logs) open() error {
	streams := l.options.config.Streams
	if err := l.survey(streams); err != nil {
		return err
	}
	main, err := l.onDisk(broker.MainStream, l.options.log(streams.Main))
	if err != nil {
		return err
	}
	l.main = main
	for _, s := range streams.Others {
		stream := broker.Stream{Name: s.Name}
		for _, text := range s.Filters {
			f, err := protocol.ParseFilter(text)
			if err != nil {
				return fmt.Errorf("the stream %s: %w", s.Name, err)
			}
			stream.Filters = append(stream.Filters, f)
		}
		log, err := l.other(s)
		if err != nil {
			return err
		}
		stream.Logs = []broker.Log{log}
		l.others = append(l.others, stream)
	}
	dead, err := l.onDisk(broker.DeadStream, l.options.log(streams.Dead))
	if err != nil {
		return err
	}
	l.others = append(l.others, broker.Stream{Name: broker.DeadStream, Logs: []broker.Log{dead}})
	l.control, err = l.onDisk(controlLog, l.options.control())
	return err
}

// logsOnDisk counts the logs that are kept on disk.
func logsOnDisk(streams config.Streams) int {
	return len(streamsOnDisk(streams)) + 1 // what consumers have done
}

// survey compares what is in the data directory with what is configured. Data is
// never removed for a line that is missing in a file: it is told.
func (l *logs) survey(streams config.Streams) error {
	stored, err := l.store.Streams()
	if err != nil {
		return err
	}
	kept := map[string]string{broker.MainStream: config.StorageDisk, broker.DeadStream: config.StorageDisk, controlLog: config.StorageDisk}
	for _, s := range streams.Others {
		kept[s.Name] = s.Storage
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

// ready returns nil, or why some stream cannot do all its work.
func (l *logs) ready() error {
	var reasons []string
	for _, log := range l.disk {
		if err := log.Ready(); err != nil {
			reasons = append(reasons, err.Error())
		}
	}
	if len(reasons) == 0 {
		return nil
	}
	return errors.New(strings.Join(reasons, "; ")) // one line for people
}

// degraded lists what is damaged, of all streams.
func (l *logs) degraded() (all []string) {
	for _, log := range l.disk {
		all = append(all, log.Degraded()...)
	}
	return all
}

func (l *logs) close(p *Program) {
	for _, log := range l.disk {
		p.close("log", log)
	}
}
