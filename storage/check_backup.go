package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

// openMetaToRead opens meta.db for somebody who will change nothing, perhaps
// because the disk does not let him.
func (o *opening) openMetaToRead() error {
	m := &meta{path: filepath.Join(o.log.dir, metaFile)}
	if err := checkPages(m.path); err != nil {
		return err
	}
	var err error
	if m.db, err = openBolt(m.path, boltOptions{readOnly: true}); err != nil {
		return err
	}
	o.log.meta = m
	if o.meta, err = m.load(); err != nil {
		return err
	}
	o.log.terms = o.meta.terms
	return nil
}

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

// known verifies what meta.db knows of topics and of ids. Where the sealed
// segments were not read, it can only say whether it is as it was written.
func (c *checker) known(o *opening) error {
	return view(o.log.meta.db, o.log.meta.path, func(tx *bbolt.Tx) error {
		err := tx.Bucket(bucketDigests).ForEach(func(k, v []byte) error {
			if _, _, ok := decodeCarried(v); !ok || len(k) != 8 {
				return fmt.Errorf("%w: the checksum of the digest rows at offset %d does not match", errDamaged, number(k))
			}
			return nil
		})
		if err != nil {
			return err
		}
		return tx.Bucket(bucketLast).ForEach(func(topic, v []byte) error {
			if len(v) != 8+crcBytes || !bytes.Equal(v, encodeLast(topic, number(v[:8]))) {
				return fmt.Errorf("%w: the checksum of the last offset of the topic %.80q does not match", errDamaged, topic)
			}
			if newest := c.last[string(topic)]; number(v[:8]) < newest {
				return fmt.Errorf("%w: it says that the topic %.80q ends at offset %d, but it has offset %d", errDamaged, topic, number(v[:8]), newest)
			}
			return nil
		})
	})
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
