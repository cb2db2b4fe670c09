package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/config"
	"github.com/tidewire/tidewire/storage"
)

// TestBackupAndRestore takes the commands through all kinds of backup: what was
// answered before is there after the restore, an id is still a duplicate, and
// who has seen what came later is told exactly what is gone.
func TestBackupAndRestore(t *testing.T) {
	dir := t.TempDir()
	s := start(t, func(c *config.Config) { c.Streams.Main.SegmentBytes = 1 << 20 })
	for n := range 20 {
		s.publish(t, "room.1", fmt.Sprint(n), fmt.Sprintf("%d %s", n, strings.Repeat("x", 100_000)))
	}
	last := s.publish(t, "room.1", "last", "last before the backup")
	targets := map[string]string{"directory": filepath.Join(dir, "backup"), "archive": filepath.Join(dir, "backup.tar"), "stream": filepath.Join(dir, "stream")}
	for name, to := range targets {
		args := []string{"backup", "--server", s.admin, to}
		if name == "stream" {
			args[3] = "-"
		}
		status, out, errs := call(args...)
		if name == "stream" {
			if err := os.WriteFile(to, []byte(out), 0o600); err != nil {
				t.Fatal(err)
			}
			out, errs = errs, ""
		}
		if status != 0 || errs != "" || !strings.Contains(out, ": 3 streams, ") || !strings.Contains(out, "21 messages, ") || strings.Count(out, "\n") != 1 {
			t.Fatalf("%s: status %d, %q, %q", name, status, out, errs)
		}
	}
	if metrics := string(s.get(t, s.admin+"/metrics")); !strings.Contains(metrics, "\ntidewire_backups_total{outcome=\"complete\"} 3\n") || strings.Contains(metrics, "\ntidewire_last_backup_timestamp_seconds 0\n") {
		t.Error("the metrics do not count the backups")
	}
	late := s.publish(t, "room.1", "late", "after the backup")
	later := s.publish(t, "room.1", "later", "after the backup")
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	for name, from := range targets {
		data := filepath.Join(dir, "data of "+name)
		args := []string{"restore", from, "--data", data}
		if name == "stream" {
			in, err := os.Open(from)
			if err != nil {
				t.Fatal(err)
			}
			c := program(t, "restore", "-", "--data", data)
			c.Stdin = in
			if out, err := c.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			_ = in.Close()
		} else if status, out, errs := call(args...); status != 0 || errs != "" || !strings.HasPrefix(out, "restored to "+data+": 3 streams, ") {
			t.Fatalf("%s: status %d, %q, %q", name, status, out, errs)
		}
		if status, out, errs := call("check", "--data", data); status != 0 || !strings.HasSuffix(out, "\nOK\n") {
			t.Fatalf("%s: status %d, %q, %q", name, status, out, errs)
		}
		r := start(t, func(c *config.Config) { c.Data = data })
		for n := range 5 {
			r.publish(t, "room.1", fmt.Sprint("new ", n), "new")
		}
		if again := r.publish(t, "room.1", "last", "last before the backup"); again != last {
			t.Errorf("%s: the repeat is at %s, the first at %s", name, again, last)
		}
		var page struct {
			Messages []struct{ ID string }
			Gap      struct {
				Reason         string
				After, Through int
			}
		}
		for n, from := range []string{late, later} {
			answer := r.get(t, r.public+"/v1/topics/room.1/messages?from="+from)
			if err := json.Unmarshal(answer, &page); err != nil || page.Gap.Reason != "rolled_back" || page.Gap.After != 21 || page.Gap.Through != 22+n || len(page.Messages) != 5 {
				t.Errorf("%s: from %s comes %.600s, %v", name, from, answer, err)
			}
		}
		answer := r.get(t, r.public+"/v1/topics/room.1/messages?from=earliest&limit=1000")
		if err := json.Unmarshal(answer, &page); err != nil || len(page.Messages) != 26 {
			t.Errorf("%s: %d messages, %v", name, len(page.Messages), err)
		}
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRefusedBackups: each mistake gets one sentence, and nothing is touched.
func TestRefusedBackups(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	s := start(t, nil)
	s.publish(t, "room.1", "a", "hello")
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-tar")
		w.Header().Set(http.TrailerPrefix+"Tidewire-Error", "the moon is full")
		_, _ = w.Write(make([]byte, 100))
	}))
	defer broken.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + l.Addr().String()
	_ = l.Close()
	if status, _, errs := call("backup", "--server", s.admin, in("good")); status != 0 {
		t.Fatal(errs)
	}
	if err := os.Mkdir(in("incomplete"), 0o750); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"there.tar": "", "file": "", "incomplete/BACKUP": "", "text.tar": strings.Repeat("text ", 1000)} {
		if err := os.WriteFile(in(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := names(t, dir)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"backup"}, "tidewire backup takes one argument, where the backup goes, but none was given; `tidewire backup --help` shows examples"},
		{[]string{"backup", "--rate", "fast", in("x")}, "--rate: \"fast\" is not a size; write a number of bytes, or one with a unit, such as 256KiB, 64MiB or 10GiB"},
		{[]string{"backup", "--server", nobody, in("x")}, "cannot reach a broker at " + nobody + " (connection refused): is it running, and is that its admin address? see --server"},
		{[]string{"backup", "--server", "127.0.0.1:7071", in("x")}, `"127.0.0.1:7071" is not the URL of an admin listener: write it like http://127.0.0.1:7071`},
		{[]string{"backup", "--server", s.public, in("x")}, "what answers at " + s.public + " is not the admin listener of a broker that can make backups (status 404): give its address with --server, by default it is http://127.0.0.1:7071"},
		{[]string{"backup", "--server", other.URL, in("x.tar")}, "what answers at " + other.URL + " is not the admin listener of a broker that can make backups (status 404): give its address with --server, by default it is http://127.0.0.1:7071"},
		{[]string{"backup", "--server", broken.URL, in("x")}, "the broker could not complete the backup: the moon is full"},
		{[]string{"backup", "--server", broken.URL, in("x.tar")}, "the broker could not complete the backup: the moon is full"},
		{[]string{"backup", "--server", s.admin, in("there.tar")}, in("there.tar") + " exists: choose another name, nothing is overwritten"},
		{[]string{"backup", "--server", s.admin, in("file")}, in("file") + " is a file: give a directory, or a name that ends in .tar"},
		{[]string{"backup", "--server", s.admin, in("good")}, in("good") + " is not empty (it has BACKUP): choose a directory that is empty or does not exist"},
		{[]string{"backup", "--server", s.admin, in("file/x")}, in("file/x") + " cannot be written (not a directory): choose another directory"},
		{[]string{"backup", "--server", s.admin, in("no/x.tar")}, in("no/x.tar") + " cannot be written (no such file or directory): choose another directory"},
		{[]string{"restore", in("good")}, "restore needs --data, a directory that is empty or does not exist; move the old one away first"},
		{[]string{"restore", in("none"), "--data", in("x")}, "the backup " + in("none") + " cannot be read: no such file or directory"},
		{[]string{"restore", in("good"), "--data", in("incomplete")}, in("incomplete") + " is not empty (it has BACKUP): choose a directory that is empty or does not exist"},
		{[]string{"restore", in("incomplete"), "--data", in("x")}, "the backup is not complete: it ends before its file MANIFEST, so it was interrupted while it was made; use another one"},
		{[]string{"restore", in("text.tar"), "--data", in("x")}, "this is not a backup of tidewire: give the directory or the .tar file that `tidewire backup` made"},
		{[]string{"restore", dir, "--data", in("x")}, dir + " is not a backup: it has no file MANIFEST; give the directory or the .tar file that `tidewire backup` made"},
		{[]string{"serve", "--data", in("good")}, in("good") + " is not empty and not a Tidewire data directory (it has BACKUP but no FORMAT): choose an empty directory"},
	} {
		status, out, errs := call(c.args...)
		if status != 1 || out != "" || errs != "tidewire: "+c.want+"\n" {
			t.Errorf("%q: status %d, output %q, and\n got: %s\nwant: %s", c.args, status, out, errs, c.want)
		}
	}
	if after := names(t, dir); strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("there was %q, and now is %q", before, after)
	}
}

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, _ os.DirEntry, err error) error {
		all = append(all, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestBackupManifest: --json prints what the backup has.
func TestBackupManifest(t *testing.T) {
	s := start(t, nil)
	s.publish(t, "room.1", "a", "hello")
	to := filepath.Join(t.TempDir(), "backup")
	status, out, errs := call("backup", "--server", s.admin, to, "--json")
	var m storage.Manifest
	if err := json.Unmarshal([]byte(out), &m); err != nil || status != 0 || errs != "" || m.Messages() != 1 || m.Streams[0].Name != "main" || m.Streams[0].Head != 1 {
		t.Errorf("status %d, %q, %q, %v", status, out, errs, err)
	}
}

// TestInterruptedBackups ends a backup in the middle: by a signal, which cleans
// up, by the end of the broker, which is told, and by kill -9, which leaves what
// nobody takes for a backup.
func TestInterruptedBackups(t *testing.T) {
	dir := t.TempDir()
	s := start(t, nil)
	for n := range 200 { // more than sockets hold
		s.publish(t, "room.1", fmt.Sprint(n), strings.Repeat("x", 200_000))
	}
	begin := func(to string) (c *exec.Cmd, said *bytes.Buffer) {
		t.Helper()
		c, said = program(t, "backup", "--server", s.admin, "--rate", "4MiB", to), new(bytes.Buffer)
		c.Stdout, c.Stderr = said, said
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		part := filepath.Join(to, "streams", "main", "00000001.seg")
		if strings.HasSuffix(to, ".tar") {
			part = to + ".part"
		}
		until(t, func() bool { info, err := os.Stat(part); return err == nil && info.Size() > 0 })
		return c, said
	}
	for _, name := range []string{"signal", "signal.tar"} {
		to := filepath.Join(dir, name)
		c, said := begin(to)
		if err := c.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait()
		if c.ProcessState.ExitCode() != 1 || said.String() != "tidewire: interrupted; what was written of the backup has been removed\n" {
			t.Errorf("%s: %v, %s", name, c.ProcessState, said)
		}
		if left := names(t, dir); len(left) != 1 {
			t.Errorf("%s: left over: %q", name, left)
		}
		until(t, func() bool { status, _, _ := call("backup", "--server", s.admin, "-"); return status == 0 })
	}

	killed := filepath.Join(dir, "killed")
	c, _ := begin(killed)
	_ = c.Process.Kill()
	_ = c.Wait()
	for _, args := range [][]string{{"restore", killed, "--data", filepath.Join(dir, "data")}, {"check", "--backup", killed}} {
		if status, _, errs := call(args...); status != 1 || !strings.HasPrefix(errs, "tidewire: the backup is not complete") {
			t.Errorf("%q: %d, %s", args, status, errs)
		}
	}
	until(t, func() bool { status, _, _ := call("backup", "--server", s.admin, "-"); return status == 0 })

	ended := filepath.Join(dir, "ended")
	c, said := begin(ended)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	if c.ProcessState.ExitCode() != 1 || !strings.Contains(said.String(), "the broker") || strings.Count(said.String(), "\n") != 1 {
		t.Errorf("%v, %s", c.ProcessState, said)
	}
	if _, err := os.Stat(ended); !os.IsNotExist(err) {
		t.Error("a part is left of the backup that the broker ended")
	}
}

// until waits for what another process does.
func until(t *testing.T, condition func() bool) {
	t.Helper()
	deadline, tick := time.After(30*time.Second), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it has not come")
		}
	}
}
