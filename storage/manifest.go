package storage

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"strings"
	"time"
)

// A backup is a directory, or a tar archive, of
//
//	BACKUP                      first: its format, and how large it will be
//	streams/NAME/00000001.seg   the sealed segments of each stream, oldest first
//	streams/NAME/meta.db        what is known of them
//	MANIFEST                    last: size and SHA-256 of every file, and a
//	                            SHA-256 of itself
//
// Without MANIFEST it is not complete. There is no file FORMAT, so that nobody
// takes a backup for a data directory and changes it.
const (
	backupFile   = "BACKUP"
	manifestFile = "MANIFEST"

	backupFormat     = 1
	maxBackupText    = 64 << 20 // bytes of MANIFEST, some hundred thousand files
	backupChunkBytes = 256 << 10
)

// A Manifest says what is in a backup.
type Manifest struct {
	Format  int            `json:"format"`  // of the backup
	Data    string         `json:"data"`    // format of the data directory
	Program string         `json:"program"` // version that made it
	Begun   time.Time      `json:"begun"`   // everything that was answered before is in it
	Ended   time.Time      `json:"ended"`
	Streams []BackupStream `json:"streams"`
}

// A BackupStream is one stream in a backup.
type BackupStream struct {
	Name     string       `json:"name"`
	Earliest uint64       `json:"earliest"` // first offset that it has
	Head     uint64       `json:"head"`     // last offset that was given
	Messages uint64       `json:"messages"`
	Files    []BackupFile `json:"files"`
}

// A BackupFile is one file in a backup.
type BackupFile struct {
	Name   string `json:"name"` // with slashes
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// backupHead is what BACKUP says.
type backupHead struct {
	Format  int       `json:"format"`
	Data    string    `json:"data"`
	Program string    `json:"program"`
	Begun   time.Time `json:"begun"`
	Bytes   int64     `json:"bytes"` // about what follows
}

// Messages is the number of messages in the backup.
func (m *Manifest) Messages() (n uint64) {
	for _, s := range m.Streams {
		n += s.Messages
	}
	return n
}

// Bytes is the size of its files.
func (m *Manifest) Bytes() (n int64) {
	for f := range m.files() {
		n += f.Bytes
	}
	return n
}

// Files is the number of its files.
func (m *Manifest) Files() (n int) {
	for range m.files() {
		n++
	}
	return n
}

func (m *Manifest) files() func(yield func(BackupFile) bool) {
	return func(yield func(BackupFile) bool) {
		for _, s := range m.Streams {
			for _, f := range s.Files {
				if !yield(f) {
					return
				}
			}
		}
	}
}

// encode returns the file MANIFEST: one line of JSON and one with its checksum.
func (m *Manifest) encode() ([]byte, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(b, "\n%s\n", sumOf(b)), nil
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// decodeManifest reads what encode wrote, and refuses what this program does not
// know or what could lead out of a directory.
func decodeManifest(b []byte) (Manifest, error) {
	var m Manifest
	text, sum, _ := bytes.Cut(b, []byte("\n"))
	if string(bytes.TrimSpace(sum)) != sumOf(text) {
		return m, errBackupDamaged(manifestFile)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, errBackupDamaged(manifestFile)
	}
	if err := checkBackupFormat(m.Format, m.Data); err != nil {
		return m, err
	}
	names := make(map[string]bool)
	for _, s := range m.Streams {
		whole := false
		for _, f := range s.Files {
			stream, base, ok := cutBackupName(f.Name)
			if !ok || stream != s.Name || names[f.Name] || f.Bytes < 0 {
				return m, fmt.Errorf("the backup names a file %.80q that cannot be: it was not made by tidewire, use another one", f.Name)
			}
			names[f.Name] = true
			whole = whole || base == metaFile
		}
		if !whole {
			return m, errBackupDamaged(manifestFile)
		}
	}
	return m, nil
}

func checkBackupFormat(format int, data string) error {
	switch {
	case format != backupFormat:
		return fmt.Errorf("the backup has format %d, this program knows format %d: use the version of tidewire that made it", format, backupFormat)
	case data != formatNow:
		return fmt.Errorf("the backup has data of format %.20s, this program knows format %s: use the version of tidewire that made it", data, formatNow)
	}
	return nil
}

func errBackupDamaged(file string) error {
	return fmt.Errorf("the backup is damaged: %s does not match its checksum; use another backup, this one is left as it is", file)
}

// ErrBackupIncomplete says that a backup was interrupted while it was made.
var ErrBackupIncomplete = errors.New("the backup is not complete: it ends before its file " + manifestFile + ", so it was interrupted while it was made; use another one")

// cutBackupName takes the name of a file in a backup apart.
func cutBackupName(name string) (stream, base string, ok bool) {
	rest, ok := strings.CutPrefix(name, streamsDir+"/")
	stream, base = path.Split(rest)
	stream = strings.TrimSuffix(stream, "/")
	_, segment := parseOrdinal(base)
	return stream, base, ok && validStream(stream) && (segment || base == metaFile)
}

// validStream reports whether the name can be that of a log's directory.
func validStream(name string) bool {
	return name != "" && !strings.ContainsAny(name, `/\`) && !strings.HasPrefix(name, ".")
}

// summing is a reader that adds up the bytes that pass.
type summing struct {
	r   io.Reader
	sum hash.Hash
	n   int64
}

func newSumming(r io.Reader) *summing { return &summing{r: r, sum: sha256.New()} }

func (s *summing) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	_, _ = s.sum.Write(b[:n])
	s.n += int64(n)
	return n, err
}

// file says what has passed.
func (s *summing) file(name string) BackupFile {
	return BackupFile{name, s.n, hex.EncodeToString(s.sum.Sum(nil))}
}
