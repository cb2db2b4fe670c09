package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

// openQuickly opens a sealed segment and verifies its pages and its stamp, but
// not what is in its blocks: what it says of itself is believed.
func (c *checker) openQuickly(s *segment) error {
	err := checkPages(s.path)
	if err == nil {
		s.db, err = s.openSealed()
	}
	if err != nil {
		return err
	}
	return view(s.db, s.path, func(tx *bbolt.Tx) error {
		info, err := decodeInfo(tx.Bucket(bucketInfo).Get(keySealed))
		if err != nil {
			return err
		}
		s.info = info
		return checkStamp(tx, info.last)
	})
}

// lasts holds what meta.db knows of topics against the sealed segments, as far as
// they were read.
func (c *checker) lasts() {
	m := c.log.meta
	err := view(m.db, m.path, func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketLast).ForEach(func(topic, v []byte) error {
			newest := c.last[string(topic)]
			if offset, ok := decodeLast(topic, v); ok && offset < newest {
				c.damage(m.path, "it says that the topic %.80q ends at offset %d, but it has offset %d", topic, offset, newest)
			}
			return nil
		})
	})
	if err != nil {
		c.problem(err)
	}
}

// CheckBackup looks whether a backup, a directory or an archive, is complete and
// has all its files. Deep, every byte is verified and a directory is then checked
// as [Check] does; an archive is always read as a whole. It changes nothing.
func CheckBackup(ctx context.Context, from string, deep bool, progress func(BackupProgress)) (Report, error) {
	info, err := os.Stat(from)
	if err != nil {
		return Report{}, fmt.Errorf("the backup %s cannot be read: %w", from, reasonOf(err))
	}
	if !info.IsDir() {
		return checkArchive(ctx, from, deep, progress)
	}
	dir, err := filepath.Abs(from)
	if err != nil {
		return Report{}, err
	}
	if deep {
		_, err = readBackup(ctx, dir, progress, func(_ string, r io.Reader) error { _, err := io.Copy(io.Discard, r); return err })
	} else {
		err = haveBackup(dir)
	}
	if err != nil {
		return Report{}, err
	}
	return checkStreams(ctx, dir, checker{quick: !deep, progress: func(p Progress) {
		if progress != nil {
			progress(BackupProgress{File: fmt.Sprintf("%s/%s: segment %d of %d", streamsDir, p.Stream, p.Segment, p.Of)})
		}
	}})
}

// haveBackup looks whether all files of a backup directory are there, with their
// sizes.
func haveBackup(dir string) error {
	m, err := readManifest(dir)
	if err != nil {
		return err
	}
	for f := range m.files() {
		info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(f.Name)))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return errBackupMissing(f.Name)
		case err != nil:
			return fmt.Errorf("the backup %s cannot be read: %w", dir, reasonOf(err))
		case info.Size() != f.Bytes:
			return errBackupDamaged(f.Name)
		}
	}
	return nil
}

func errBackupMissing(name string) error {
	return fmt.Errorf("the backup is damaged: its file %s is missing; use another backup", name)
}

func checkArchive(ctx context.Context, from string, deep bool, progress func(BackupProgress)) (Report, error) {
	if deep {
		return Report{}, fmt.Errorf("%s is an archive: without --deep all of it is verified; to look at each message, restore it and check that with --deep --data", from)
	}
	f, err := os.Open(from)
	if err != nil {
		return Report{}, fmt.Errorf("the backup %s cannot be read: %w", from, reasonOf(err))
	}
	defer func() { _ = f.Close() }()
	m, err := VerifyBackup(ctx, f, progress)
	if err != nil {
		return Report{}, err
	}
	return Report{Streams: len(m.Streams), Segments: m.Files() - len(m.Streams), Records: int(m.Messages()), Bytes: m.Bytes()}, nil
}
