package storage_test

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/tidewire/tidewire/storage"
	"github.com/tidewire/tidewire/storage/logtest"
)

// disk is a log and what it takes to close it.
type disk struct {
	*storage.Log
	dir   string
	store *storage.Store
}

func (d *disk) open(t *testing.T) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	var err error
	if d.store, err = storage.Open(d.dir, storage.Options{ReserveBytes: -1, Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	if d.Log, err = d.store.OpenLog("main", storage.LogOptions{Logger: quiet}); err != nil {
		t.Fatal(err)
	}
}

func (d *disk) close(t *testing.T) {
	t.Helper()
	if err := errors.Join(d.Close(), d.store.Close()); err != nil {
		t.Error(err)
	}
}

func TestSuite(t *testing.T) {
	logtest.Test(t, logtest.Maker{
		Open: func(t *testing.T) logtest.Log {
			d := &disk{dir: t.TempDir()}
			d.open(t)
			t.Cleanup(func() { d.close(t) })
			return d
		},
		Reopen: func(t *testing.T, l logtest.Log) logtest.Log {
			d := l.(*disk)
			d.close(t)
			d.open(t)
			return d
		},
	})
}
