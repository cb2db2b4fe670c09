package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const root = "../.."

func TestPagesAreCurrent(t *testing.T) {
	for _, table := range tables {
		page, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(table.page)))
		if err != nil {
			t.Fatal(err)
		}
		want, err := table.replace(string(page))
		if err != nil {
			t.Fatal(err)
		}
		if want != string(page) {
			t.Errorf("the table %s in %s is out of date: go run ./scripts/docs", table.name, table.page)
		}
	}
}

func TestReplace(t *testing.T) {
	list := table{page: "p.md", name: "list", lines: func() []string { return []string{"| new |"} }}
	got, err := list.replace("a\n<!-- list: begin (why) -->\n| old |\n<!-- list: end -->\nb\n")
	if want := "a\n<!-- list: begin (why) -->\n| new |\n<!-- list: end -->\nb\n"; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	for _, page := range []string{"", "<!-- list: begin -->\n", "<!-- list: end -->\n", "<!-- list: begin\n-->\n<!-- list: end -->", "<!-- list: begin -->\n<!-- other: end -->"} {
		if _, err := list.replace(page); err == nil || !strings.Contains(err.Error(), "p.md lacks") {
			t.Errorf("%q: %v", page, err)
		}
	}
}

func TestRunWritesOnlyWhatDiffers(t *testing.T) {
	dir := t.TempDir()
	for _, table := range tables {
		name := filepath.Join(dir, filepath.FromSlash(table.page))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("<!-- "+table.name+": begin -->\n<!-- "+table.name+": end -->\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(dir); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "docs", "protocol.md")
	first, err := os.ReadFile(name)
	if err != nil || !strings.Contains(string(first), "| `bad_frame` | 400 | 3504 | no |") {
		t.Errorf("%s, %v", first, err)
	}
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(name, long, long); err != nil {
		t.Fatal(err)
	}
	if err := run(dir); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(name); err != nil || info.ModTime().After(long.Add(time.Minute)) {
		t.Errorf("a page that is current was written again: %v", err)
	}
}
