package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tidewire "github.com/tidewire/tidewire/clients/go"
	"github.com/tidewire/tidewire/config"
)

func TestSubSeveralFilters(t *testing.T) {
	s := start(t, nil)
	out := newWatched("three\n")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	file := filepath.Join(t.TempDir(), "pos")
	go func() {
		done <- runClient(ctx, streams{nil, out, io.Discard}, "sub", "a.*", "b", "--server", s.public, "--position-file", file)
	}()
	waitForFile(t, file) // it is subscribed
	for _, m := range [][2]string{{"a.1", "one"}, {"c", "no"}, {"b", "two"}, {"a.2", "three"}} {
		s.publish(t, m[0], m[1], m[1])
	}
	<-out.seen
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.Count(got, "\n") != 3 || !strings.Contains(got, "two\n") {
		t.Fatal(got)
	}
	// Another set of filters is refused with a sentence.
	_, _, err := s.client(t.Context(), nil, "sub", "a.*", "--position-file", file)
	if err == nil || !strings.Contains(err.Error(), "is for a.* b, but the filters given are a.*") {
		t.Fatal(err)
	}
}

func waitForFile(t *testing.T, name string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
		if _, err := os.Stat(name); err == nil {
			tick.Stop()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not appear", name)
		}
	}
}

func readPosition(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var form positionsFile
	if err := json.Unmarshal(b, &form); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return form.Positions["a.>"]
}

// A position file goes on over restarts of sub and of the broker, and wins over
// --from.
func TestPositionFile(t *testing.T) {
	var listen string
	data := filepath.Join(t.TempDir(), "data")
	change := func(c *config.Config) {
		c.Data = data
		if listen != "" {
			c.Listen = listen
		}
	}
	s := start(t, change)
	listen = strings.TrimPrefix(s.public, "http://")
	file := filepath.Join(t.TempDir(), "pos")
	sub := func(ctx context.Context, count string) (string, string, error) {
		return s.client(ctx, nil, "sub", "a.>", "--from", "earliest", "--count", count, "--position-file", file)
	}
	if _, _, err := s.client(t.Context(), strings.NewReader(numbers(1, 10)), "pub", "a.n", "--lines"); err != nil {
		t.Fatal(err)
	}
	if out, _, err := sub(t.Context(), "4"); err != nil || out != numbers(1, 4) {
		t.Fatal(out, err)
	}
	if out, _, err := sub(t.Context(), "3"); err != nil || out != numbers(5, 7) {
		t.Fatal(out, err)
	}
	type result struct {
		out, errs string
		err       error
	}
	done := make(chan result, 1)
	go func() {
		out, errs, err := sub(t.Context(), "8")
		done <- result{out, errs, err}
	}()
	// While it waits for 11 to 15 the broker goes and comes back.
	for tick := time.NewTicker(5 * time.Millisecond); readPosition(t, file) != lastPosition(t, s); <-tick.C {
		continue
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s2 := start(t, change)
	if _, _, err := s2.client(t.Context(), strings.NewReader(numbers(11, 15)), "pub", "a.n", "--lines"); err != nil {
		t.Fatal(err)
	}
	r := <-done
	if r.err != nil || r.out != numbers(8, 15) {
		t.Fatal(r)
	}
	if strings.Count(r.errs, "trying again") != 1 || strings.Count(r.errs, "connected again") != 1 {
		t.Fatal(r.errs)
	}
	if got := readPosition(t, file); got != lastPosition(t, s2) {
		t.Fatal(got)
	}
}

func lastPosition(t *testing.T, s *started) string {
	t.Helper()
	out, _, err := s.client(t.Context(), nil, "sub", "a.>", "--from", "last:1", "--count", "1", "--json")
	var m struct{ Position string }
	if err != nil || json.Unmarshal([]byte(out), &m) != nil {
		t.Fatal(out, err)
	}
	return m.Position
}

// The file never runs ahead of what was flushed, and is replaced at most 100 ms
// after it.
func TestPositionFileFollowsFlush(t *testing.T) {
	s := start(t, nil)
	file := filepath.Join(t.TempDir(), "pos")
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- runClient(ctx, streams{nil, w, io.Discard}, "sub", "a.>", "--server", s.public, "--position-file", file)
	}()
	waitForFile(t, file)
	before := readPosition(t, file)
	position := s.publish(t, "a.b", "1", "hello")
	hold := time.NewTimer(300 * time.Millisecond) // nobody reads the line
	<-hold.C
	if got := readPosition(t, file); got != before {
		t.Fatalf("the position %s was kept before its line was written", got)
	}
	b := make([]byte, 100)
	n, err := r.Read(b)
	if err != nil || string(b[:n]) != "hello\n" {
		t.Fatal(string(b[:n]), err)
	}
	flushed := time.Now()
	for tick := time.NewTicker(time.Millisecond); readPosition(t, file) != position; <-tick.C {
		if time.Since(flushed) > 10*time.Second {
			t.Fatal("the position was not kept")
		}
	}
	if d := time.Since(flushed); d > 100*time.Millisecond {
		t.Logf("kept after %v", d) // a busy machine may be late; the timer is set to half of it
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestSubBadInput(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad")
	if err := os.WriteFile(bad, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(dir, "wrong")
	if err := os.WriteFile(wrong, []byte(`{"positions":{"a":"17"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{}, "the filter is missing"},
		{[]string{"orders."}, "did the shell take your '>'?"},
		{[]string{"a", "a"}, "given twice"},
		{[]string{"a", "--from", "1234"}, "1234\" is an offset"},
		{[]string{"a", "--from", "yesterday"}, "--from: "},
		{[]string{"a", "--count", "-1"}, "above 0"},
		{[]string{"a", "--slow", "down"}, "conflate or disconnect"},
		{[]string{"a", "--conflate", "1h"}, "at most 1m"},
		{[]string{"a", "--conflate", "1s", "--slow", "disconnect"}, "exclude each other"},
		{[]string{"a", "--position-file", bad}, "is not a position file"},
		{[]string{"a", "--position-file", wrong}, "holds no valid position"},
		{[]string{"a", "--position-file", dir}, "cannot be read"},
		{[]string{"a", "--position-file", filepath.Join(dir, "no", "file")}, "cannot be written"},
	} {
		err := runClient(t.Context(), streams{nil, io.Discard, io.Discard}, append([]string{"sub", "--server", nobodyThere}, c.args...)...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.args, err, c.want)
		}
	}
}

// With --count an interrupt is an error: what was asked for did not come.
func TestSubInterrupted(t *testing.T) {
	s := start(t, nil)
	s.publish(t, "a", "1", "x")
	ctx, cancel := context.WithCancel(t.Context())
	out := newWatched("x\n")
	done := make(chan error, 1)
	go func() {
		done <- runClient(ctx, streams{nil, out, io.Discard}, "sub", "a", "--from", "earliest", "--count", "2", "--server", s.public)
	}()
	<-out.seen
	cancel()
	if err := <-done; err == nil || err.Error() != "interrupted after 1 of 2 messages" {
		t.Fatal(err)
	}
}

// A position from another log is told as a gap, and standard output has messages
// only.
func TestSubTellsGaps(t *testing.T) {
	s := start(t, nil)
	s.publish(t, "a", "1", "x")
	for _, asJSON := range []bool{false, true} {
		args := []string{"sub", "a", "--from", "p1z141z3-5", "--count", "1"}
		want := "tidewire: messages for \"a\" may be missing"
		if asJSON {
			args, want = append(args, "--json"), `{"gap":{"filter":"a","reason":"other_log",`
		}
		out, errs, err := s.client(t.Context(), nil, args...)
		if err != nil || strings.Count(out, "\n") != 1 || !strings.HasPrefix(errs, want) {
			t.Fatal(out, errs, err)
		}
	}
	sub := &subscriber{errs: new(bytes.Buffer)}
	sub.tellGap(&tidewire.GapError{Filter: "a", Reason: "retention", After: 10, Through: 41, Position: "p1-41"})
	if got := sub.errs.(*bytes.Buffer).String(); got != "tidewire: messages for \"a\" are missing: offsets 11 to 41 were deleted by age or size (retention)\n" {
		t.Fatal(got)
	}
}

// TestSubFullOutput counts to the end on an output that takes nothing: that is no
// success.
func TestSubFullOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("there is no /dev/full: %v", err)
	}
	defer func() { _ = full.Close() }()
	s := start(t, nil)
	s.publish(t, "a", "one", "one")
	err = runClient(t.Context(), streams{nil, full, io.Discard}, "sub", "a", "--from", "earliest", "--count", "1", "--server", s.public)
	if err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Fatalf("it ended with %v", err)
	}
}
