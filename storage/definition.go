package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"go.etcd.io/bbolt"
)

// definition is what a log keeps of how it was set up last. What is fixed in it
// is compared at the next boot; logs from before there was one take on what they
// are first opened with.
type definition struct {
	// DedupeWindow is fixed: which ids the log still knows depends on it, and
	// rows that were dropped under a smaller one cannot be had back.
	DedupeWindow int `json:"dedupe_window"`
	// Filters may change; they are kept so that a change can be told.
	Filters []string `json:"filters,omitempty"`
	// Replica says that the log is a copy: another place decides its order.
	Replica   bool   `json:"replica,omitempty"`
	Partition uint32 `json:"partition,omitempty"`
}

var keyDefinition = []byte("definition") // in the bucket info

// definition returns the definition in meta.db, nil if there is none.
func (m *meta) definition() (*definition, error) {
	var d *definition
	err := view(m.db, m.path, func(tx *bbolt.Tx) error {
		v := tx.Bucket(bucketInfo).Get(keyDefinition)
		if v == nil {
			return nil
		}
		d = new(definition)
		if err := json.Unmarshal(v, d); err != nil {
			return fmt.Errorf("%w: the definition of the stream cannot be read", errDamaged)
		}
		return nil
	})
	return d, err
}

// checkDefinition refuses options that are not what the log was made with.
func (o *opening) checkDefinition() error {
	d, err := o.log.meta.definition()
	if err != nil || d == nil {
		return err
	}
	if err := o.checkKind(d); err != nil {
		return err
	}
	opts := &o.log.opts
	if o.anyWindow {
		opts.DedupeWindow = d.DedupeWindow
		o.log.tail.dedupe = newDedupe(d.DedupeWindow)
	}
	if d.DedupeWindow != opts.DedupeWindow {
		return fmt.Errorf("its dedupe window was fixed at %d ids when it was made, and %d are asked for: set dedupe_window to %d, or move %s away to begin anew", d.DedupeWindow, opts.DedupeWindow, d.DedupeWindow, o.log.dir)
	}
	if !slices.Equal(d.Filters, opts.Filters) {
		opts.Logger.Info("the filters of a stream have changed: what is stored stays in the stream that has it", "stream", o.log.name, "before", d.Filters, "now", opts.Filters)
	}
	return nil
}

// storeDefinition keeps the options for the next boot.
func (o *opening) storeDefinition() error {
	opts := &o.log.opts
	v, err := json.Marshal(definition{opts.DedupeWindow, opts.Filters, o.replica != nil, o.log.partition})
	if err != nil {
		return err
	}
	return o.log.reserve.withReserve(func() error {
		return o.log.meta.update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketInfo).Put(keyDefinition, v) })
	})
}

// Streams lists the streams that have a log in the directory, open or not.
func (s *Store) Streams() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, streamsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, dirError(s.dir, err)
	}
	var names []string
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(s.dir, streamsDir, e.Name(), metaFile)); err == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Path returns the directory of a stream's log.
func (s *Store) Path(stream string) string { return filepath.Join(s.dir, streamsDir, stream) }
