package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidewire/tidewire/config"
)

// withStreams makes a change of the configuration that sets up streams as a file
// would, with all data in dir.
func withStreams(t *testing.T, dir, others string) func(*config.Config) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "tidewire.yaml")
	if err := os.WriteFile(name, []byte("streams:\n  others:\n"+others), 0o600); err != nil {
		t.Fatal(err)
	}
	parsed, err := config.Load(config.Source{File: name})
	if err != nil {
		t.Fatal(err)
	}
	return func(c *config.Config) { c.Data, c.Streams = dir, parsed.Streams }
}

// history returns the payloads that a topic has, and the reason of a gap.
func (s *started) history(t *testing.T, topic, query string) string {
	t.Helper()
	var page struct {
		Messages []struct{ Payload string }
		Gap      *struct{ Reason string }
	}
	if err := json.Unmarshal(s.get(t, s.public+"/v1/topics/"+topic+"/messages?"+query), &page); err != nil {
		t.Fatal(err)
	}
	var all []string
	if page.Gap != nil {
		all = append(all, "gap:"+page.Gap.Reason)
	}
	for _, m := range page.Messages {
		all = append(all, m.Payload)
	}
	return strings.Join(all, " ")
}

// refused returns the sentence of a refusal.
func (s *started) refused(t *testing.T, url string, status int) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	var problem struct{ Code, Detail string }
	if err := json.Unmarshal(fetch(t, request, status), &problem); err != nil {
		t.Fatal(err)
	}
	return problem.Code + ": " + problem.Detail
}

// Each stream is a directory of its own, and lives over a restart.
func TestProgramWithStreams(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	change := withStreams(t, dir, "    - name: orders\n      filters: [orders.>]\n      retention_age: 30d\n    - name: audit\n      filters: ['*.audit', login]\n")
	s := start(t, change)
	position := s.publish(t, "orders.eu", "1", "o1")
	s.publish(t, "room", "1", "r1")
	s.publish(t, "orders.eu", "2", "o2")
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"main", "orders", "audit"} {
		if _, err := os.Stat(filepath.Join(dir, "streams", name, "meta.db")); err != nil {
			t.Error(err)
		}
	}
	s = start(t, change)
	if got := s.publish(t, "orders.eu", "1", "o1"); got != position {
		t.Errorf("the repeat is at %s, the first at %s", got, position)
	}
	for _, c := range []struct{ topic, query, want string }{
		{"orders.eu", "", "o1 o2"},
		{"orders.eu", "from=" + position, "o2"},
		{"orders.eu", "stream=orders", "o1 o2"},
		{"orders.eu", "stream=main", ""},
		{"room", "from=" + position, "gap:other_log r1"},
	} {
		if got := s.history(t, c.topic, c.query); got != c.want {
			t.Errorf("%s?%s: %s, want %s", c.topic, c.query, got, c.want)
		}
	}
	for _, c := range []struct {
		path   string
		status int
		want   string
	}{
		{"/v1/topics/room/messages?stream=nope", 404, `unknown_stream: there is no stream "nope", this broker has orders, audit, dead, main`},
		{"/v1/topics/room/messages?stream=", 404, `unknown_stream: stream is empty`},
		{"/v1/events?filter=%3E", 400, `several_streams: the filter ">" could match topics of the streams orders, audit, main`},
		{"/v1/events?filter=%3E&stream=", 404, `unknown_stream: stream is empty`},
	} {
		if got := s.refused(t, s.public+c.path, c.status); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s", c.path, got)
		}
	}
	if out, _, err := s.client(t.Context(), nil, "sub", ">", "--stream", "orders", "--from", "earliest", "--count", "2"); err != nil || out != "o1\no2\n" {
		t.Errorf("sub prints %q, %v", out, err)
	}
	_, _, err := s.client(t.Context(), nil, "sub", ">", "--count", "1")
	if err == nil || !strings.Contains(err.Error(), "the streams orders, audit, main") {
		t.Errorf("sub without --stream: %v", err)
	}
}

// When filters change, what is stored stays where it is, and can be read by
// naming the stream; new messages go where the topic belongs now. A position from
// before is another log's.
func TestProgramTopicChangesStream(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := start(t, withStreams(t, dir, "    - name: orders\n      filters: [orders.>]\n"))
	position := s.publish(t, "orders.eu", "1", "before")
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s = start(t, withStreams(t, dir, "    - name: europe\n      filters: ['*.eu']\n    - name: orders\n      filters: [orders.>]\n      retention_bytes: 1GiB\n"))
	s.publish(t, "orders.eu", "1", "before") // ids are remembered by stream
	s.publish(t, "orders.eu", "2", "after")
	for query, want := range map[string]string{
		"":                               "before after",
		"stream=orders":                  "before",
		"from=" + position:               "gap:other_log before after",
		"stream=orders&from=" + position: "",
	} {
		if got := s.history(t, "orders.eu", query); got != want {
			t.Errorf("?%s: %s, want %s", query, got, want)
		}
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}

	// A stream that is not configured any more keeps its data.
	s = start(t, withStreams(t, dir, "    - name: orders\n      filters: [orders.>]\n"))
	if !strings.Contains(s.logged.String(), `a stream has data, but is not configured: it is neither served nor removed" stream=europe`) {
		t.Errorf("it says %s", s.logged)
	}
	if got := s.history(t, "orders.eu", ""); got != "before" {
		t.Errorf("after it was removed: %s", got)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s = start(t, withStreams(t, dir, "    - name: europe\n      filters: ['*.eu']\n"))
	if got := s.history(t, "orders.eu", ""); got != "before after" {
		t.Errorf("after it came back: %s", got)
	}
}

// A stream in memory is bounded, leaves nothing on the disk, and says so after a
// restart; one with data on disk cannot become one.
func TestProgramWithStreamInMemory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	change := withStreams(t, dir, "    - name: prices\n      filters: [prices.>]\n      storage: memory\n      retention_messages: 2\n")
	s := start(t, change)
	first := s.publish(t, "prices.a", "1", "one")
	if again := s.publish(t, "prices.a", "1", "one"); again != first {
		t.Errorf("the repeat is at %s, the first at %s", again, first)
	}
	s.publish(t, "prices.a", "2", "two")
	last := s.publish(t, "prices.b", "3", "three")
	s.publish(t, "prices.a", "4", "four")
	for query, want := range map[string]string{"": "four", "from=" + first: "gap:retention four", "from=" + last: "four"} {
		if got := s.history(t, "prices.a", query); got != want {
			t.Errorf("?%s: %s, want %s", query, got, want)
		}
	}
	if metrics := string(s.get(t, s.admin+"/metrics")); !strings.Contains(metrics, "\ntidewire_storage_trimmed_messages_total{stream=\"prices\"} 2\n") {
		t.Error("the metrics do not count what was dropped")
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "streams", "prices")); !os.IsNotExist(err) {
		t.Errorf("it has left something on the disk: %v", err)
	}
	s = start(t, change)
	s.publish(t, "prices.a", "1", "anew")
	if got := s.history(t, "prices.a", "from="+last); got != "gap:other_log anew" {
		t.Errorf("after the restart: %s", got)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}

	if err := os.Mkdir(filepath.Join(dir, "streams", "prices"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "streams", "prices", "meta.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte("streams: {others: [{name: prices, filters: [p], storage: memory}]}"), 0o600); err != nil {
		t.Fatal(err)
	}
	status, _, errs := call("serve", "--config", file, "--data", dir, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	want := "tidewire: the stream prices is to be kept in memory, but " + dir + "/streams/prices has its data on disk: write storage: disk, or move that directory away\n"
	if status != 1 || errs != want {
		t.Errorf("status %d, and\n got: %s\nwant: %s", status, errs, want)
	}
}
