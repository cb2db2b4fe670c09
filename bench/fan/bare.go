package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/fetch"
	"github.com/tidewire/tidewire/tests/kafka"
)

const bareTopic = "bare"

// bare is the least that one can write with the library that the broker uses too,
// from produce to fetched, in this process: what waits goes with one request
// after the other, acknowledged by all replicas, and another goroutine polls. The
// batches are bounded as the broker's are, and so are the answers.
type bare struct {
	waiting chan []byte
	got     chan int   // messages that one fetch brought
	failed  chan error // holds the first of the two goroutines'
	stop    func()
}

// bareBatch is the most records of a request: what the broker's 900,000 bytes
// hold of them.
const bareBatch = 900_000 / (payloadBytes + 16)

func startBare(k *kafka.Cluster) (*bare, error) {
	ctx, cancel := context.WithCancel(context.Background())
	if err := k.CreateTopic(ctx, bareTopic, kafka.Topic{}); err != nil {
		cancel()
		return nil, err
	}
	transport := &kafkago.Transport{}
	client := &kafkago.Client{Addr: kafkago.TCP(k.Addresses(kafka.Plain)...), Transport: transport}
	l := &bare{waiting: make(chan []byte, bareBatch), got: make(chan int, 1<<16), failed: make(chan error, 2)}
	var wg sync.WaitGroup
	for _, side := range []func(context.Context, *kafkago.Client) error{l.produce, l.fetch} {
		wg.Go(func() {
			if err := side(ctx, client); err != nil && ctx.Err() == nil {
				l.failed <- fmt.Errorf("the bare loop: %w", err)
			}
		})
	}
	l.stop = func() {
		cancel()
		transport.CloseIdleConnections()
		wg.Wait()
	}
	return l, nil
}

func bareRecord(v []byte) protocol.Record {
	return protocol.Record{Key: protocol.NewBytes([]byte("bench.path")), Value: protocol.NewBytes(v), Time: time.Now()}
}

func (l *bare) produce(ctx context.Context, client *kafkago.Client) error {
	for {
		var records []protocol.Record
		select {
		case v := <-l.waiting:
			records = append(records, bareRecord(v))
		case <-ctx.Done():
			return nil
		}
		for more := true; more && len(records) < bareBatch; {
			select {
			case v := <-l.waiting:
				records = append(records, bareRecord(v))
			default:
				more = false
			}
		}
		answer, err := client.Produce(ctx, &kafkago.ProduceRequest{Topic: bareTopic, RequiredAcks: kafkago.RequireAll, Records: protocol.NewRecordReader(records...)})
		if err != nil {
			return err
		}
		if answer.Error != nil {
			return answer.Error
		}
	}
}

func (l *bare) fetch(ctx context.Context, client *kafkago.Client) error {
	next := int64(0)
	for {
		answer, err := client.Transport.RoundTrip(ctx, client.Addr, &fetch.Request{
			ReplicaID: -1, MaxWaitTime: 500, MinBytes: 1, MaxBytes: 8 << 20, SessionEpoch: -1,
			Topics: []fetch.RequestTopic{{Topic: bareTopic, Partitions: []fetch.RequestPartition{{CurrentLeaderEpoch: -1, FetchOffset: next, PartitionMaxBytes: 1 << 20}}}},
		})
		if err != nil {
			return err
		}
		count := 0
		if set := answer.(*fetch.Response).Topics[0].Partitions[0].RecordSet; set.Records != nil {
			if next, count, err = take(set.Records, next); err != nil {
				return err
			}
		}
		if count > 0 {
			l.got <- count
		}
	}
}

// take reads records from an offset on, and counts them.
func take(records protocol.RecordReader, next int64) (int64, int, error) {
	count := 0
	for {
		record, err := records.ReadRecord()
		if errors.Is(err, io.EOF) {
			return next, count, nil
		}
		if err != nil {
			return next, count, err
		}
		if _, err := protocol.ReadAll(record.Value); err != nil {
			return next, count, err
		}
		if record.Offset >= next {
			next = record.Offset + 1
			count++
		}
	}
}

// await waits until so many messages were fetched.
func (l *bare) await(count int, each func(n int)) error {
	for count > 0 {
		select {
		case n := <-l.got:
			count -= n
			each(n)
		case err := <-l.failed:
			return err
		}
	}
	return nil
}

// one sends a message and waits until it was fetched.
func (l *bare) one() error {
	l.waiting <- payload
	return l.await(1, func(int) {})
}

// many has so many producers send messages, of which at most some are between
// produce and fetched.
func (l *bare) many(count, producers, between int) error {
	room := make(chan struct{}, between)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range producers {
		wg.Go(func() {
			for range count / producers {
				select {
				case room <- struct{}{}:
				case <-stop:
					return
				}
				l.waiting <- payload
			}
		})
	}
	err := l.await(count/producers*producers, func(n int) {
		for range n {
			<-room
		}
	})
	close(stop)
	if err == nil {
		wg.Wait()
	}
	return err
}

// selfCPU returns the CPU seconds of this process so far.
func selfCPU() (float64, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return seconds(u.Utime) + seconds(u.Stime), err
}
