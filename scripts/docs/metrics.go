package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/bridge"
	"github.com/tidewire/tidewire/broker/bridge/connect"
	"github.com/tidewire/tidewire/broker/server"
	"github.com/tidewire/tidewire/storage"
)

// metrics is the table of metrics: those of a broker that is put together as
// the program does it, and told by its registry.
func metrics() []string {
	r := prometheus.NewRegistry()
	if err := registerAll(r); err != nil {
		panic(err) // it takes nothing but a temporary directory
	}
	lines := []string{
		"| metric | type | labels | what it shows |",
		"|---|---|---|---|",
	}
	for _, m := range described(r) {
		labels := "`" + strings.Join(m.labels, "`, `") + "`"
		if len(m.labels) == 0 {
			labels = ""
		}
		lines = append(lines, fmt.Sprintf("| `%s` | %s | %s | %s |", m.name, m.kind, labels, m.help))
	}
	return lines
}

// registerAll makes a broker with one stream that counts in a registry.
func registerAll(r *prometheus.Registry) (err error) {
	dir, err := os.MkdirTemp("", "tidewire-docs-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	quiet := slog.New(slog.DiscardHandler)
	store, err := storage.Open(dir, storage.Options{ReserveBytes: -1, Logger: quiet})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	log, err := store.OpenLog(broker.MainStream, storage.LogOptions{Registerer: keepsAll{r}, Logger: quiet})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	b := broker.New(log, broker.Options{Registerer: r, Logger: quiet})
	bridge.DescribeMetrics(r)
	connect.DescribeMetrics(r)
	_, err = server.New(b, server.Options{Registry: r, Logger: quiet})
	return err
}

// keepsAll is a registry in which the metrics of a log outlive it.
type keepsAll struct{ *prometheus.Registry }

// Unregister does nothing.
func (keepsAll) Unregister(prometheus.Collector) bool { return false }

// metric is a row of the table.
type metric struct {
	name, kind, help string
	labels           []string
}

// described returns what a registry holds of Tidewire, by name.
func described(r *prometheus.Registry) []metric {
	kinds := make(map[string]string) // of those that have a value
	families, err := r.Gather()
	if err != nil {
		panic(err)
	}
	for _, f := range families {
		kinds[f.GetName()] = strings.ToLower(f.GetType().String())
	}
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		r.Describe(descs)
	}()
	var all []metric
	for d := range descs {
		m, ok := parseDesc(d)
		if !ok {
			continue
		}
		if m.kind = kinds[m.name]; m.kind == "" {
			m.kind = "counter" // with labels whose values come when they occur
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b metric) int { return strings.Compare(a.name, b.name) })
	return all
}

var (
	descPattern  = regexp.MustCompile(`^Desc\{fqName: "(tidewire_\w+)", help: "(.*)", unit: ".*", constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)
	labelPattern = regexp.MustCompile(`\w+`)
)

// parseDesc reads a description, which shows what it holds as text alone. ok is
// false for those of the Go runtime and the process.
func parseDesc(d *prometheus.Desc) (m metric, ok bool) {
	parts := descPattern.FindStringSubmatch(d.String())
	if parts == nil {
		return metric{}, false
	}
	m = metric{name: parts[1], help: parts[2]}
	for label := range strings.SplitSeq(parts[3], ",") {
		if name, _, found := strings.Cut(label, "="); found {
			m.labels = append(m.labels, name)
		}
	}
	m.labels = append(m.labels, labelPattern.FindAllString(parts[4], -1)...)
	return m, true
}
