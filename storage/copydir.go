package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// keepFile writes one file of a backup below dir, durably.
func keepFile(dir, name string, r io.Reader) error {
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return targetError(dir, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if err != nil {
		return targetError(dir, err)
	}
	_, err = io.CopyBuffer(&target{f: f, name: dir}, r, make([]byte, backupChunkBytes))
	err = errors.Join(err, f.Sync(), f.Close())
	return err
}

// targetError says what to do about a directory that cannot be written.
func targetError(dir string, err error) error {
	if filepath.Base(dir) == restoreDir {
		dir = filepath.Dir(dir) // what people have asked for
	}
	what := "choose another directory"
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("there is no room for all of it in %s (%w): free some space or choose another disk; what was written has been removed", dir, reasonOf(err))
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		what = "give this user the right to it or choose another directory"
	}
	return fmt.Errorf("%s cannot be written (%w): %s", dir, reasonOf(err), what)
}

// reasonOf leaves out what the sentence around it says already.
func reasonOf(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// target is a file whose failures are sentences. It is synced every so often: one
// large sync at the end would stall the disk for a broker that shares it.
type target struct {
	f      *os.File
	name   string
	behind int // bytes since the last sync
}

const targetSync = 8 << 20

func (t *target) Write(b []byte) (int, error) {
	n, err := t.f.Write(b)
	if t.behind += n; err == nil && t.behind >= targetSync {
		t.behind, err = 0, t.f.Sync()
	}
	if err != nil {
		err = targetError(t.name, err)
	}
	return n, err
}

// syncTree makes the names in a directory and below it durable.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return syncDir(path)
	})
}

// readManifest reads and verifies the MANIFEST of a backup directory.
func readManifest(dir string) (Manifest, error) {
	f, err := os.Open(filepath.Join(dir, manifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(dir, backupFile)); err != nil {
			return Manifest{}, fmt.Errorf("%s is not a backup: it has no file %s; give the directory or the .tar file that `tidewire backup` made", dir, manifestFile)
		}
		return Manifest{}, ErrBackupIncomplete
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("the backup %s cannot be read: %w", dir, reasonOf(err))
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxBackupText))
	if err != nil {
		return Manifest{}, fmt.Errorf("the backup %s cannot be read: %w", dir, reasonOf(err))
	}
	return decodeManifest(text)
}

// copyBackup copies the streams of a backup directory to another directory and
// verifies each byte on its way.
func copyBackup(ctx context.Context, from, to string, progress func(BackupProgress)) (Manifest, error) {
	return readBackup(ctx, from, progress, func(name string, r io.Reader) error { return keepFile(to, name, r) })
}

// readBackup reads all files of a backup directory, verifies them, and hands them
// to keep.
func readBackup(ctx context.Context, from string, progress func(BackupProgress), keep func(string, io.Reader) error) (Manifest, error) {
	m, err := readManifest(from)
	if err != nil {
		return m, err
	}
	at := BackupProgress{Of: m.Bytes()}
	for f := range m.files() {
		file, err := os.Open(filepath.Join(from, filepath.FromSlash(f.Name)))
		if errors.Is(err, fs.ErrNotExist) {
			return m, errBackupMissing(f.Name)
		}
		if err != nil {
			return m, fmt.Errorf("the backup %s cannot be read: %w", from, reasonOf(err))
		}
		at.File = f.Name
		in := newSumming(readerFunc(func(b []byte) (int, error) {
			if err := context.Cause(ctx); err != nil {
				return 0, err
			}
			n, err := file.Read(b)
			at.Bytes += int64(n)
			if progress != nil {
				progress(at)
			}
			return n, err
		}))
		if err := errors.Join(keep(f.Name, in), file.Close()); err != nil {
			return m, err
		}
		if in.file(f.Name) != f {
			return m, errBackupDamaged(f.Name)
		}
	}
	return m, nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
