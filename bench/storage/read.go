package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// replay reads one topic that is everything there is, warm, beside reading a
// plain file of the same records and checking a checksum for each.
func (b *bench) replay() (rows []*row, err error) {
	n := b.stored / 2
	s, err := openStore(b.path("replay"), storage.LogOptions{WindowBytes: 1}, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	if err := s.fill(n, oneTopic); err != nil {
		return nil, err
	}
	path := b.path("bare")
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	_, err = s.read(oneTopic(0), func(record []byte) error { return writeBare(w, record) })
	if err := errors.Join(err, w.Flush(), f.Close()); err != nil {
		return nil, err
	}
	r, err := compare(fmt.Sprintf("replay %d messages, warm; limit: bare read with checksums", n), 3,
		func() (float64, error) {
			begin := time.Now()
			count, err := s.read(oneTopic(0), func([]byte) error { return nil })
			if err == nil && count < n {
				err = fmt.Errorf("%d messages of %d", count, n)
			}
			return time.Since(begin).Seconds(), err
		},
		func() (float64, error) { return readBare(path, n) })
	return []*row{r}, errors.Join(err, os.Remove(path))
}

// read hands every record of the topic to fn and returns how many there are.
func (s *store) read(topic string, fn func(record []byte) error) (count int, err error) {
	filter, err := protocol.ParseFilter(topic)
	if err != nil {
		return 0, err
	}
	earliest, head := s.log.Bounds()
	for after := earliest - 1; after < head; {
		c, err := s.log.Read(storage.Query{Filter: filter, After: after, Through: head, MaxBytes: 1 << 20})
		if err != nil {
			return count, err
		}
		for rest := c.Records; len(rest) > 0; count++ {
			record, next, ok := protocol.NextFramed(rest)
			if !ok {
				return count, errors.New("a chunk cannot be read")
			}
			if err := fn(record); err != nil {
				return count, err
			}
			rest = next
		}
		after = c.Through
	}
	return count, nil
}

// A bare file has a length and a checksum before each record.

func writeBare(w io.Writer, record []byte) error {
	var head [8]byte
	binary.LittleEndian.PutUint32(head[:], uint32(len(record)))
	binary.LittleEndian.PutUint32(head[4:], crc32.Checksum(record, castagnoli))
	_, err := w.Write(head[:])
	if err == nil {
		_, err = w.Write(record)
	}
	return err
}

func readBare(path string, n int) (float64, error) {
	begin := time.Now()
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	r := bufio.NewReaderSize(f, 1<<20)
	var head [8]byte
	record := make([]byte, 1<<20)
	for count := 0; ; count++ {
		if _, err := io.ReadFull(r, head[:]); errors.Is(err, io.EOF) {
			if count < n {
				return 0, fmt.Errorf("%d records of %d", count, n)
			}
			return time.Since(begin).Seconds(), nil
		} else if err != nil {
			return 0, err
		}
		b := record[:binary.LittleEndian.Uint32(head[:])]
		if _, err := io.ReadFull(r, b); err != nil {
			return 0, err
		}
		if crc32.Checksum(b, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
			return 0, errors.New("a checksum does not match")
		}
	}
}
