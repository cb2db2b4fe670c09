package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/config"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// logs are the logs of all streams.
type logs struct {
	options options
	store   *storage.Store

	main   broker.Log
	others []broker.Stream // in the order of the configuration
	disk   []*storage.Log
}

// open opens them. What it opened is to be closed even if it fails.
func (l *logs) open() error {
	streams := l.options.config.Streams
	main, err := l.onDisk(broker.MainStream, l.options.log(streams.Main))
	if err != nil {
		return err
	}
	l.main = main
	for _, s := range streams.Others {
		if s.Storage != config.StorageDisk {
			return fmt.Errorf("the stream %s: this version keeps streams on disk alone; write storage: disk", s.Name)
		}
		stream := broker.Stream{Name: s.Name}
		for _, text := range s.Filters {
			f, err := protocol.ParseFilter(text)
			if err != nil {
				return fmt.Errorf("the stream %s: %w", s.Name, err)
			}
			stream.Filters = append(stream.Filters, f)
		}
		if stream.Log, err = l.onDisk(s.Name, l.options.log(s.Stream)); err != nil {
			return err
		}
		l.others = append(l.others, stream)
	}
	return nil
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
	errs := make([]error, 0, len(l.disk))
	for _, log := range l.disk {
		errs = append(errs, log.Ready())
	}
	return errors.Join(errs...)
}

func (l *logs) close(p *Program) {
	for _, log := range l.disk {
		p.close("log", io.Closer(log))
	}
}
