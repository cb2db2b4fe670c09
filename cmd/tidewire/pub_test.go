package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidewire/tidewire/config"
	"github.com/tidewire/tidewire/protocol"
)

// client runs pub or sub against a started program.
func (s *started) client(ctx context.Context, in io.Reader, args ...string) (out, errs string, err error) {
	var o, e bytes.Buffer
	err = runClient(ctx, streams{in, &o, &e}, append(args, "--server", s.public)...)
	return o.String(), e.String(), err
}

type streams struct {
	in        io.Reader
	out, errs io.Writer
}

func runClient(ctx context.Context, std streams, args ...string) error {
	c := newPubCommand() // not the root: making that changes a global of cobra
	if args[0] == "sub" {
		c = newSubCommand()
	}
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetArgs(args[1:])
	c.SetIn(std.in)
	c.SetOut(std.out)
	c.SetErr(std.errs)
	return c.ExecuteContext(ctx)
}

func numbers(from, to int) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		fmt.Fprintln(&b, i)
	}
	return b.String()
}

func TestPub(t *testing.T) {
	s := start(t, nil)
	for _, c := range []struct {
		in   string
		args []string
		want string // payload
	}{
		{"", []string{"a.1", "hello"}, "hello"},
		{"from stdin\n", []string{"a.1"}, "from stdin\n"},
		{"\x00\xff", []string{"a.1", "-"}, "\x00\xff"},
		{"", []string{"a.1", ""}, ""},
	} {
		out, errs, err := s.client(t.Context(), strings.NewReader(c.in), append([]string{"pub"}, c.args...)...)
		if err != nil || out != "" || errs != "" {
			t.Fatalf("%q: %q %q %v", c.args, out, errs, err)
		}
		out, _, err = s.client(t.Context(), nil, "sub", "a.1", "--from", "last:1", "--count", "1")
		if err != nil || out != c.want+"\n" {
			t.Fatalf("%q: got %q, %v", c.args, out, err)
		}
	}
	out, _, err := s.client(t.Context(), nil, "pub", "a.2", "x", "--id", "7", "--key", "k", "--header", "Lang=en=x", "--json")
	var a answer
	if err != nil || json.Unmarshal([]byte(out), &a) != nil || a.ID != "7" || a.Topic != "a.2" || !a.Stored || a.Duplicate {
		t.Fatal(out, err)
	}
	first := a.Position
	out, _, err = s.client(t.Context(), nil, "pub", "a.2", "x", "--id", "7", "--json")
	if err != nil || json.Unmarshal([]byte(out), &a) != nil || !a.Duplicate || a.Position != first {
		t.Fatal(out, err)
	}
	out, _, _ = s.client(t.Context(), nil, "sub", "a.2", "--from", "earliest", "--count", "1", "--json")
	var m map[string]any
	if err := json.Unmarshal([]byte(out), &m); err != nil || m["key"] != "k" || fmt.Sprint(m["headers"]) != "map[lang:en=x]" || m["position"] != first {
		t.Fatal(out, err)
	}
	if _, _, err := s.client(t.Context(), nil, "pub", "a.2", "y", "--id", "7"); err == nil || !strings.Contains(err.Error(), "another payload") && !strings.Contains(err.Error(), "payload") {
		t.Fatal(err)
	}
}

// TestEphemeralAndExpiring: what is ephemeral comes to who is there and is not
// stored; what has expired is stored and does not come.
func TestEphemeralAndExpiring(t *testing.T) {
	s := start(t, nil)
	out := newWatched("typing\n")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	file := filepath.Join(t.TempDir(), "pos")
	go func() {
		done <- runClient(ctx, streams{nil, out, io.Discard}, "sub", "a", "--from", "last-per-topic", "--server", s.public, "--position-file", file)
	}()
	waitForFile(t, file) // it is subscribed
	for range 100 {      // and live soon
		text, _, err := s.client(t.Context(), nil, "pub", "a", "typing", "--ephemeral", "--json")
		var a answer
		if err != nil || json.Unmarshal([]byte(text), &a) != nil || a.Stored || a.Position != "" || a.ID == "" {
			t.Fatal(text, err)
		}
		if strings.Contains(out.String(), "typing") {
			break
		}
	}
	<-out.seen
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	readPosition(t, file)
	for _, args := range [][]string{{"late", "--expires", "2020-01-02T03:04:05Z"}, {"good", "--expires", "1h"}} {
		if _, _, err := s.client(t.Context(), nil, append([]string{"pub", "b"}, args...)...); err != nil {
			t.Fatal(err)
		}
	}
	text, _, err := s.client(t.Context(), nil, "sub", "*", "--from", "earliest", "--count", "1", "--conflate", "1ms")
	if err != nil || text != "good\n" {
		t.Fatalf("%q, %v", text, err)
	}
}

func TestPubLines(t *testing.T) {
	s := start(t, nil)
	out, errs, err := s.client(t.Context(), strings.NewReader(numbers(1, 5000)), "pub", "a.n", "--lines", "--json")
	if err != nil || errs != "" || strings.Count(out, "\n") != 5000 {
		t.Fatal(len(out), errs, err)
	}
	var last protocol.Position
	for line := range strings.Lines(out) {
		var a answer
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatal(err)
		}
		p, err := protocol.ParsePosition(a.Position)
		if err != nil || p.Offset <= last.Offset {
			t.Fatalf("%s after %s", a.Position, last)
		}
		last = p
	}
	got, _, err := s.client(t.Context(), nil, "sub", "a.n", "--from", "earliest", "--count", "5000")
	if err != nil || got != numbers(1, 5000) {
		t.Fatal(len(got), err)
	}
	// What sub prints, pub takes: into another broker, and again as duplicates.
	export, _, err := s.client(t.Context(), nil, "sub", "a.n", "--from", "earliest", "--count", "5000", "--json")
	if err != nil {
		t.Fatal(err)
	}
	other := start(t, nil)
	for _, duplicates := range []int{0, 5000} {
		out, _, err := other.client(t.Context(), strings.NewReader(export), "pub", "--json-lines", "--json")
		if n := strings.Count(out, `"duplicate":true`); err != nil || n != duplicates {
			t.Fatal(n, err)
		}
	}
	again, _, err := other.client(t.Context(), nil, "sub", "a.n", "--from", "earliest", "--count", "5000")
	if err != nil || again != numbers(1, 5000) {
		t.Fatal(len(again), err)
	}
}

// Lines that are refused are told, the others are stored, and the status is 1.
func TestPubRefusedLines(t *testing.T) {
	s := start(t, func(c *config.Config) { c.Limits.PayloadBytes = 1000 })
	in := `{"topic":"a.x","id":"1","payload":"one"}
not json
{"topic":"$x","payload":"two"}
{"topic":"a.x","json":{"three":3}}
{"topic":"a.x","payload":"` + strings.Repeat("x", 1001) + `"}
{"topic":"a.x","payload":"five"}`
	out, errs, err := s.client(t.Context(), strings.NewReader(in), "pub", "--json-lines", "--json")
	if err == nil || err.Error() != "3 of 6 lines were refused" || strings.Count(out, "\n") != 6 {
		t.Fatal(out, err)
	}
	for i, want := range []string{"tidewire: line 2: ", "tidewire: line 3: ", "tidewire: line 5: "} {
		if lines := strings.Split(errs, "\n"); !strings.HasPrefix(lines[i], want) {
			t.Fatalf("%q, want %q", lines[i], want)
		}
	}
	got, _, err := s.client(t.Context(), nil, "sub", "a.x", "--from", "earliest", "--count", "3")
	if err != nil || got != "one\n{\"three\":3}\nfive\n" {
		t.Fatalf("%q %v", got, err)
	}
}

func TestPubBadCommandLines(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{}, "the topic is missing"},
		{[]string{"a", "b", "c"}, "quote DATA"},
		{[]string{"a..b", "x"}, "empty token"},
		{[]string{"a", "x", "--header", "nothing"}, "name=value"},
		{[]string{"a", "x", "--lines"}, "leave out"},
		{[]string{"a", "--lines", "--id", "x"}, "--id names one message"},
		{[]string{"a", "--json-lines"}, "names its topic"},
		{[]string{"--json-lines", "--key", "k"}, "leave out --id"},
		{[]string{"--json-lines", "--ephemeral"}, "leave out --id"},
		{[]string{"a", "x", "--expires", "soon"}, "10s"},
		{[]string{"a", "--lines", "--json-lines"}, "lines"},
		{[]string{"a", "x", "--server", "nonsense"}, "http://"},
	} {
		err := runClient(t.Context(), streams{strings.NewReader(""), io.Discard, io.Discard}, append([]string{"pub"}, c.args...)...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.args, err, c.want)
		}
	}
}

// nobodyThere is an address where nothing listens.
const nobodyThere = "http://127.0.0.1:1"

func TestBrokerNotRunning(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(200*time.Millisecond, cancel) // the ten seconds are tested with connectError
	err := runClient(ctx, streams{strings.NewReader("x"), io.Discard, io.Discard}, "pub", "a", "x", "--wait", "--server", nobodyThere)
	if err == nil || err.Error() != "interrupted before the broker at "+nobodyThere+" was reached" {
		t.Fatal(err)
	}
	f := &clientFlags{server: nobodyThere, patience: 300 * time.Millisecond}
	_, err = f.connect(t.Context(), io.Discard)
	if err == nil || err.Error() != "cannot reach the broker at "+nobodyThere+" (connection refused): is it running? start it with `tidewire serve`" {
		t.Fatal(err)
	}
}

func TestTokenIsAskedFor(t *testing.T) {
	s := start(t, func(c *config.Config) {
		c.Auth.APIKeys = []config.APIKey{{Name: "k", Key: "twk_0123456789abcdef0123456789abcdef", Permissions: config.Permissions{Publish: []string{"a.>"}, Subscribe: []string{"a.>"}}}}
	})
	_, _, err := s.client(t.Context(), nil, "pub", "a.b", "x")
	if err == nil || !strings.Contains(err.Error(), "TIDEWIRE_TOKEN") {
		t.Fatal(err)
	}
	t.Setenv("TIDEWIRE_TOKEN", "twk_0123456789abcdef0123456789abcdef")
	if _, _, err := s.client(t.Context(), nil, "pub", "a.b", "x"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.client(t.Context(), nil, "pub", "b", "x"); err == nil || strings.Contains(err.Error(), "forbidden:") {
		t.Fatal(err)
	}
	if _, _, err := s.client(t.Context(), nil, "sub", ">"); err == nil {
		t.Fatal("a filter that the token does not allow is taken")
	}
}

// An interrupt ends pub although its input goes on, and says what was stored.
func TestPubInterrupted(t *testing.T) {
	s := start(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	in, feed := io.Pipe()
	defer func() { _ = feed.Close() }()
	done := make(chan error, 1)
	out := newWatched("\n")
	go func() {
		done <- runClient(ctx, streams{in, out, io.Discard}, "pub", "a.b", "--lines", "--json", "--server", s.public)
	}()
	if _, err := io.WriteString(feed, "one\n"); err != nil {
		t.Fatal(err)
	}
	<-out.seen // a live input is answered line by line
	cancel()
	if err := <-done; err == nil || err.Error() != "interrupted: 1 of the 1 lines read were stored" {
		t.Fatal(err)
	}
}

// watched is an output that tells when it holds a text.
type watched struct {
	seen chan struct{} // closed when it does

	mu   sync.Mutex
	text string
	all  strings.Builder
}

func newWatched(text string) *watched { return &watched{seen: make(chan struct{}), text: text} }

func (w *watched) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := strings.Contains(w.all.String(), w.text)
	w.all.Write(b)
	if !before && strings.Contains(w.all.String(), w.text) {
		close(w.seen)
	}
	return len(b), nil
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all.String()
}

// A reader that has gone ends a command quietly.
func TestClosedOutput(t *testing.T) {
	s := start(t, nil)
	if _, _, err := s.client(t.Context(), strings.NewReader(numbers(1, 100)), "pub", "a.n", "--lines"); err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	_ = r.Close()
	var errs bytes.Buffer
	if err := runClient(t.Context(), streams{nil, w, &errs}, "sub", "a.n", "--from", "earliest", "--server", s.public); err != nil || errs.Len() > 0 {
		t.Fatal(err, errs.String())
	}
	broken := errors.New("no space left")
	r, w = io.Pipe()
	_ = r.CloseWithError(broken)
	if err := runClient(t.Context(), streams{nil, w, io.Discard}, "sub", "a.n", "--from", "earliest", "--server", s.public); !errors.Is(err, broken) {
		t.Fatal(err)
	}
}
