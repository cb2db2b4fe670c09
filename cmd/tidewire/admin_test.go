package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// asProcess runs a command as a process of its own.
func asProcess(t *testing.T, args ...string) (out, errs string, failed bool) {
	t.Helper()
	c := program(t, args...)
	var o, e strings.Builder
	c.Stdout, c.Stderr = &o, &e
	err := c.Run()
	return o.String(), e.String(), err != nil
}

// columns splits the lines of a table, in which columns are two blanks apart.
func columns(table string) (rows [][]string) {
	for line := range strings.Lines(table) {
		rows = append(rows, strings.Fields(line))
	}
	return rows
}

// Operators list, describe and purge streams of a running broker; whoever had not
// read what was purged is told.
func TestStreamsCommand(t *testing.T) {
	s := start(t, withStreams(t, filepath.Join(t.TempDir(), "data"), "    - name: orders\n      filters: [orders.>, bills]\n      max_messages_per_topic: 3\n    - name: prices\n      filters: [prices.>]\n      storage: memory\n"))
	first := s.publish(t, "orders.a", "1", "x")
	s.publish(t, "orders.b", "1", "y")
	last := s.publish(t, "bills", "1", "z")
	s.publish(t, "prices.a", "1", "p")

	out, errs, failed := asProcess(t, "streams", "--server", s.admin)
	rows := columns(out)
	if failed || errs != "" || len(rows) != 5 || strings.Join(rows[0], " ") != "NAME STORAGE MESSAGES SIZE RATE PER TOPIC OLDEST FILTERS" {
		t.Fatalf("%q, %q", out, errs)
	}
	for i, want := range [][]string{{"orders", "disk", "3"}, {"prices", "memory", "1"}, {"dead", "disk", "0"}, {"main", "disk", "0"}} {
		if got := rows[i+1]; strings.Join(got[:3], " ") != strings.Join(want, " ") {
			t.Errorf("row %d: %v", i, got)
		}
	}
	if got := rows[1]; strings.Join(got[len(got)-2:], " ") != "orders.> bills" {
		t.Errorf("%v", got)
	}
	out, _, _ = asProcess(t, "streams", "info", "orders", "--json", "--server", strings.TrimPrefix(s.admin, "http://"))
	var info streamLine
	if err := json.Unmarshal([]byte(out), &info); err != nil || info.Name != "orders" || info.First != first || info.Last != last || info.Rate != 0.05 || info.PerTopic != 3 || info.Oldest == nil || info.Newest.Before(*info.Oldest) || info.Bytes == 0 || strings.Count(out, "\n") != 1 {
		t.Errorf("%s: %v", out, err)
	}
	if out, _, _ = asProcess(t, "streams", "info", "orders", "--server", s.admin); !strings.Contains(out, "\nhead       "+last+"\n") || !strings.Contains(out, "\nper topic  3\n") {
		t.Error(out)
	}

	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"purge", "orders"}, "this would remove all 3 messages of the stream orders, for ever; say --yes if you mean it"},
		{[]string{"purge", "nope", "--yes"}, `there is no stream "nope", this broker has orders, prices, dead, main`},
		{[]string{"info"}, "write the name of one stream: tidewire streams info NAME; `tidewire streams list` shows them"},
		{[]string{"nope"}, `unknown command "nope" for "tidewire streams"; there is list and info and purge`},
		{[]string{"list", "--server", "ftp://x"}, `--server "ftp://x" is not a URL: write it like http://127.0.0.1:7071`},
		{[]string{"list", "--server", s.public}, "there is nothing at \"/v1/streams\": docs/http.md lists the paths"},
	} {
		args := append([]string{"streams"}, c.args...)
		if !strings.Contains(strings.Join(args, " "), "--server") {
			args = append(args, "--server", s.admin)
		}
		if status, out, errs := call(args...); status != 1 || out != "" || errs != "tidewire: "+c.want+"\n" {
			t.Errorf("%q: %d, %q, %q", args, status, out, errs)
		}
	}
	for _, name := range []string{"orders", "prices"} {
		out, errs, failed = asProcess(t, "streams", "purge", name, "--yes", "--server", s.admin)
		if failed || errs != "" || !strings.HasPrefix(out, "the stream "+name+" is purged up to p") {
			t.Errorf("%q, %q", out, errs)
		}
	}
	if got := s.history(t, "orders.b", "from="+first); got != "gap:retention" {
		t.Errorf("after the purge: %s", got)
	}
	if got := s.publish(t, "bills", "1", "z"); got != last {
		t.Errorf("a repeat is stored again, at %s", got)
	}
	if got := s.history(t, "prices.a", ""); got != "" {
		t.Errorf("after the purge: %s", got)
	}
}

// Topics are listed in pages that make one list.
func TestTopicsCommand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := start(t, withStreams(t, dir, "    - name: orders\n      filters: [orders.>]\n"))
	for i := range 12 {
		s.publish(t, fmt.Sprintf("room.%02d", i), "1", "x")
	}
	var at []string
	for i := range 3 {
		at = append(at, s.publish(t, "orders.a", fmt.Sprint(i), "x"))
	}
	out, errs, failed := asProcess(t, "topics", "--filter", "orders.>", "--server", s.admin)
	want := [][]string{{"TOPIC", "STREAM", "MESSAGES", "RATE", "FIRST", "LAST"}, {"orders.a", "orders", "3", "0.1/s", at[0], at[2]}}
	if failed || errs != "" || fmt.Sprint(columns(out)) != fmt.Sprint(want) {
		t.Errorf("%q, %q", out, errs)
	}
	status, out, errs := call("topics", "--json", "--limit", "5", "--server", s.admin)
	if lines := strings.Split(out, "\n"); status != 0 || len(lines) != 6 || !strings.HasPrefix(lines[0], `{"topic":"orders.a","stream":"orders","messages":3,"first":"`+at[0]) || errs != "tidewire: there may be more behind these; --limit 0 lists all\n" {
		t.Errorf("%d, %q, %q", status, out, errs)
	}
	if _, out, _ = call("topics", "--json", "--stream", "main", "--server", s.admin); strings.Count(out, "\n") != 12 {
		t.Errorf("%q", out)
	}
	for args, want := range map[string]string{
		"--filter a..b": `--filter: the filter "a..b" has an empty token: write one '.' between two tokens and none at the start`,
		"--limit -1":    "--limit -1: give a number above 0, or 0 for all",
		"--stream nope": `there is no stream "nope", this broker has orders, dead, main`,
	} {
		if status, _, errs := call(append(strings.Fields("topics --server "+s.admin), strings.Fields(args)...)...); status != 1 || errs != "tidewire: "+want+"\n" {
			t.Errorf("%s: %d, %q", args, status, errs)
		}
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if status, _, errs := call("topics", "--server", s.admin); status != 1 || !strings.HasPrefix(errs, "tidewire: cannot reach the admin listener at "+s.admin+" (connection refused)") {
		t.Errorf("%d, %q", status, errs)
	}

	// A topic that has changed its stream is in both, and no page divides it.
	s = start(t, withStreams(t, dir, "    - name: orders\n      filters: [orders.>, room.03]\n"))
	s.publish(t, "room.03", "1", "x")
	_, out, _ = call("topics", "--json", "--limit", "4", "--filter", "room.*", "--server", s.admin)
	if n := strings.Count(out, `"room.03"`); n != 2 || strings.Count(out, "\n") != 5 {
		t.Errorf("%s", out)
	}
}

// A purge needs its confirmation, and no page of a browser can give it.
func TestPurgeIsConfirmed(t *testing.T) {
	s := start(t, nil)
	s.publish(t, "a", "1", "x")
	post := func(name, kind, body, origin string, status int) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.admin+"/v1/streams/"+name+"/purge", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", kind)
		if origin != "" {
			request.Header.Set("Origin", origin)
		}
		fetch(t, request, status)
	}
	post("main", "text/plain", `{"confirm":"main"}`, "", http.StatusBadRequest)
	post("main", "application/json", `{"confirm":"other"}`, "", http.StatusBadRequest)
	post("main", "application/json", ``, "", http.StatusBadRequest)
	post("main", "application/json", `{"confirm":"main"}`, "http://evil.example", http.StatusForbidden)
	post("main", "application/json", `{"confirm":"main"}`, "null", http.StatusForbidden)
	post("nope", "application/json", `{"confirm":"nope"}`, "", http.StatusNotFound)
	if got := s.history(t, "a", ""); got != "x" {
		t.Fatalf("it was purged: %q", got)
	}
	post("main", "application/json; charset=utf-8", `{"confirm":"main"}`, "", http.StatusOK)
	if got := s.history(t, "a", ""); got != "" {
		t.Errorf("it was not purged: %q", got)
	}
	for query, status := range map[string]int{"limit=0": 400, "limit=1001": 400, "filter=a..b": 400, "stream=": 404, "stream=x": 404, "x=1": 400, "": 200, "filter=a&limit=1&after=0": 200} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.admin+"/v1/topics?"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		fetch(t, request, status)
	}
}
