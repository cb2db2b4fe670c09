package storage

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Backup writes a backup of all logs that are open to w, as a tar archive. Each
// is as it was at one moment after the call: everything that was answered before
// is in the backup. Publishes, reads and retention go on meanwhile; of what w is
// slow to take, one chunk is in memory, and no transaction is open.
//
// One backup is made at a time; another one fails with [ErrBackupRuns]. After an
// error what was written is not complete: it has neither MANIFEST nor an end.
func (s *Store) Backup(ctx context.Context, w io.Writer, program string) (Manifest, error) {
	if !s.backing.TryLock() {
		return Manifest{}, ErrBackupRuns
	}
	defer s.backing.Unlock()
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	b := &backup{
		ctx: ctx, giveUp: giveUp, tar: tar.NewWriter(w), buf: make([]byte, backupChunkBytes),
		manifest: Manifest{Format: backupFormat, Data: formatNow, Program: program, Begun: time.Now().UTC(), Streams: []BackupStream{}},
	}
	err := b.run(s.openLogs())
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause // what failed then is a consequence
	}
	return b.manifest, err
}

// ErrBackupRuns says that a backup is being made already.
var ErrBackupRuns = errors.New("a backup of this broker is being made already: wait for its end, or end it")

// backup is an archive in the making.
type backup struct {
	ctx      context.Context
	giveUp   context.CancelCauseFunc
	tar      *tar.Writer
	buf      []byte
	manifest Manifest
}

// opened notes a log.
func (s *Store) opened(l *core) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logs = append(s.logs, l)
}

// openLogs returns the logs that are open, and forgets the others.
func (s *Store) openLogs() []*core {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logs = slices.DeleteFunc(s.logs, func(l *core) bool {
		l.state.mu.RLock()
		defer l.state.mu.RUnlock()
		return l.state.closed
	})
	return slices.Clone(s.logs)
}

func (b *backup) run(logs []*core) error {
	m := &b.manifest
	head, err := json.Marshal(backupHead{m.Format, m.Data, m.Program, m.Begun, sizeOf(logs)})
	if err != nil {
		return err
	}
	if err := b.text(backupFile, append(head, '\n')); err != nil {
		return err
	}
	for _, l := range logs {
		if err := b.stream(l); err != nil {
			return err
		}
	}
	m.Ended = time.Now().UTC()
	text, err := m.encode()
	if err != nil {
		return err
	}
	if err := b.text(manifestFile, text); err != nil {
		return err
	}
	return b.tar.Close()
}

// sizeOf is about how large the logs are.
func sizeOf(logs []*core) (n int64) {
	for _, l := range logs {
		l.state.mu.RLock()
		for _, s := range l.state.segs {
			n += int64(s.info.size)
		}
		l.state.mu.RUnlock()
	}
	return n
}

func (b *backup) text(name string, text []byte) error {
	if err := b.head(name, int64(len(text)), time.Now()); err != nil {
		return err
	}
	return b.write(text)
}

func (b *backup) head(name string, size int64, at time.Time) error {
	return b.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o640, ModTime: at.Truncate(time.Second), Format: tar.FormatPAX})
}

func (b *backup) write(p []byte) error {
	if err := context.Cause(b.ctx); err != nil {
		return err
	}
	_, err := b.tar.Write(p)
	return err
}

// stream copies one log.
func (b *backup) stream(l *core) error {
	s, err := l.snapshot(b.ctx, b.giveUp)
	if err != nil {
		return err
	}
	defer s.close()
	out := BackupStream{Name: l.name, Earliest: s.earliest, Head: s.head}
	for i, seg := range s.segs {
		info := s.infos[i]
		f, err := b.segment(l, seg, int64(info.size))
		if err != nil {
			return err
		}
		s.copied(seg)
		out.Files = append(out.Files, f)
		out.Messages += info.records
	}
	if _, err := s.meta.Seek(0, io.SeekStart); err != nil {
		return err
	}
	f, err := b.copy(backupName(l.name, metaFile), s.meta, s.metaSize)
	if err != nil {
		return err
	}
	out.Files = append(out.Files, f)
	b.manifest.Streams = append(b.manifest.Streams, out)
	return nil
}

func backupName(stream, base string) string { return streamsDir + "/" + stream + "/" + base }

// segment copies the file of a sealed segment.
func (b *backup) segment(l *core, s *segment, size int64) (BackupFile, error) {
	f, err := os.Open(s.path)
	if err != nil {
		return BackupFile{}, fmt.Errorf("copy a segment of %s: %w", l.name, err)
	}
	defer func() { _ = f.Close() }()
	return b.copy(backupName(l.name, filepath.Base(s.path)), f, size)
}

// copy adds a file to the archive.
func (b *backup) copy(name string, from io.Reader, size int64) (BackupFile, error) {
	if err := b.head(name, size, time.Now()); err != nil {
		return BackupFile{}, err
	}
	in := newSumming(io.LimitReader(from, size))
	for in.n < size {
		n, err := io.ReadFull(in, b.buf[:min(int64(len(b.buf)), size-in.n)])
		if err == nil {
			err = b.write(b.buf[:n])
		}
		if err != nil {
			return BackupFile{}, fmt.Errorf("copy %s: %w", name, err)
		}
	}
	return in.file(name), nil
}
