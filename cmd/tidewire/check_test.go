package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidewire/tidewire/config"
)

func TestCheck(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	s := start(t, func(c *config.Config) { c.Data = data })
	for _, id := range []string{"a", "b", "c"} {
		s.publish(t, "room.1", id, "hello "+id)
	}
	if status, out, errs := call("check", "--data", data); status != 1 || out != "" || !strings.Contains(errs, "in use by another process: stop that one") {
		t.Errorf("while the broker runs: status %d, %q, %q", status, out, errs)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}

	status, out, errs := call("check", "--data", data)
	if status != 0 || errs != "" || !strings.HasPrefix(out, data+": 3 streams, 3 segments, 3 messages, ") || !strings.HasSuffix(out, "\nOK\n") {
		t.Errorf("sound: status %d, %q, %q", status, out, errs)
	}
	damage(t, data, "hello b")
	status, out, errs = call("check", "--data", data)
	if status != 1 || errs != "" || !strings.Contains(out, "\nproblem: ") || strings.Contains(out, "OK") {
		t.Errorf("damaged: status %d, %q, %q", status, out, errs)
	}
	status, out, errs = call("check", "--data", data, "--json")
	var report checkReport
	if err := json.Unmarshal([]byte(out), &report); err != nil || status != 1 || errs != "" || report.OK || len(report.Problems) == 0 || strings.Count(out, "\n") != 1 {
		t.Errorf("damaged, as JSON: status %d, %q, %q, %v", status, out, errs, err)
	}
}

func TestCheckOfNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "absent")
	status, out, errs := call("check", "--data", dir)
	if status != 1 || out != "" || !strings.HasPrefix(errs, "tidewire: "+dir+" is not a Tidewire data directory") {
		t.Errorf("status %d, %q, %q", status, out, errs)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Error("the check has made the directory")
	}
}

// damage changes a byte wherever a file holds the text: pages that bbolt has
// freed hold it too.
func damage(t *testing.T, dir, text string) {
	t.Helper()
	damaged := 0
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		changed := bytes.ReplaceAll(content, []byte(text), []byte("J"+text[1:]))
		if bytes.Equal(changed, content) {
			return nil
		}
		damaged++
		return os.WriteFile(name, changed, 0o600)
	})
	if err != nil || damaged == 0 {
		t.Fatalf("%d files damaged: %v", damaged, err)
	}
}

// TestCheckOfBackups: quick and deep, directories and archives.
func TestCheckOfBackups(t *testing.T) {
	dir := t.TempDir()
	s := start(t, nil)
	s.publish(t, "room.1", "a", "hello a")
	backup, archive := filepath.Join(dir, "backup"), filepath.Join(dir, "backup.tar")
	for _, to := range []string{backup, archive} {
		if status, _, errs := call("backup", "--server", s.admin, to); status != 0 {
			t.Fatal(errs)
		}
	}
	sound := func(from string, args ...string) {
		t.Helper()
		status, out, errs := call(append([]string{"check", "--backup", from}, args...)...)
		if status != 0 || errs != "" || !strings.HasPrefix(out, from+": 3 streams, 1 segment, 1 message, ") || !strings.HasSuffix(out, "\nOK\n") {
			t.Errorf("%s %q: status %d, %q, %q", from, args, status, out, errs)
		}
	}
	refused := func(want string, args ...string) {
		t.Helper()
		status, out, errs := call(append([]string{"check"}, args...)...)
		if status != 1 || out != "" || errs != "tidewire: "+want+"\n" {
			t.Errorf("%q: status %d, %q, and\n got: %s\nwant: %s", args, status, out, errs, want)
		}
	}
	sound(backup)
	sound(backup, "--deep")
	sound(archive)
	refused(archive+" is an archive: without --deep all of it is verified; to look at each message, restore it and check that with --deep --data", "--backup", archive, "--deep")
	refused(backup+" is a backup and not a data directory: check it with --backup", "--data", backup)
	refused("--data and --backup were given: check one after the other", "--data", dir, "--backup", backup)

	damage(t, dir, "hello a")
	sound(backup) // nothing but reading everything finds that
	refused("the backup is damaged: streams/main/00000001.seg does not match its checksum; use another backup, this one is left as it is", "--backup", backup, "--deep")
	refused("the backup is damaged: streams/main/00000001.seg does not match its checksum; use another backup, this one is left as it is", "--backup", archive)
	data := filepath.Join(dir, "data")
	for _, from := range []string{backup, archive} {
		if status, _, errs := call("restore", from, "--data", data); status != 1 || !strings.Contains(errs, "is damaged") {
			t.Errorf("restored: %d, %s", status, errs)
		}
	}
}
