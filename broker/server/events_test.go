package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/tidewire/tidewire/protocol"
)

// event is one server-sent event as a browser reads it.
type event struct {
	name, data string
	lastID     string // after it
}

func (ev *event) payload() string {
	var m struct{ Payload string }
	if err := json.Unmarshal([]byte(ev.data), &m); err != nil {
		return err.Error()
	}
	return m.Payload
}

// source reads a stream by the rules of the HTML standard.
type source struct {
	t      testing.TB
	body   io.ReadCloser
	lines  *bufio.Reader
	lastID string
	retry  string
	quiet  int // comments
}

// open begins a stream; query has no '?'.
func (e *testEdge) open(client *http.Client, query string, headers ...string) *source {
	e.t.Helper()
	response := e.get(client, "/v1/events?"+query, headers...)
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/event-stream" ||
		response.Header.Get("X-Accel-Buffering") != "no" || response.Header.Get("Cache-Control") != "no-store" {
		e.t.Fatalf("%s: %s %v", query, response.Status, response.Header)
	}
	return &source{t: e.t, body: response.Body, lines: bufio.NewReader(response.Body)}
}

func (e *testEdge) get(client *http.Client, target string, headers ...string) *http.Response {
	e.t.Helper()
	r, err := http.NewRequestWithContext(e.t.Context(), "GET", "http://localhost"+target, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	setHeaders(r, headers)
	response, err := client.Do(r)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

// next returns the next event that has data; ok is false at the end.
func (s *source) next() (ev event, ok bool) {
	s.t.Helper()
	id := s.lastID
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return event{}, false
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "":
			if line != "\n" {
				s.quiet++
				continue
			}
			s.lastID = id
			if ev.data != "" {
				ev.lastID = id
				return ev, true
			}
			ev = event{}
		case "id":
			id = value
		case "event":
			ev.name = value
		case "data":
			ev.data += value
		case "retry":
			s.retry = value
		default:
			s.t.Errorf("unknown field in %q", line)
		}
	}
}

// want reads messages and compares their payloads.
func (s *source) want(payloads ...string) {
	s.t.Helper()
	for _, want := range payloads {
		ev, ok := s.next()
		if !ok || ev.name != "" || ev.payload() != want {
			s.t.Fatalf("got %+v, %v; want %s", ev, ok, want)
		}
	}
}

func (s *source) wantError(code protocol.Code) {
	s.t.Helper()
	ev, ok := s.next()
	var p problem
	if !ok || ev.name != "error" || json.Unmarshal([]byte(ev.data), &p) != nil || p.Code != code || p.Detail == "" {
		s.t.Fatalf("got %+v, %v; want the error %s", ev, ok, code)
	}
	if ev, more := s.next(); more {
		s.t.Errorf("after the error: %+v", ev)
	}
}

func TestEvents(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newTestEdge(t, anyone())
		_, client := e.serve()
		e.publishText("a", "0")
		live := e.open(client, "filter=a")
		stored := e.open(client, "filter=*&from=earliest")
		synctest.Wait()
		second := e.publishText("a", "1")
		e.publishText("b", "line 1\nline 2\r\nid: x\n\n")
		live.want("1")
		stored.want("0", "1", "line 1\nline 2\r\nid: x\n\n")
		if live.lastID != second.Position || live.retry != "1000" {
			t.Errorf("%+v, want the id %s", live, second.Position)
		}
		if n := gaugeOf(t, e.metrics.streams); n != 2 {
			t.Errorf("%v streams are counted", n)
		}
	})
}

// TestEventsResume cuts a stream after every line and comes back as a browser
// does: with the same address and the last id, if it has one.
func TestEventsResume(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const count = 6
		for cut := range 25 {
			e := newTestEdge(t, anyone())
			_, client := e.serve()
			e.publishText("a", "old")
			s := e.open(client, "filter=a")
			synctest.Wait()
			for i := range count {
				e.publishText("a", fmt.Sprint(i))
				e.publishText("b", "other")
			}
			synctest.Wait()
			text := ""
			for range cut {
				if len(text) == 0 || s.lines.Buffered() > 0 {
					line, _ := s.lines.ReadString('\n')
					text += line
				}
			}
			_ = s.body.Close()
			half := &source{t: t, lines: bufio.NewReader(strings.NewReader(text))}
			var got []string
			for ev, ok := half.next(); ok; ev, ok = half.next() {
				got = append(got, ev.payload())
			}
			if half.lastID == "" {
				continue // it broke before it had begun
			}
			rest := e.open(client, "filter=a", "Last-Event-ID: "+half.lastID)
			for len(got) < count {
				ev, ok := rest.next()
				if !ok {
					break
				}
				got = append(got, ev.payload())
			}
			if strings.Join(got, " ") != "0 1 2 3 4 5" {
				t.Errorf("cut after %d lines: %v", cut, got)
			}
			_ = rest.body.Close()
		}
	})
}

func TestEventsBeforeTheFirstMessage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newTestEdge(t, anyone())
		_, client := e.serve()
		s := e.open(client, "filter=a")
		line, _ := s.lines.ReadString(':') // retry:
		for range 2 {
			rest, _ := s.lines.ReadString('\n')
			line += rest
		}
		id, _ := s.lines.ReadString('\n')
		_ = s.body.Close()
		e.publishText("a", "meanwhile")
		position := strings.TrimSpace(strings.TrimPrefix(id, "id:"))
		e.open(client, "filter=a", "Last-Event-ID: "+position).want("meanwhile")
	})
}

func TestEventsGap(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newTestEdge(t, anyone())
		_, client := e.serve()
		var positions []string
		for i := range 5 {
			positions = append(positions, e.publishText("a", fmt.Sprint(i)).Position)
		}
		e.log.Trim(3)
		for range 2 { // told again to whoever did not get to it
			s := e.open(client, "filter=a", "Last-Event-ID: "+positions[0])
			ev, _ := s.next()
			if want := `{"reason":"retention","term":"` + e.log.PositionOf(3).Term.String() + `","after":1,"through":3,"position":"` + positions[2] + `"}`; ev.name != "gap" || ev.data != want || ev.lastID != positions[2] {
				t.Errorf("got %+v, want %s", ev, want)
			}
			s.want("3", "4")
		}
		// The id that says where a stream begins must not come before its gap.
		r := e.get(client, "/v1/events?filter=a", "Last-Event-ID: "+positions[0])
		lines := bufio.NewReader(r.Body)
		for range 2 {
			_, _ = lines.ReadString('\n')
		}
		if line, _ := lines.ReadString('\n'); line != "event: gap\n" {
			t.Errorf("the stream begins with %q", line)
		}
	})
}

// TestEventsPastDamage: a stream goes on behind what cannot be read.
func TestEventsPastDamage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newTestEdge(t, anyone())
		_, client := e.serve()
		var positions []string
		for i := range 5 {
			positions = append(positions, e.publishText("a", fmt.Sprint(i)).Position)
		}
		e.log.Damage(1, 3)
		s := e.open(client, "filter=a&from=earliest")
		s.want("0")
		ev, _ := s.next()
		if want := `{"reason":"passed_over","term":"` + e.log.PositionOf(3).Term.String() + `","after":1,"through":3,"position":"` + positions[2] + `"}`; ev.name != "gap" || ev.data != want || ev.lastID != positions[2] {
			t.Errorf("got %+v, want %s", ev, want)
		}
		s.want("3", "4")
	})
}

func TestEventsQuiet(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newTestEdge(t, anyone())
		_, client := e.serve()
		s := e.open(client, "filter=quiet")
		synctest.Wait()
		last := e.publishText("other", "x")
		start := time.Now()
		for s.lastID != last.Position {
			line, err := s.lines.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if id, ok := strings.CutPrefix(line, "id: "); ok {
				s.lastID = strings.TrimSpace(id)
			}
		}
		if d := time.Since(start); d > eventsQuiet {
			t.Errorf("the quiet stream's id came after %v", d)
		}
		for comments := 0; comments < 3; {
			if line, err := s.lines.ReadString('\n'); err != nil {
				t.Fatal(err)
			} else if line == ":\n" {
				comments++
			}
		}
		if d := time.Since(start); d < 2*eventsQuiet || d > 4*eventsQuiet {
			t.Errorf("3 comments in %v", d)
		}
	})
}

func TestEventsEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newTestEdge(t, Options{Access: guarded()})
		_, client := e.serve()
		token := sign(t, good(jwt.MapClaims{"subscribe": []string{">"}, "exp": time.Now().Add(time.Minute).Unix()}), testSecret)
		expiring := e.open(client, "filter=a", "Authorization: Bearer "+token)
		lasting := e.open(client, "filter=a", "Authorization: Bearer "+testKey)
		start := time.Now()
		var reading sync.WaitGroup
		reading.Go(func() { lasting.wantError(protocol.CodeGoingAway) })
		expiring.wantError(protocol.CodeTokenExpired)
		if d := time.Since(start); d != time.Minute {
			t.Errorf("the token was good for %v", d)
		}
		// A browser comes back by itself, once: anything but 200 makes it stay away.
		if response := e.get(client, "/v1/events?filter=a", "Authorization: Bearer "+token); response.StatusCode != http.StatusUnauthorized {
			t.Errorf("with the expired token: %s", response.Status)
		}
		e.Drain(context.Background(), 10*time.Second)
		reading.Wait()
		if lasting.retry == "1000" {
			t.Error("all browsers come back at once")
		}
		response := e.get(client, "/v1/events?filter=a", "Authorization: Bearer "+testKey)
		if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" {
			t.Errorf("while draining: %s %v", response.Status, response.Header)
		}
		synctest.Wait()
		if n := gaugeOf(t, e.metrics.streams); n != 0 {
			t.Errorf("%v streams are left", n)
		}
	})
}

// TestEventsStuck: who does not read is cut off, and holds nobody up.
func TestEventsStuck(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newTestEdge(t, anyone())
		_, client := e.serve()
		stuck := e.open(client, "filter=a")
		reading := e.open(client, "filter=a")
		synctest.Wait()
		payload := strings.Repeat("x", 100<<10)
		go func() {
			for range 20 {
				e.publishText("a", payload)
			}
		}()
		for range 20 {
			reading.want(payload)
		}
		go func() { _, _ = io.Copy(io.Discard, reading.lines) }()
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if n := gaugeOf(t, e.metrics.streams); n != 1 {
			t.Errorf("%v streams are left, want the one that reads", n)
		}
		if _, err := io.Copy(io.Discard, stuck.body); err == nil {
			t.Error("the stuck stream ended as if it were whole")
		}
	})
}

func TestEventsExpired(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newTestEdge(t, anyone())
		_, client := e.serve()
		e.store(protocol.Message{Topic: "a", Payload: []byte("late"), ExpiresAt: time.Now().Add(-time.Second)})
		e.store(protocol.Message{Topic: "a", Payload: []byte("good"), ExpiresAt: time.Now().Add(time.Hour)})
		e.open(client, "filter=a&from=earliest").want("good")
	})
}

func TestEventsLimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := anyone()
		o.Limits.Connections = 1
		e := newTestEdge(t, o)
		_, client := e.serve()
		first := e.open(client, "filter=a")
		if response := e.get(client, "/v1/events?filter=a"); response.StatusCode != http.StatusServiceUnavailable {
			t.Error(response.Status)
		}
		_ = first.body.Close()
		synctest.Wait()
		e.open(client, "filter=a")
	})
}

func TestEventsRefusals(t *testing.T) {
	o := Options{Access: guarded()}
	o.Access.APIKeys[0].Subscribe = []string{"orders.>"}
	e := newTestEdge(t, o)
	const who = "Authorization: Bearer " + testKey
	for _, c := range []struct {
		query, headers string
		code           protocol.Code
		sentence       string
	}{
		{"", who, protocol.CodeInvalidFilter, "filter is missing"},
		{"filter=", who, protocol.CodeInvalidFilter, "filter is empty"},
		{"filter=orders.", who, protocol.CodeInvalidFilter, "did the shell take your '>'"},
		{"filter=a&filter=b", who, protocol.CodeBadRequest, "a stream has one"},
		{"filters=a", who, protocol.CodeBadRequest, "filter, from"},
		{"topic=a", who, protocol.CodeBadRequest, "filter, from"},
		{"filter=other", who, protocol.CodeForbidden, "orders.>"},
		{"filter=>", who, protocol.CodeForbidden, "orders.>"},
		{"filter=orders.a&from=", who, protocol.CodeInvalidStart, "is empty"},
		{"filter=orders.a&from=x", who, protocol.CodeInvalidStart, "no start"},
		{"filter=orders.a&from=7", who, protocol.CodeOffsetNotPosition, "offset"},
		{"filter=orders.a&from=p1-2_3", who, protocol.CodeInvalidPosition, "partition 2"},
		{"filter=orders.a", who + "|Last-Event-ID: 7", protocol.CodeOffsetNotPosition, "Last-Event-ID"},
		{"filter=orders.a", who + "|Last-Event-ID: earliest", protocol.CodeInvalidPosition, "Last-Event-ID"},
		{"filter=orders.a", "Accept: text/event-stream", protocol.CodeUnauthorized, "a token is needed"},
		{"filter=orders.a", who + "|Origin: https://evil.com", protocol.CodeBadOrigin, "allowed_origins"},
	} {
		t.Run(c.query, func(t *testing.T) {
			wantProblem(t, e.do("GET", "/v1/events?"+c.query, "", strings.Split(c.headers, "|")...), c.code, c.sentence)
		})
	}
	if w := e.do("HEAD", "/v1/events?filter=orders.a", "", who); w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/event-stream" {
		t.Errorf("HEAD: %d %v", w.Code, w.Header())
	}
}
