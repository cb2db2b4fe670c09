package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// appendTo runs sub as a process that appends to a file, as `>> file` does, and
// returns it running, with its standard error.
func appendTo(t *testing.T, file string, args ...string) (kill func(os.Signal) int, errs *bytes.Buffer) {
	t.Helper()
	out, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	c := program(t, append([]string{"sub"}, args...)...)
	errs = new(bytes.Buffer)
	c.Stdout, c.Stderr = out, errs
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return func(signal os.Signal) int {
		if signal != nil {
			_ = c.Process.Signal(signal)
		}
		_ = c.Wait()
		return c.ProcessState.ExitCode()
	}, errs
}

func waitForText(t *testing.T, file, want string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
		b, _ := os.ReadFile(file)
		if string(b) == want {
			tick.Stop()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s holds %q, want %q", file, b, want)
		}
	}
}

// TestTornLine kills sub while it appends. The half of a line that it leaves is
// not glued to the first line of the next run, and its message comes again.
func TestTornLine(t *testing.T) {
	s := start(t, nil)
	dir := t.TempDir()
	log, pos := filepath.Join(dir, "log"), filepath.Join(dir, "pos")
	args := []string{"a", "--server", s.public, "--from", "earliest", "--position-file", pos}
	s.publish(t, "a", "1", "one")
	s.publish(t, "a", "2", "two")
	kill, _ := appendTo(t, log, append(args, "--count", "2")...)
	if status := kill(nil); status != 0 {
		t.Fatalf("status %d", status)
	}
	kept, err := os.ReadFile(pos)
	if err != nil {
		t.Fatal(err)
	}
	s.publish(t, "a", "3", "three")
	kill, _ = appendTo(t, log, args...)
	waitForText(t, log, "one\ntwo\nthree\n")
	kill(syscall.SIGKILL)
	// As if the kill had come in the middle of the write, before the position.
	if err := os.Truncate(log, int64(len("one\ntwo\nthr"))); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(pos, kept, 0o600); err != nil {
		t.Fatal(err)
	}
	kill, errs := appendTo(t, log, args...)
	waitForText(t, log, "one\ntwo\nthr\nthree\n")
	if status := kill(syscall.SIGINT); status != 0 {
		t.Fatalf("status %d: %s", status, errs)
	}
	if !strings.Contains(errs.String(), "is not complete") {
		t.Errorf("it said %q", errs)
	}
	// A whole file gets nothing, nor does one that a run ends without a message.
	kill, errs = appendTo(t, log, args...)
	s.publish(t, "a", "4", "four")
	waitForText(t, log, "one\ntwo\nthr\nthree\nfour\n")
	kill(syscall.SIGTERM)
	if errs.Len() > 0 {
		t.Errorf("it said %q", errs)
	}
}

// TestExitStatus: who interrupts sub has what was asked for, unless a number of
// messages was; and pub has not stored what it did not read.
func TestExitStatus(t *testing.T) {
	s := start(t, nil)
	s.publish(t, "a", "1", "one")
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		for _, c := range []struct {
			count  string
			status int
			says   string
		}{{"0", 0, ""}, {"2", 1, "tidewire: interrupted after 1 of 2 messages\n"}} {
			log := filepath.Join(t.TempDir(), "log")
			kill, errs := appendTo(t, log, "a", "--server", s.public, "--from", "earliest", "--count", c.count)
			waitForText(t, log, "one\n")
			if status := kill(signal); status != c.status || errs.String() != c.says {
				t.Errorf("--count %s, %v: status %d, %q", c.count, signal, status, errs)
			}
		}
	}
	pub := program(t, "pub", "b", "--lines", "--json", "--server", s.public)
	in, err := pub.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := pub.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	pub.Stderr = &errs
	if err := pub.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(in, "line\n")
	if _, err := out.Read(make([]byte, 1)); err != nil { // it is stored
		t.Fatal(err)
	}
	_ = pub.Process.Signal(os.Interrupt)
	_, _ = io.Copy(io.Discard, out)
	_ = pub.Wait()
	if got := pub.ProcessState.ExitCode(); got != 1 || errs.String() != "tidewire: interrupted: 1 of the 1 lines read were stored\n" {
		t.Errorf("pub: status %d, %q", got, &errs)
	}
}

// TestPositionFileBehindLink: a link stays a link, its target is replaced with
// its mode; and what cannot be written is said before anything is printed.
func TestPositionFileBehindLink(t *testing.T) {
	s := start(t, nil)
	var positions []string
	for _, p := range []string{"one", "two", "three", "four"} {
		positions = append(positions, s.publish(t, "a.b", p, p))
	}
	dir := t.TempDir()
	elsewhere := filepath.Join(dir, "elsewhere")
	if err := os.Mkdir(elsewhere, 0o700); err != nil {
		t.Fatal(err)
	}
	target, first, link := filepath.Join(elsewhere, "target"), filepath.Join(elsewhere, "first"), filepath.Join(dir, "link")
	if err := os.Symlink("target", first); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join("elsewhere", "first"), link); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"one\ntwo\n", "three\n"} {
		out, _, err := s.client(t.Context(), nil, "sub", "a.>", "--from", "earliest", "--count", []string{"2", "1"}[i], "--position-file", link)
		if err != nil || out != want {
			t.Fatalf("%q, %v, want exactly %q", out, err, want)
		}
		if got := readPosition(t, target); got != positions[i+1] {
			t.Errorf("the file holds %s, the last message printed is at %s", got, positions[i+1])
		}
		if err := os.Chmod(target, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := s.client(t.Context(), nil, "sub", "a.>", "--count", "1", "--position-file", link)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(target); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	if to, err := os.Readlink(link); err != nil || to != filepath.Join("elsewhere", "first") {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	_, _, err = s.client(t.Context(), nil, "sub", "a.>", "--position-file", loop)
	if err == nil || !strings.Contains(err.Error(), "too many symbolic links") {
		t.Errorf("a loop of links: %v", err)
	}
	// Root may write into every directory, so a name without room for that of the
	// temporary file beside it stands for one that may not be written to.
	long := filepath.Join(dir, strings.Repeat("n", 255))
	if err := os.WriteFile(long, []byte(`{"positions":{"a.>":"`+positions[0]+`"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _, err := s.client(t.Context(), nil, "sub", "a.>", "--count", "1", "--position-file", long)
	if out != "" || err == nil || !strings.Contains(err.Error(), "the position file cannot be written") {
		t.Errorf("a directory that takes no file: %q, %v", out, err)
	}
}
