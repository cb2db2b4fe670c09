package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
)

// A stream gives the newest of each topic alone, on disk and in memory, and whoever
// comes back and would have met others is told how many; after a restart too.
func TestNewestOfEachTopic(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	bounded := func(n int) *started {
		return start(t, withStreams(t, dir, fmt.Sprintf("    - name: orders\n      filters: [orders.>]\n      max_messages_per_topic: %d\n    - name: prices\n      filters: [prices.>]\n      storage: memory\n      max_messages_per_topic: 2\n", n)))
	}
	s := bounded(2)
	at := make(map[string][]string)
	for i := range 5 {
		for _, topic := range []string{"orders.a", "prices.a"} {
			at[topic] = append(at[topic], s.publish(t, topic, fmt.Sprint(i), fmt.Sprint(i)))
		}
	}
	history := func(topic, query string, want ...string) {
		t.Helper()
		answer, err := http.Get(s.public + "/v1/topics/" + topic + "/messages?" + query)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = answer.Body.Close() }()
		body, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("%s: %v", body, err)
		}
		got := string(body)
		if n := strings.Count(got, `"payload":`); n != len(want)-1 {
			t.Errorf("%s of %s: %d messages: %s", query, topic, n, got)
		}
		for _, part := range want {
			if !strings.Contains(got, part) {
				t.Errorf("%s of %s: no %s in %s", query, topic, part, got)
			}
		}
	}
	for _, topic := range []string{"orders.a", "prices.a"} {
		first := at[topic][0]
		gap := fmt.Sprintf(`"through":1,"position":"%s","missed":2}`, first)
		history(topic, "from="+first, gap, `"payload":"3"`, `"payload":"4"`)
		history(topic, "from=earliest", `]`, `"payload":"3"`, `"payload":"4"`)
		history(topic, "before="+at[topic][4], `"missed":3}`, `"payload":"3"`)
		_, errs, _ := asProcess(t, "sub", topic, "--from", first, "--count", "2", "--server", s.public)
		if want := fmt.Sprintf("tidewire: 2 messages for %q are missing: there are enough newer ones of their topics (retention)\n", topic); errs != want {
			t.Errorf("%q", errs)
		}
		out, _, _ := asProcess(t, "topics", "--filter", topic, "--server", s.admin)
		if got := columns(out)[1]; strings.Join(got, " ") != fmt.Sprintf("%s %s 2 0.1/s %s %s", topic, strings.Split(topic, ".")[0], at[topic][3], at[topic][4]) {
			t.Error(out)
		}
		event, err := http.Get(s.public + "/v1/events?" + url.Values{"filter": {topic}, "from": {first}}.Encode())
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 600)
		n, _ := io.ReadAtLeast(event.Body, b, 200)
		_ = event.Body.Close()
		if want := "event: gap\nid: " + first + "\n"; !strings.Contains(string(b[:n]), want) {
			t.Errorf("no %q in %q", want, b[:n])
		}
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s = bounded(2)
	history("orders.a", "from="+at["orders.a"][0], `"missed":2}`, `"payload":"3"`, `"payload":"4"`)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s = bounded(4)
	history("orders.a", "from="+at["orders.a"][0], `]`, `"payload":"1"`, `"payload":"2"`, `"payload":"3"`, `"payload":"4"`)
}
