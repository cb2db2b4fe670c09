package main

import (
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
