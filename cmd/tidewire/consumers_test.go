package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// fakeAdmin answers as an admin listener does, from a table of method and path,
// and notes what it was asked.
type fakeAdmin struct {
	*httptest.Server
	answers map[string]string // `METHOD /path?query`: body
	asked   []string          // the same, with the body of the request
}

func newFakeAdmin(t *testing.T, answers map[string]string) *fakeAdmin {
	f := &fakeAdmin{answers: answers}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		what := r.Method + " " + r.URL.RequestURI()
		f.asked = append(f.asked, strings.TrimSpace(what+" "+string(body)))
		text, ok := f.answers[what]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			text = fmt.Sprintf(`{"code":"unknown_consumer","detail":"nothing at %s"}`, what)
		}
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(f.Close)
	return f
}

// run calls a command that asks the fake, and returns what it wrote and what was
// asked.
func (f *fakeAdmin) run(args ...string) (status int, out, errs, asked string) {
	f.asked = nil
	status, out, errs = call(append(args, "--server", f.URL)...)
	return status, out, errs, strings.Join(f.asked, "\n")
}

const billing = `{"name":"billing","stream":"main","filter":"orders.>","mode":"shared","ordered":true,"ack_wait":"30s","backoff":{"base":"1s","factor":2,"cap":"1m0s","jitter":true},"max_deliver":10,"max_in_flight":256,"max_in_flight_bytes":4194304,"max_waiting":10000,"generation":7,"created":"2026-01-02T15:04:05Z","paused":false,"position":"p1z-42","lag":3,"in_flight":2,"waiting":1,"held":4,"dead":5,"next_due":"2026-01-02T15:05:05Z","oldest":{"position":"p1z-40","attempts":2,"state":"in_flight","due":"2026-01-02T15:06:05Z"},"blocked":"","members":[{"session":"s9","client":"tidewire-go","subject":"alice","window":1,"in_flight":1}]}`

const mail = `{"name":"mail","stream":"main","filter":"mail.*","mode":"exclusive","ordered":false,"ack_wait":"30s","backoff":{"base":"1s","factor":2,"cap":"1m0s","jitter":false},"max_deliver":3,"max_in_flight":256,"max_in_flight_bytes":4194304,"max_waiting":10000,"generation":8,"created":"2026-01-02T15:04:05Z","paused":true,"position":"","lag":0,"in_flight":0,"waiting":0,"held":0,"dead":0,"blocked":"paused","members":[]}`

func TestConsumersListAndShow(t *testing.T) {
	f := newFakeAdmin(t, map[string]string{
		"GET /v1/consumers":         `{"consumers":[` + billing + `,` + mail + `]}`,
		"GET /v1/consumers/billing": billing,
		"GET /v1/consumers/mail":    mail,
	})
	status, out, errs, _ := f.run("consumers", "list")
	rows := columns(out)
	if status != 0 || errs != "" || len(rows) != 3 {
		t.Fatalf("%d, %q, %q", status, out, errs)
	}
	if got := strings.Join(rows[1], " "); got != "billing main orders.> 1 3 2 5 5 yes" {
		t.Error(got)
	}
	if got := strings.Join(rows[2], " "); got != "mail main mail.* 0 0 0 0 0 no: paused" {
		t.Error(got)
	}
	if _, out, _, _ = f.run("consumers", "list", "--json"); out != billing+"\n"+mail+"\n" {
		t.Error(out)
	}
	_, out, _, _ = f.run("consumers", "show", "billing")
	for _, line := range []string{
		"in flight     2 of 256, 4.0 MiB at most\n", "oldest        p1z-40 in_flight, attempt 2, until 2026-01-02T15:06:05Z\n",
		"backoff       up to 1s, times 2 each time, at most 1m0s\n", "member        s9 tidewire-go as alice, 1 in flight, window 1\n",
		"waiting       1 for their next attempt, 4 behind others of their key, of 10000\n", "order         one message of a key at a time\n",
	} {
		if !strings.Contains(out, line) {
			t.Errorf("%q is missing in\n%s", line, out)
		}
	}
	if _, out, _, _ = f.run("consumers", "show", "mail"); !strings.Contains(out, "oldest        -\n") || !strings.Contains(out, "order         any\n") || !strings.Contains(out, "takes new     no: paused\n") {
		t.Error(out)
	}
	if _, out, _, _ = f.run("consumers", "show", "mail", "--json"); out != mail+"\n" {
		t.Error(out)
	}
	if status, _, errs, _ = f.run("consumers", "show", "a/b"); status != 1 || errs != "tidewire: nothing at GET /v1/consumers/a%2Fb\n" {
		t.Errorf("%d, %q", status, errs)
	}
}

func TestConsumersChange(t *testing.T) {
	f := newFakeAdmin(t, map[string]string{
		"GET /v1/consumers/billing":         billing,
		"PUT /v1/consumers/billing":         billing,
		"DELETE /v1/consumers/billing":      "",
		"POST /v1/consumers/billing/pause":  billing,
		"POST /v1/consumers/billing/resume": billing,
		"POST /v1/consumers/billing/seek":   billing,
	})
	for _, c := range []struct {
		args, out, asked string
	}{
		{"pause billing", "the consumer billing is paused; what is in flight can still be acknowledged\n", "POST /v1/consumers/billing/pause {}"},
		{"resume billing", "the consumer billing goes on\n", "POST /v1/consumers/billing/resume {}"},
		{"seek billing --to -1h", "the consumer billing goes on from -1h\n", `POST /v1/consumers/billing/seek {"to":"-1h"}`},
		{"seek billing --to earliest --json", billing + "\n", `POST /v1/consumers/billing/seek {"to":"earliest"}` + "\nGET /v1/consumers/billing"},
		{"delete billing --yes", "the consumer billing is deleted\n", "GET /v1/consumers/billing\nDELETE /v1/consumers/billing"},
		{"create billing orders.> --json", billing + "\n", `PUT /v1/consumers/billing {"filter":"orders.\u003e"}`},
		{
			"create billing o.* --json --from -1h --stream main --ack-wait 90s --backoff 500ms --backoff-cap 10s --max-deliver 3 --max-in-flight 9 --exclusive --unordered", billing + "\n",
			`PUT /v1/consumers/billing {"filter":"o.*","stream":"main","from":"-1h","mode":"exclusive","ordered":false,"ack_wait":"1m30s","backoff":{"base":"500ms","cap":"10s"},"max_deliver":3,"max_in_flight":9}`,
		},
	} {
		status, out, errs, asked := f.run(append([]string{"consumers"}, strings.Fields(c.args)...)...)
		if status != 0 || out != c.out || errs != "" || asked != c.asked {
			t.Errorf("%s: %d, %q, %q, asked\n got %s\nwant %s", c.args, status, out, errs, asked, c.asked)
		}
	}
	for args, want := range map[string]string{
		"delete billing":                   "this would forget the consumer billing, with 7 messages that are not done and 5 dead letters, for ever; say --yes if you mean it",
		"delete":                           "write the name of one consumer: tidewire consumers delete NAME; `tidewire consumers list` shows them",
		"seek billing":                     "write where to go on, for example --to -1h",
		"seek billing --to never":          `--to: "never" is no start: use new, earliest, last:N, last-per-topic, a duration such as -10m, a time such as 2026-01-02T15:04:05Z, or a position`,
		"create billing":                   "write a name and a filter: tidewire consumers create NAME FILTER",
		"create b a..b":                    `the filter "a..b" has an empty token: write one '.' between two tokens and none at the start`,
		"create billing a --ack-wait -1s":  "--ack-wait -1s: give whole milliseconds above 0",
		"create billing a --backoff 1us":   "--backoff 1µs: give whole milliseconds above 0",
		"create billing a --max-deliver x": "", // any sentence
		"pause nope":                       "nothing at POST /v1/consumers/nope/pause",
	} {
		status, out, errs, asked := f.run(append([]string{"consumers"}, strings.Fields(args)...)...)
		if status != 1 || out != "" || (want != "" && errs != "tidewire: "+want+"\n") || strings.Contains(asked, "DELETE") {
			t.Errorf("%s: %d, %q\n got %swant %s", args, status, out, errs, want)
		}
	}
}

// deadText is a dead letter as the admin listener writes it.
func deadText(n int) string {
	return fmt.Sprintf(`{"id":"m%d","topic":"orders.a","origin":"p1z-%d","attempts":10,"reason":"no answer\nwithin 30s","first":"2026-01-02T15:04:05Z","last":"2026-01-02T15:06:05Z","position":"p2-%d"}`, n, n, n+1000)
}

// Dead letters come in pages, and make one list, none twice.
func TestDeadListPages(t *testing.T) {
	page := func(from, to int, next string) string {
		var all []string
		for n := from; n > to; n-- {
			all = append(all, deadText(n))
		}
		return `{"dead":[` + strings.Join(all, ",") + `],"next":"` + next + `"}`
	}
	const path = "GET /v1/consumers/billing/dead?"
	f := newFakeAdmin(t, map[string]string{
		path + "limit=100":                page(250, 150, "p2-1151"),
		path + "before=p2-1151&limit=100": page(150, 50, "p2-1051"),
		path + "before=p2-1051&limit=100": page(50, 0, ""),
		path + "before=p2-1151&limit=20":  page(150, 130, "p2-1131"),
		path + "limit=3":                  page(250, 247, "p2-1248"),
	})
	status, out, errs, _ := f.run("dead", "list", "billing", "--limit", "0", "--json")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if status != 0 || errs != "" || len(lines) != 250 {
		t.Fatalf("%d, %d lines, %q", status, len(lines), errs)
	}
	for i, line := range lines {
		var l map[string]any
		if err := json.Unmarshal([]byte(line), &l); err != nil || l["id"] != fmt.Sprint("m", 250-i) {
			t.Fatalf("line %d: %s, %v", i, line, err)
		}
		for _, field := range []string{"id", "topic", "origin", "attempts", "reason", "first", "last"} {
			if l[field] == nil {
				t.Fatalf("%s is missing: %s", field, line)
			}
		}
	}
	status, out, errs, asked := f.run("dead", "list", "billing", "--limit", "120")
	if status != 0 || strings.Count(out, "\n") != 121 || errs != "tidewire: there are older ones behind these; --limit 0 lists all\n" || strings.Count(asked, "\n") != 1 {
		t.Errorf("%d, %d lines, %q, asked %s", status, strings.Count(out, "\n"), errs, asked)
	}
	if _, out, _, _ = f.run("dead", "list", "billing", "--limit", "3"); !strings.Contains(out, "m250  orders.a  p1z-250  10        2026-01-02T15:06:05Z  no answer within 30s\n") {
		t.Error(out)
	}
}

func TestDeadShowAndChange(t *testing.T) {
	with := func(more string) string { return strings.TrimSuffix(deadText(1), "}") + more + "}" }
	f := newFakeAdmin(t, map[string]string{
		"GET /v1/consumers/billing":               billing,
		"GET /v1/consumers/billing/dead/m1":       with(`,"payload":"hello","key":"k","headers":{"lang":"en"}`),
		"GET /v1/consumers/billing/dead/a%2Fb":    with(`,"payload_base64":"AP8="`),
		"POST /v1/consumers/billing/dead/redrive": `{"count":2}`,
		"POST /v1/consumers/billing/dead/purge":   `{"count":1}`,
	})
	_, out, errs, _ := f.run("dead", "show", "billing", "m1", "a/b")
	if errs != "" || !strings.Contains(out, "header lang  en\n\nhello\n\nid") || !strings.Contains(out, "\n2 bytes that are no text; --json has them\n") {
		t.Errorf("%q, %q", out, errs)
	}
	for _, c := range []struct {
		args, out, asked string
	}{
		{"redrive billing m1 m2", "2 dead letters are given back to billing\n", `POST /v1/consumers/billing/dead/redrive {"ids":["m1","m2"]}`},
		{"redrive billing --all --publish", "2 dead letters are published again\n", `POST /v1/consumers/billing/dead/redrive {"all":true,"publish":true}`},
		{"redrive billing --all --json", "{\"count\":2}\n", `POST /v1/consumers/billing/dead/redrive {"all":true}`},
		{"purge billing m1 --yes", "1 dead letter is removed\n", `POST /v1/consumers/billing/dead/purge {"ids":["m1"]}`},
	} {
		status, out, errs, asked := f.run(append([]string{"dead"}, strings.Fields(c.args)...)...)
		if status != 0 || out != c.out || errs != "" || asked != c.asked {
			t.Errorf("%s: %d, %q, %q, asked\n got %s\nwant %s", c.args, status, out, errs, asked, c.asked)
		}
	}
	for args, want := range map[string]string{
		"purge billing --all":      "this would remove 5 dead letters of the consumer billing, for ever; say --yes if you mean it",
		"purge billing m1":         "this would remove 1 dead letter of the consumer billing, for ever; say --yes if you mean it",
		"redrive billing":          "write the ids of the dead letters, or --all",
		"redrive billing m1 --all": `--all means every one: leave out it or "m1"`,
		"list billing --limit -1":  "--limit -1: give a number above 0, or 0 for all",
		"show billing":             "write the name of one consumer and the ids: tidewire dead show NAME ID...; `tidewire dead list NAME` shows them",
	} {
		status, _, errs, asked := f.run(append([]string{"dead"}, strings.Fields(args)...)...)
		if status != 1 || errs != "tidewire: "+want+"\n" || strings.Contains(asked, "POST") {
			t.Errorf("%s: %d\n got %swant %s\nasked %s", args, status, errs, want, asked)
		}
	}
}

func TestMessageCommand(t *testing.T) {
	const found = `{"message":{"id":"o-1","topic":"orders.a","position":"p1z-40","time":"2026-01-02T15:04:05Z"},"stream":"main","consumers":[{"name":"billing","state":"waiting","attempts":2,"due":"2026-01-02T15:05:05Z","reason":"exit status 1"},{"name":"audit","state":"done"}]}`
	f := newFakeAdmin(t, map[string]string{
		"GET /v1/messages/o-1":                `{"messages":[` + found + `,` + found + `]}`,
		"GET /v1/messages/o-1?topic=orders.a": `{"messages":[` + found + `]}`,
		"GET /v1/messages/o-2?topic=orders.a": `{"messages":[]}`,
	})
	_, out, errs, _ := f.run("message", "o-1", "--topic", "orders.a")
	for _, line := range []string{"topic     orders.a\n", "billing   waiting  2         2026-01-02T15:05:05Z  exit status 1\n", "audit     done     0         -                     -\n"} {
		if errs != "" || !strings.Contains(out, line) {
			t.Errorf("%q is missing in\n%s%s", line, out, errs)
		}
	}
	if _, out, _, _ = f.run("message", "o-1", "--json"); out != found+"\n"+found+"\n" {
		t.Error(out)
	}
	if status, _, errs, _ := f.run("message", "o-2", "--topic", "orders.a"); status != 1 || errs != "tidewire: the broker has no message \"o-2\" on the topic orders.a; it may be older than what is kept\n" {
		t.Errorf("%d, %q", status, errs)
	}
}
