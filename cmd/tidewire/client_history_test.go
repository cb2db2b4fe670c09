package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	tidewire "github.com/tidewire/tidewire/clients/go"
)

// TestClientHistory: the Go client's batches and history against the real broker,
// in both directions, over a purge.
func TestClientHistory(t *testing.T) {
	s := start(t, withStreams(t, filepath.Join(t.TempDir(), "data"), "    - name: rooms\n      filters: [room.>]\n"))
	c, err := tidewire.Connect(t.Context(), tidewire.Options{URLs: []string{s.public}, OutboxMessages: 10})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.WithoutCancel(t.Context())) }()
	var batch []tidewire.Message
	var want []string
	for i := range 25 {
		id := fmt.Sprint("m", i)
		want = append(want, id)
		batch = append(batch, tidewire.Message{
			Topic: "room.a/b", ID: id, Payload: fmt.Append(nil, "\xff", i), ContentType: "x/y", Key: "k",
			Headers: []tidewire.Header{{Name: "n", Value: "ü"}}, ExpiresAt: time.Now().Add(time.Hour),
		})
	}
	receipts, err := c.PublishBatch(t.Context(), batch)
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.PublishBatch(t.Context(), batch)
	for i, r := range again {
		if err != nil || !r.Duplicate || r.Position != receipts[i].Position {
			t.Fatalf("message %d again: %v, %v", i, r, err)
		}
	}
	read := func(o tidewire.HistoryOptions) (got []string, gap string) {
		t.Helper()
		for p, err := range c.HistoryPages(t.Context(), "room.a/b", o) {
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for i, m := range p.Messages {
				ids = append(ids, m.ID)
				if m.ID == "m7" && (m.Position != receipts[7].Position || string(m.Payload) != "\xff7" || m.Headers[0].Value != "ü" || m.Time.IsZero() || m.ExpiresAt.IsZero() || m.Key != "k") {
					t.Errorf("message %d: %+v", i, m)
				}
			}
			if p.Gap != nil {
				gap += p.Gap.Reason
			}
			if o.Before != "" {
				got = append(ids, got...)
			} else {
				got = append(got, ids...)
			}
		}
		return got, gap
	}
	for _, o := range []tidewire.HistoryOptions{{}, {Limit: 7}, {From: "-10m", Stream: "rooms"}, {Before: "new", Limit: 7}, {Before: "new"}} {
		if got, gap := read(o); !slices.Equal(got, want) || gap != "" {
			t.Errorf("%+v: %v, %q", o, got, gap)
		}
	}
	if got, _ := read(tidewire.HistoryOptions{From: receipts[20].Position.String()}); !slices.Equal(got, want[21:]) {
		t.Error(got)
	}
	if got, _ := read(tidewire.HistoryOptions{Before: receipts[4].Position.String()}); !slices.Equal(got, want[:4]) {
		t.Error(got)
	}
	_, err = c.History(t.Context(), "room.a/b", tidewire.HistoryOptions{Limit: 100_000})
	if e, ok := errors.AsType[*tidewire.Error](err); !ok || e.Code != "bad_request" && e.Code != "limit_exceeded" {
		t.Error(err)
	}
	if _, errs, failed := asProcess(t, "streams", "purge", "rooms", "--yes", "--server", s.admin); failed {
		t.Fatal(errs)
	}
	for _, o := range []tidewire.HistoryOptions{{From: receipts[3].Position.String()}, {Before: receipts[20].Position.String()}} {
		if got, gap := read(o); len(got) > 0 || gap != "retention" {
			t.Errorf("after the purge %+v: %v, %q", o, got, gap)
		}
	}
}
