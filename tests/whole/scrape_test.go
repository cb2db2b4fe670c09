package whole_test

import (
	"bufio"
	"net/http"
	"regexp"
	"strconv"
	"testing"
)

// metrics are what /metrics shows: the sums over the labels of each metric, and
// each of their lines by itself, as `name{label="value"}`.
type metrics map[string]float64

var metricLine = regexp.MustCompile(`^(\w+)(\{[^}]*\})? (\S+)$`)

// scrape asks the admin listener.
func (b *broker) scrape(t testing.TB) metrics {
	t.Helper()
	resp, err := http.Get("http://" + b.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	all := make(metrics)
	for s := bufio.NewScanner(resp.Body); s.Scan(); {
		parts := metricLine.FindStringSubmatch(s.Text())
		if parts == nil {
			continue // a comment
		}
		value, err := strconv.ParseFloat(parts[3], 64)
		if err != nil {
			t.Fatalf("%v in %s", err, s.Text())
		}
		all[parts[1]] += value
		if parts[2] != "" {
			all[parts[1]+parts[2]] = value
		}
	}
	return all
}
