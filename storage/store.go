package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// The data directory:
//
//	FORMAT               format version; locked while a process has the store
//	reserve              disk space kept for hard times
//	streams/NAME/        one log: meta.db and its segments, 00000001.seg ...
const (
	formatFile  = "FORMAT"
	formatText  = "tidewire data directory, format "
	formatNow   = "1"
	reserveFile = "reserve"
	streamsDir  = "streams"

	defaultReserve = 64 << 20
)

// Store is a data directory that this process has for itself.
type Store struct {
	dir     string
	lock    *os.File
	reserve *reserve
	log     *slog.Logger
	backing sync.Mutex // held by the backup under way

	mu   sync.Mutex
	logs []*core // that are open
}

// Open opens the data directory and creates it if it is missing. A directory
// that is not one, that has another format, or that another process has is
// refused and left as it is.
func Open(dir string, o Options) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open data directory: %w", err)
	}
	if err := prepareDir(dir); err != nil {
		return nil, err
	}
	lock, err := openFormat(dir)
	if err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.ReserveBytes == 0 {
		o.ReserveBytes = defaultReserve
	}
	return &Store{
		dir:     dir,
		lock:    lock,
		reserve: &reserve{path: filepath.Join(dir, reserveFile), size: o.ReserveBytes},
		log:     o.Logger,
	}, nil
}

// Close gives the directory back. Logs must be closed before.
func (s *Store) Close() error { return s.lock.Close() }

// prepareDir makes an empty or missing directory a data directory.
func prepareDir(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, formatFile)); err == nil {
		return syncAgain(dir)
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return dirError(dir, err)
	default:
		for _, e := range entries {
			if e.Name() != "lost+found" && e.Name() != formatFile+".tmp" {
				return fmt.Errorf("%s is not empty and not a Tidewire data directory (it has %s but no %s): choose an empty directory", dir, e.Name(), formatFile)
			}
		}
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return dirError(dir, err)
	}
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return dirError(dir, err)
	}
	if err := writeFileSync(filepath.Join(dir, formatFile), formatText+formatNow+"\n"); err != nil {
		return dirError(dir, err)
	}
	return nil
}

// syncAgain makes up for directory syncs that an earlier process was killed
// before: what it saw is otherwise forgotten by the next power cut. A parent
// that this user may not read was not made by it either.
func syncAgain(dir string) error {
	if err := syncDir(dir); err != nil {
		return dirError(dir, err)
	}
	if err := syncDir(filepath.Dir(dir)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return dirError(dir, err)
	}
	return nil
}

// ErrInUse says that another process, most likely a broker, has the data directory.
var ErrInUse = errors.New("in use by another process")

// openFormat checks the format version and locks the directory.
func openFormat(dir string) (*os.File, error) {
	return lockFormat(dir, os.O_RDWR, lockFile)
}

// openFormatToRead does the same for somebody who will change nothing and may
// not have the right to.
func openFormatToRead(dir string) (*os.File, error) {
	return lockFormat(dir, os.O_RDONLY, lockShared)
}

func lockFormat(dir string, flag int, lock func(*os.File) error) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, formatFile), flag, 0)
	if err != nil {
		return nil, dirError(dir, err)
	}
	if err := lock(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s is %w: stop that one or choose another directory", dir, ErrInUse)
	}
	if err := checkFormat(dir); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// checkFormat returns an error unless dir has the format of this program.
func checkFormat(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, formatFile))
	if err != nil {
		return dirError(dir, err)
	}
	version, ok := strings.CutPrefix(strings.TrimSpace(string(text)), formatText)
	switch {
	case !ok:
		return fmt.Errorf("%s is not a Tidewire data directory: its file %s says something else; choose another directory", dir, formatFile)
	case version != formatNow:
		return fmt.Errorf("%s has data of format %.20s, this program knows format %s: use the version of tidewire that wrote it", dir, version, formatNow)
	}
	return nil
}

func dirError(dir string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("the data directory %s cannot be written (%w): give this user the right to it or choose another one", dir, err)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("the disk of the data directory %s is full (%w): free some space or choose another directory", dir, err)
	}
	return fmt.Errorf("the data directory %s cannot be used (%w): choose another one", dir, err)
}

// writeFileSync creates a file that is either there as a whole or not at all.
func writeFileSync(path, text string) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return renameSync(tmp, path)
}

// renameSync renames a file, durably.
func renameSync(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
