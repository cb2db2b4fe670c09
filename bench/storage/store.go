package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

const (
	payloadBytes = 128
	publishers   = 256
)

// store is an open log that commits what it is given.
type store struct {
	dir   string
	store *storage.Store
	log   *storage.Log
	sizes io.Writer // where the bytes of each commit are noted, or nil
	boot  string    // makes ids unique
	next  atomic.Int64
	stop  context.CancelFunc
	ended chan error
}

func openStore(dir string, o storage.LogOptions, sizes io.Writer) (*store, error) {
	s := &store{dir: dir, sizes: sizes, ended: make(chan error, 1)}
	var boot [6]byte
	_, _ = rand.Read(boot[:])
	s.boot = hex.EncodeToString(boot[:])
	o.Logger = slog.New(slog.DiscardHandler)
	var err error
	if s.store, err = storage.Open(dir, storage.Options{Logger: o.Logger}); err != nil {
		return nil, err
	}
	if s.log, err = s.store.OpenLog("main", o); err != nil {
		return nil, errors.Join(err, s.store.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go func() { s.ended <- s.log.Run(ctx, s.apply) }()
	return s, nil
}

func (s *store) apply(c *storage.Commit) {
	if s.sizes != nil && len(c.Chunk.Records) > 0 {
		_, _ = fmt.Fprintln(s.sizes, len(c.Chunk.Records))
	}
	for _, a := range c.Answers {
		a.Entry.Done(a.Result)
	}
}

func (s *store) close() error {
	s.stop()
	return errors.Join(<-s.ended, s.log.Close(), s.store.Close())
}

// remove closes the store and removes its files.
func (s *store) remove() error { return errors.Join(s.close(), os.RemoveAll(s.dir)) }

// entry makes a message with an id of its own.
func (s *store) entry(topic string, done func(storage.Result)) *storage.Entry {
	m := protocol.Message{
		ID:      fmt.Sprintf("%s-%d", s.boot, s.next.Add(1)),
		Topic:   topic,
		Payload: make([]byte, payloadBytes),
	}
	return &storage.Entry{
		Topic:   topic,
		Record:  protocol.AppendRecord(make([]byte, 0, 256), &m),
		Key:     storage.KeyOf(m.Topic, m.ID),
		Payload: storage.PayloadHash(m.Payload),
		Done:    done,
	}
}

// publish has all publishers publish n messages together, each waiting for its
// answer before it goes on, and returns the seconds.
func (s *store) publish(n int, topic func(i int) string) (float64, error) {
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	var failed atomic.Pointer[protocol.Error]
	begin := time.Now()
	for range publishers {
		wg.Go(func() {
			answered := make(chan *protocol.Error, 1)
			for i := left.Add(-1); i >= 0 && failed.Load() == nil; i = left.Add(-1) {
				e := s.entry(topic(int(i)), func(r storage.Result) { answered <- r.Err })
				if err := s.log.Append(context.Background(), e); err != nil {
					failed.Store(protocol.AsError(err))
					return
				}
				if err := <-answered; err != nil {
					failed.Store(err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, err
	}
	return time.Since(begin).Seconds(), nil
}

// fill publishes n messages in bulk.
func (s *store) fill(n int, topic func(i int) string) error {
	const bulk = 4000
	for at := 0; at < n; at += bulk {
		var wg sync.WaitGroup
		entries := make([]*storage.Entry, min(bulk, n-at))
		wg.Add(len(entries))
		for i := range entries {
			entries[i] = s.entry(topic(at+i), func(storage.Result) { wg.Done() })
		}
		if err := s.log.Append(context.Background(), entries...); err != nil {
			return err
		}
		if at/bulk%8 == 7 {
			wg.Wait()
		}
	}
	_, err := s.publish(1, topic) // the ones before are answered then
	return err
}

func oneTopic(int) string { return "bench.one" }

func manyTopics(i int) string { return fmt.Sprintf("bench.%d", i%10_000) }
