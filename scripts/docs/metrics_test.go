package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestMetricsAreFound holds the few metrics that operators are told to watch, so
// that a table which reads descriptions as text cannot become empty unnoticed.
func TestMetricsAreFound(t *testing.T) {
	lines := metrics()
	if len(lines) < 40 {
		t.Errorf("only %d lines", len(lines))
	}
	for _, want := range []string{
		"| `tidewire_delivery_seconds` | histogram |  | Time from ",
		"| `tidewire_storage_sync_seconds` | histogram | `stream` | ",
		"| `tidewire_http_requests_total` | counter | `route`, `status` | HTTP requests, by route and status. |",
		"| `tidewire_subscriptions_behind` | gauge |  | ",
	} {
		if !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, want) }) {
			t.Errorf("no line begins with %s", want)
		}
	}
}

// TestPagesNameMetricsThatExist reads every page for names of metrics.
func TestPagesNameMetricsThatExist(t *testing.T) {
	table := strings.Join(metrics(), "\n")
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(pages) < 8 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, page := range append(pages, filepath.Join(root, "CHANGELOG.md")) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\btidewire_[a-z_]+`).FindAllString(string(text), -1) {
			if name = strings.TrimSuffix(name, "_bucket"); !strings.Contains(table, "`"+name+"`") {
				t.Errorf("%s names %s, which is no metric", page, name)
			}
		}
	}
}
