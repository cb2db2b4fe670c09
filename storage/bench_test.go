package storage

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/tidewire/tidewire/protocol"
)

var (
	publishersFlag = flag.Int("publishers", 256, "publishers of BenchmarkAppend")
	storedFlag     = flag.Int("stored", 200_000, "messages that BenchmarkTail and BenchmarkReplay store first")
)

func benchLog(b *testing.B, dir string, opts LogOptions) (*Log, func()) {
	b.Helper()
	opts.Logger = slog.New(slog.DiscardHandler)
	s, err := Open(dir, Options{ReserveBytes: -1, Logger: opts.Logger})
	if err != nil {
		b.Fatal(err)
	}
	l, err := s.OpenLog("main", opts)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- l.Run(ctx, func(c *Commit) {
			for _, a := range c.Answers {
				a.Entry.Done(a.Result)
			}
		})
	}()
	return l, func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
		if err := l.Close(); err != nil {
			b.Error(err)
		}
		_ = s.Close()
	}
}

func benchEntry(topic string, n int, payload []byte) *Entry {
	m := protocol.Message{Topic: topic, ID: fmt.Sprintf("%016x", n), Payload: payload}
	return &Entry{
		Topic: topic, Key: KeyOf(topic, m.ID), Payload: PayloadHash(payload),
		Record: protocol.AppendRecord(make([]byte, 0, 256), &m),
	}
}

// BenchmarkAppend measures durable publishes, and beside them the limit: the
// blocks of the same commits appended to a plain file, each synced.
func BenchmarkAppend(b *testing.B) {
	for _, topics := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("topics=%d", topics), func(b *testing.B) {
			var rates, ratios []float64
			for b.Loop() {
				dir := b.TempDir()
				sizes, rate := benchAppend(b, filepath.Join(dir, "log"), topics, *publishersFlag)
				rates = append(rates, rate)
				ratios = append(ratios, rate/benchPlain(b, filepath.Join(dir, "plain"), sizes))
			}
			b.ReportMetric(median(rates), "msgs/s")
			b.ReportMetric(median(ratios), "of-limit")
			b.ReportMetric(ratios[0], "lowest")
			b.ReportMetric(ratios[len(ratios)-1], "highest")
		})
	}
}

type benchBatch struct{ entries, bytes int }

func benchAppend(b *testing.B, dir string, topics, publishers int) (sizes []benchBatch, rate float64) {
	l, stop := benchLog(b, dir, LogOptions{})
	write := l.committer.write
	l.committer.write = func(t *batch) error {
		sizes = append(sizes, benchBatch{len(t.answers), len(t.raw)})
		return write(t)
	}
	const seconds = 1
	payload := make([]byte, 128)
	var total int
	var mu sync.Mutex
	var all sync.WaitGroup
	start := time.Now()
	for p := range publishers {
		all.Go(func() {
			answer := make(chan Result, 1)
			n := 0
			for ; time.Since(start) < seconds*time.Second; n++ {
				e := benchEntry(fmt.Sprintf("topic.%d", (p*7919+n)%topics), p<<32|n, payload)
				e.Done = func(r Result) { answer <- r }
				if err := l.Append(context.Background(), e); err != nil {
					b.Error(err)
				}
				if r := <-answer; r.Err != nil {
					b.Error(r.Err)
				}
			}
			mu.Lock()
			total += n
			mu.Unlock()
		})
	}
	all.Wait()
	took := time.Since(start)
	rate = float64(total) / took.Seconds()
	stop()
	return sizes, rate
}

// benchPlain appends batches of the same sizes to a file and syncs each.
func benchPlain(b *testing.B, path string, sizes []benchBatch) (rate float64) {
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	buf := make([]byte, maxBatchBytes*2)
	total := 0
	start := time.Now()
	for _, s := range sizes {
		if _, err := f.Write(buf[:s.bytes]); err != nil {
			b.Fatal(err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
		total += s.entries
	}
	return float64(total) / time.Since(start).Seconds()
}

// BenchmarkCommit writes blocks of a batch's size in turn to a segment and, with
// a sync, to a plain file: what a commit costs by itself, whatever else the
// machine does. Judging the entries is not in it: that goes on during the sync
// before.
func BenchmarkCommit(b *testing.B) {
	for _, entries := range []int{1, 128, 256, 2048} {
		b.Run(fmt.Sprintf("entries=%d", entries), func(b *testing.B) {
			dir := b.TempDir()
			s, err := Open(dir, Options{ReserveBytes: -1})
			if err != nil {
				b.Fatal(err)
			}
			l, err := s.OpenLog("main", LogOptions{})
			if err != nil {
				b.Fatal(err)
			}
			f, err := os.Create(filepath.Join(dir, "plain"))
			if err != nil {
				b.Fatal(err)
			}
			var tx, plain, judge time.Duration
			c, n := l.committer, 0
			hand := func(*Commit) {}
			c.queue, c.next = l.queue, &batch{}
			c.work = make(chan *batch, 1)
			ctx, stop := context.WithCancel(b.Context())
			var keeper sync.WaitGroup
			keeper.Go(func() { l.keeper.run(ctx) })
			for b.Loop() {
				batch := make([]*Entry, entries)
				for i := range batch {
					n++
					batch[i] = benchEntry("topic", n, make([]byte, 128))
				}
				if err := l.Append(b.Context(), batch...); err != nil {
					b.Fatal(err)
				}
				start := time.Now()
				c.gather()
				judge += time.Since(start)
				start = time.Now()
				if _, err := c.launch(true, hand); err != nil {
					b.Fatal(err)
				}
				if err := c.settle(c.write(<-c.work), hand); err != nil {
					b.Fatal(err)
				}
				tx += time.Since(start)
				block := l.state.window.blocks[len(l.state.window.blocks)-1].raw
				start = time.Now()
				_, err := f.Write(block)
				if err := errors.Join(err, unix.Fdatasync(int(f.Fd()))); err != nil {
					b.Fatal(err)
				}
				plain += time.Since(start)
			}
			b.ReportMetric(plain.Seconds()/tx.Seconds(), "of-limit")
			b.ReportMetric(float64(judge.Nanoseconds())/float64(n), "judge-ns/entry")
			stop()
			keeper.Wait()
			if err := errors.Join(f.Close(), l.Close(), s.Close()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// fill stores n messages of 128 bytes on many topics, one of them rare.
func fill(b *testing.B, l *Log, n, topics int, rare string) {
	payload := make([]byte, 128)
	var wait sync.WaitGroup
	for i := range n {
		topic := fmt.Sprintf("topic.%d", i%topics)
		if rare != "" && i%(n/10) == n/20 {
			topic = rare
		}
		e := benchEntry(topic, i, payload)
		wait.Add(1)
		e.Done = func(Result) { wait.Done() }
		if err := l.Append(context.Background(), e); err != nil {
			b.Fatal(err)
		}
	}
	wait.Wait()
	for len(l.state.unsealed()) > 0 {
		<-time.After(time.Millisecond) // sealing tells nobody
	}
}

// BenchmarkTail reads the 10 messages of one topic among many of others.
func BenchmarkTail(b *testing.B) {
	l, stop := benchLog(b, b.TempDir(), LogOptions{RetentionBytes: -1})
	defer stop()
	fill(b, l, *storedFlag, 10_000, "rare.topic")
	f := protocolFilter(b, "rare.topic")
	_, head := l.Bounds()
	for b.Loop() {
		n := 0
		for after := uint64(0); after < head; {
			c, err := l.Read(Query{Filter: f, After: after})
			if err != nil {
				b.Fatal(err)
			}
			n, after = n+c.Count, c.Through
		}
		if n != 10 {
			b.Fatalf("%d messages", n)
		}
	}
}

// BenchmarkReplay reads everything, beside the limit: the same bytes read from
// plain files, each record checked.
func BenchmarkReplay(b *testing.B) {
	for _, filter := range []string{">", "topic.0"} {
		b.Run(filter, func(b *testing.B) {
			l, stop := benchLog(b, b.TempDir(), LogOptions{RetentionBytes: -1, WindowBytes: 1})
			defer stop()
			fill(b, l, *storedFlag, 1, "")
			f := protocolFilter(b, filter)
			var records []byte
			read := func(keep bool) (n int) {
				_, head := l.Bounds()
				for after := uint64(0); after < head; {
					c, err := l.Read(Query{Filter: f, After: after, MaxBytes: 256 << 10})
					if err != nil {
						b.Fatal(err)
					}
					n, after = n+c.Count, c.Through
					if keep && len(records) < 256<<20 {
						records = append(records, c.Records...)
					}
				}
				return n
			}
			n := read(true)
			path := filepath.Join(b.TempDir(), "plain")
			writeBare(b, path, records)
			var took, bare []float64
			for b.Loop() {
				start := time.Now()
				if read(false) != n {
					b.Fatal("not all")
				}
				took = append(took, time.Since(start).Seconds())
				start = time.Now()
				readBare(b, path)
				bare = append(bare, time.Since(start).Seconds())
			}
			b.ReportMetric(float64(n)/median(took)/1e6, "Mmsgs/s")
			b.ReportMetric(median(took)/median(bare), "times-bare")
		})
	}
}

// BenchmarkOpen opens a log as after kill -9, beside a bare loop that reads the
// active segment and puts the digests of the window into a map.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	l, stop := benchLog(b, dir, LogOptions{RetentionBytes: -1})
	fill(b, l, *storedFlag, 10_000, "")
	active := l.state.active().path
	stop()
	var took, bare []float64
	for b.Loop() {
		start := time.Now()
		s, err := Open(dir, Options{ReserveBytes: -1})
		if err != nil {
			b.Fatal(err)
		}
		l, err := s.OpenLog("main", LogOptions{RetentionBytes: -1})
		if err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start).Seconds())

		start = time.Now()
		if _, err := os.ReadFile(active); err != nil {
			b.Fatal(err)
		}
		digests := make(map[DedupeKey]dedupeRow)
		for _, seg := range l.state.segs {
			err := l.handles.view(seg, func(tx *bbolt.Tx) error {
				c := newBlockCursor(tx)
				blk, ok, err := c.start()
				for ; ok; blk, ok, err = c.next() {
					rows, _ := blk.digests()
					for ; len(rows) > 0; rows = rows[rowBytes:] {
						r := parseRow(rows)
						digests[r.key] = dedupeRow{payload: r.payload, first: r.first, time: blk.time}
					}
				}
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
		}
		bare = append(bare, time.Since(start).Seconds())
		if err := errors.Join(l.Close(), s.Close()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(median(took)*1000, "ms")
	b.ReportMetric(median(took)/median(bare), "times-bare")
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// writeBare writes records, each behind its length and checksum, to a file.
func writeBare(b *testing.B, path string, records []byte) {
	var file []byte
	for rest := records; len(rest) > 0; {
		record, next, ok := protocol.NextFramed(rest)
		if !ok {
			b.Fatal("bad record")
		}
		file = binary.LittleEndian.AppendUint32(file, uint32(len(record)))
		file = binary.LittleEndian.AppendUint32(file, crc32.Checksum(record, castagnoli))
		file = append(file, record...)
		rest = next
	}
	if err := os.WriteFile(path, file, 0o600); err != nil {
		b.Fatal(err)
	}
}

// readBare reads such a file in pieces and checks each record.
func readBare(b *testing.B, path string) {
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	buf, have := make([]byte, 1<<20), 0
	for {
		m, err := f.Read(buf[have:])
		have += m
		at := 0
		for have-at >= 8 {
			size := int(binary.LittleEndian.Uint32(buf[at:]))
			if have-at < 8+size {
				break
			}
			if crc32.Checksum(buf[at+8:at+8+size], castagnoli) != binary.LittleEndian.Uint32(buf[at+4:]) {
				b.Fatal("checksum")
			}
			at += 8 + size
		}
		have = copy(buf, buf[at:have])
		if err != nil {
			return
		}
	}
}

func protocolFilter(b *testing.B, s string) protocol.Filter {
	f, err := protocol.ParseFilter(s)
	if err != nil {
		b.Fatal(err)
	}
	return f
}

// BenchmarkComeBack reads the 100 messages that a subscriber of one topic among
// 100 has missed; they are in memory.
func BenchmarkComeBack(b *testing.B) {
	l, stop := benchLog(b, b.TempDir(), LogOptions{})
	defer stop()
	fill(b, l, 10_000, 100, "")
	f := protocolFilter(b, "topic.7")
	_, head := l.Bounds()
	b.ReportAllocs()
	for b.Loop() {
		c, err := l.Read(Query{Filter: f, Through: head})
		if err != nil || c.Count != 100 || c.Through != head {
			b.Fatalf("%d messages up to %d of %d, %v", c.Count, c.Through, head, err)
		}
	}
}
