package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// plain is group commit and nothing else: a queue, and one goroutine that appends
// what has gathered to a file, syncs it and answers. There is no index, no dedupe
// and no other file. What it loses against bench/limit is what publishers cost that
// wait for their answers on the same cores.
type plain struct {
	file  *os.File
	sizes *bufio.Writer

	mu    sync.Mutex
	some  sync.Cond // queue is not empty, or ended is set
	queue []waiting
	ended bool
}

// waiting is a record with whoever waits for its answer.
type waiting struct {
	record   []byte
	answered chan<- error
}

// commit is the writer.
func (p *plain) commit() {
	var batch []byte
	var spare []waiting
	for {
		p.mu.Lock()
		for len(p.queue) == 0 && !p.ended {
			p.some.Wait()
		}
		taken := p.queue
		p.queue = spare[:0]
		p.mu.Unlock()
		if len(taken) == 0 {
			return
		}
		batch = batch[:0]
		for _, w := range taken {
			batch = append(batch, w.record...)
		}
		_, err := p.file.Write(batch)
		if err == nil {
			err = syscall.Fdatasync(int(p.file.Fd()))
		}
		_, _ = fmt.Fprintln(p.sizes, len(batch))
		for _, w := range taken {
			w.answered <- err
		}
		spare = taken
	}
}

// publish is one publisher, which waits for each answer.
func (p *plain) publish(messages int) error {
	answered := make(chan error, 1)
	payload := make([]byte, payloadBytes)
	for i := range messages {
		m := protocol.Message{ID: fmt.Sprintf("%012x-%d", i, i), Topic: oneTopic(i), Payload: payload}
		w := waiting{protocol.AppendRecord(make([]byte, 0, 256), &m), answered}
		p.mu.Lock()
		p.queue = append(p.queue, w)
		p.mu.Unlock()
		p.some.Signal()
		if err := <-answered; err != nil {
			return err
		}
	}
	return nil
}

// stepPlain has all publishers publish to a plain file: DIR SIZES COUNT.
func stepPlain(args []string) (err error) {
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	noted, err := os.Create(args[1])
	if err != nil {
		return err
	}
	if err := os.MkdirAll(args[0], 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(filepath.Join(args[0], "plain"), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	p := &plain{file: file, sizes: bufio.NewWriter(noted)}
	p.some.L = &p.mu
	var writer, all sync.WaitGroup
	begin := time.Now()
	writer.Go(p.commit)
	errs := make([]error, publishers)
	for i := range publishers {
		share := n / publishers
		if i < n%publishers {
			share++
		}
		all.Go(func() { errs[i] = p.publish(share) })
	}
	all.Wait()
	seconds := time.Since(begin).Seconds()
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.some.Signal()
	writer.Wait()
	err = errors.Join(errors.Join(errs...), p.sizes.Flush(), noted.Close(), file.Close(), os.RemoveAll(args[0]))
	if err == nil {
		fmt.Println(seconds)
	}
	return err
}
