package storage

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

// TestFixedWindow: the dedupe window is fixed when a log is made; who asks for
// none gets what it has.
func TestFixedWindow(t *testing.T) {
	dir := t.TempDir()
	l := openTest(t, dir, LogOptions{DedupeWindow: 1000})
	l.publish(message("a", "first", "x"))
	l.close()
	_, err := tryOpen(t, dir, LogOptions{DedupeWindow: 2000})
	want := "open log main: its dedupe window was fixed at 1000 ids when it was made, and 2000 are asked for: set dedupe_window to 1000, or move " + dir + "/streams/main away to begin anew"
	if err == nil || err.Error() != want {
		t.Fatalf(" got %v\nwant %s", err, want)
	}
	l = openTest(t, dir, LogOptions{})
	ids := func(topic string, n int) (entries []*Entry) {
		for i := range n {
			entries = append(entries, message(topic, fmt.Sprint(i), "x"))
		}
		return entries
	}
	l.publish(ids("a", 999)...)
	if r := l.publish(message("a", "first", "x"))[0]; !r.Duplicate {
		t.Errorf("an id in the window is stored again: %+v", r)
	}
	l.publish(ids("b", 1000)...)
	if r := l.publish(message("a", "first", "x"))[0]; r.Duplicate {
		t.Errorf("an id beyond the window is a duplicate: %+v", r)
	}
	l.close()

	// A log from before there was a definition takes on what it is opened with.
	l = openTest(t, dir, LogOptions{})
	if err := l.meta.update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketInfo).Delete(keyDefinition) }); err != nil {
		t.Fatal(err)
	}
	l.close()
	openTest(t, dir, LogOptions{DedupeWindow: 3000}).close()
	if _, err := tryOpen(t, dir, LogOptions{DedupeWindow: 1000}); err == nil || !strings.Contains(err.Error(), "fixed at 3000") {
		t.Errorf("%v", err)
	}
}

// TestChangedFilters: retention and filters may change, and a change of filters
// is told once.
func TestChangedFilters(t *testing.T) {
	dir := t.TempDir()
	var told bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&told, nil))
	open := func(filters ...string) string {
		t.Helper()
		told.Reset()
		l := openTest(t, dir, LogOptions{Filters: filters, RetentionBytes: int64(1+len(filters)) << 30, Logger: logger})
		names, err := l.store.Streams()
		if err != nil || !slices.Equal(names, []string{"main"}) {
			t.Errorf("streams %q, %v", names, err)
		}
		l.close()
		return told.String()
	}
	if said := open("a.>"); said != "" {
		t.Errorf("a new log says %s", said)
	}
	if said := open("a.>", "b"); !strings.Contains(said, `before=[a.>] now="[a.> b]"`) {
		t.Errorf("a change is told as %q", said)
	}
	if said := open("a.>", "b"); said != "" {
		t.Errorf("told again: %s", said)
	}
}
