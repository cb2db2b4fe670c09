package storage

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// BackupProgress tells how far a copy has come.
type BackupProgress struct {
	File  string // under way
	Bytes int64  // so far
	Of    int64  // about, 0 if that is not known
}

// reception reads an archive, and believes nothing in it before it is verified.
type reception struct {
	ctx      context.Context
	tar      *tar.Reader
	progress func(BackupProgress)
	at       BackupProgress

	// keep takes the files, if it is not nil: BACKUP first, and MANIFEST only when
	// everything has been verified.
	keep func(name string, r io.Reader) error
	got  map[string]BackupFile
}

// VerifyBackup reads an archive to its end and verifies it. progress may be nil.
func VerifyBackup(ctx context.Context, r io.Reader, progress func(BackupProgress)) (Manifest, error) {
	return receive(ctx, r, progress, nil)
}

func receive(ctx context.Context, r io.Reader, progress func(BackupProgress), keep func(string, io.Reader) error) (Manifest, error) {
	if progress == nil {
		progress = func(BackupProgress) {}
	}
	if keep == nil {
		keep = func(_ string, r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }
	}
	c := &reception{ctx: ctx, tar: tar.NewReader(r), progress: progress, keep: keep, got: make(map[string]BackupFile)}
	if err := c.head(); err != nil {
		return Manifest{}, err
	}
	m, err := c.files()
	if err != nil {
		return Manifest{}, err
	}
	if _, err := io.Copy(io.Discard, r); err != nil { // what tar pads with
		return Manifest{}, receiveError(err)
	}
	return m, nil
}

func (c *reception) head() error {
	h, err := c.tar.Next()
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.EOF) || err == nil && h.Name != backupFile {
		return errors.New("this is not a backup of tidewire: give the directory or the .tar file that `tidewire backup` made")
	}
	if err != nil {
		return receiveError(err)
	}
	text, err := c.text()
	if err != nil {
		return err
	}
	var head backupHead
	if err := json.Unmarshal([]byte(text), &head); err != nil {
		return errBackupDamaged(backupFile)
	}
	c.at.Of = head.Bytes
	if err := checkBackupFormat(head.Format, head.Data); err != nil {
		return err
	}
	return c.keep(backupFile, strings.NewReader(text))
}

// files takes everything behind BACKUP.
func (c *reception) files() (Manifest, error) {
	for {
		h, err := c.tar.Next()
		switch {
		case errors.Is(err, io.EOF):
			return Manifest{}, ErrBackupIncomplete
		case err != nil:
			return Manifest{}, receiveError(err)
		case h.Name == manifestFile:
			return c.manifest()
		}
		if _, _, ok := cutBackupName(h.Name); !ok || h.Typeflag != tar.TypeReg || c.got[h.Name].Name != "" {
			return Manifest{}, fmt.Errorf("the archive has a file %.80q that cannot be in a backup: it was not made by tidewire, use another one", h.Name)
		}
		if err := c.file(h.Name); err != nil {
			return Manifest{}, err
		}
	}
}

func (c *reception) file(name string) error {
	c.at.File = name
	in := newSumming(c)
	if err := c.keep(name, in); err != nil {
		return err
	}
	c.got[name] = in.file(name)
	return nil
}

// Read reads from the file of the archive that is under way.
func (c *reception) Read(b []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	n, err := c.tar.Read(b)
	c.at.Bytes += int64(n)
	c.progress(c.at)
	if err != nil && !errors.Is(err, io.EOF) {
		err = receiveError(err)
	}
	return n, err
}

// manifest compares what has come with what should have.
func (c *reception) manifest() (Manifest, error) {
	text, err := c.text()
	if err != nil {
		return Manifest{}, err
	}
	m, err := decodeManifest([]byte(text))
	if err != nil {
		return m, err
	}
	for f := range m.files() {
		if c.got[f.Name] != f {
			return m, errBackupDamaged(f.Name)
		}
	}
	if m.Files() != len(c.got) {
		return m, errBackupDamaged(manifestFile)
	}
	return m, c.keep(manifestFile, strings.NewReader(text))
}

func (c *reception) text() (string, error) {
	b, err := io.ReadAll(io.LimitReader(c.tar, maxBackupText))
	if err != nil {
		return "", receiveError(err)
	}
	return string(b), nil
}

// receiveError says what it means that an archive cannot be read on.
func receiveError(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrBackupIncomplete
	}
	if errors.Is(err, tar.ErrHeader) {
		return errBackupDamaged("the archive")
	}
	return err
}

// SaveBackup unpacks an archive into a directory that is empty or does not exist,
// and verifies it. If it fails, what it wrote is removed; if the process is
// killed, the directory has no MANIFEST. progress may be nil.
func SaveBackup(ctx context.Context, r io.Reader, dir string, progress func(BackupProgress)) (Manifest, error) {
	made, err := emptyDir(dir)
	if err != nil {
		return Manifest{}, err
	}
	m, err := receive(ctx, r, progress, func(name string, r io.Reader) error {
		if name == manifestFile {
			if err := syncTree(dir); err != nil {
				return err
			}
		}
		return keepFile(dir, name, r)
	})
	if err == nil {
		err = errors.Join(syncDir(dir), syncDir(filepath.Dir(dir)))
	}
	if err != nil {
		for _, name := range []string{manifestFile, backupFile, streamsDir} {
			_ = os.RemoveAll(filepath.Join(dir, name))
		}
		if made {
			_ = os.Remove(dir)
		}
		return m, err
	}
	return m, nil
}

// Restore makes a data directory of a backup, a directory or an archive, after
// all of it has been verified. The directory must be empty or not exist; unless
// Restore succeeds it is left like that. progress may be nil.
func Restore(ctx context.Context, from, data string, progress func(BackupProgress)) (Manifest, error) {
	info, err := os.Stat(from)
	if err != nil {
		return Manifest{}, fmt.Errorf("the backup %s cannot be read: %w", from, reasonOf(err))
	}
	if info.IsDir() {
		return restoreInto(data, func(dir string) (Manifest, error) { return copyBackup(ctx, from, dir, progress) })
	}
	f, err := os.Open(from)
	if err != nil {
		return Manifest{}, fmt.Errorf("the backup %s cannot be read: %w", from, reasonOf(err))
	}
	defer func() { _ = f.Close() }()
	return RestoreArchive(ctx, f, data, progress)
}

// SaveArchive keeps an archive as a file that does not exist, and verifies it. If
// it fails, or the process is killed, there is no such file. progress may be nil.
func SaveArchive(ctx context.Context, r io.Reader, file string, progress func(BackupProgress)) (Manifest, error) {
	if _, err := os.Lstat(file); err == nil {
		return Manifest{}, fmt.Errorf("%s exists: choose another name, nothing is overwritten", file)
	}
	part := file + ".part"
	f, err := os.OpenFile(part, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return Manifest{}, targetError(file, err)
	}
	m, err := receive(ctx, io.TeeReader(r, &target{f: f, name: file}), progress, nil)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = renameSync(part, file)
	}
	if err != nil {
		_ = os.Remove(part)
	}
	return m, err
}

// RestoreArchive is [Restore] from an archive that is being read.
func RestoreArchive(ctx context.Context, r io.Reader, data string, progress func(BackupProgress)) (Manifest, error) {
	return restoreInto(data, func(dir string) (Manifest, error) {
		return receive(ctx, r, progress, func(name string, r io.Reader) error {
			if _, _, ok := cutBackupName(name); !ok {
				_, err := io.Copy(io.Discard, r)
				return err
			}
			return keepFile(dir, name, r)
		})
	})
}

const restoreDir = "restore.tmp"

// restoreInto lets fill write the streams to a temporary directory in data and
// then puts them into their place. FORMAT comes last: without it nobody takes
// the directory for a data directory.
func restoreInto(data string, fill func(dir string) (Manifest, error)) (Manifest, error) {
	data, err := filepath.Abs(data)
	if err != nil {
		return Manifest{}, err
	}
	made, err := emptyDir(data)
	if err != nil {
		return Manifest{}, err
	}
	tmp := filepath.Join(data, restoreDir)
	if err := os.MkdirAll(filepath.Join(tmp, streamsDir), 0o750); err != nil {
		return Manifest{}, dirError(data, err)
	}
	m, err := fill(tmp)
	if err == nil {
		err = syncTree(tmp)
	}
	if err != nil {
		_ = os.RemoveAll(tmp)
		if made {
			_ = os.Remove(data)
		}
		return m, err
	}
	err = renameSync(filepath.Join(tmp, streamsDir), filepath.Join(data, streamsDir))
	if err == nil {
		err = os.Remove(tmp)
	}
	if err == nil {
		err = writeFileSync(filepath.Join(data, formatFile), formatText+formatNow+"\n")
	}
	if err == nil {
		err = syncDir(filepath.Dir(data))
	}
	if err != nil {
		return m, dirError(data, err)
	}
	return m, nil
}

// emptyDir makes the directory if it does not exist, and refuses one that has
// something in it.
func emptyDir(dir string) (made bool, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return false, targetError(dir, err)
		}
		return true, nil
	}
	if err != nil {
		return false, targetError(dir, err)
	}
	for _, e := range entries {
		if e.Name() != "lost+found" {
			return false, fmt.Errorf("%s is not empty (it has %s): choose a directory that is empty or does not exist", dir, e.Name())
		}
	}
	return false, nil
}
