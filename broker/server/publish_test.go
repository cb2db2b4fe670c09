package server

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/tidewire/tidewire/protocol"
)

func TestPublish(t *testing.T) {
	e := newTestEdge(t, anyone())
	w := e.do("POST", "/v1/topics/orders.new/messages", `{"n":1}`,
		"Content-Type: application/json", `Idempotency-Key: "o-1"`, "Tidewire-Key: customer 7",
		"Tidewire-Ephemeral: false",
		"Tidewire-Header-Trace-Id: abc", "tidewire-header-b.c_d: é", "Tidewire-Header-Empty: ")
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	position := e.log.PositionOf(1).String()
	want := fmt.Sprintf(`{"id":"o-1","topic":"orders.new","position":"%s","duplicate":false,"stored":true}`, position)
	if got := strings.TrimSpace(w.Body.String()); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	m := e.historyOf("orders.new", "").Messages[0]
	delete(m, "time")
	if got, want := fmt.Sprint(m), fmt.Sprint(map[string]any{
		"id": "o-1", "topic": "orders.new", "position": position, "key": "customer 7", "content_type": "application/json",
		"headers": map[string]any{"trace-id": "abc", "b.c_d": "é", "empty": ""}, "payload": `{"n":1}`,
	}); got != want {
		t.Errorf("stored %s\nwant   %s", got, want)
	}
}

func TestPublishTwice(t *testing.T) {
	e := newTestEdge(t, anyone())
	first := e.publishText("a", "x", "Idempotency-Key: k")
	second := e.publishText("a", "x", `Idempotency-Key: "k"`)
	if first.Duplicate || !second.Duplicate || first.Position != second.Position || second.ID != "k" || !second.Stored {
		t.Errorf("%+v, then %+v", first, second)
	}
	if p := e.publishText("b", "x", "Idempotency-Key: k"); p.Duplicate {
		t.Error("an id of one topic counts on another")
	}
	wantProblem(t, e.do("POST", "/v1/topics/a/messages", "y", "Idempotency-Key: k"), protocol.CodeIDConflict, "another payload")
	third, fourth := e.publishText("a", "x"), e.publishText("a", "x")
	if third.ID != third.Position || fourth.ID != fourth.Position || third.ID == fourth.ID {
		t.Errorf("without an id: %+v, %+v", third, fourth)
	}
	if p := e.publishText("a", "z", "Idempotency-Key: r", "Tidewire-Repeat-Age: 90"); p.Duplicate {
		t.Errorf("%+v", p)
	}
}

func TestContentTypes(t *testing.T) {
	e := newTestEdge(t, anyone())
	for i, c := range []struct{ given, want string }{
		{"", ""},
		{"Content-Type: application/x-www-form-urlencoded", ""},
		{"Content-Type: Application/X-WWW-Form-Urlencoded", ""},
		{"Content-Type: application/x-www-form-urlencoded; charset=utf-8", "application/x-www-form-urlencoded; charset=utf-8"},
		{"Content-Type: text/plain", "text/plain"},
	} {
		var headers []string
		if c.given != "" {
			headers = append(headers, c.given)
		}
		e.publishText("a", "x", headers...)
		got, _ := e.historyOf("a", "").Messages[i]["content_type"].(string)
		if got != c.want {
			t.Errorf("%q was stored as %q", c.given, got)
		}
	}
}

func TestPublishRefusals(t *testing.T) {
	o := anyone()
	o.Limits.PayloadBytes = 1000
	e := newTestEdge(t, o)
	many := make([]string, protocol.MaxHeaders+1)
	for i := range many {
		many[i] = fmt.Sprintf("Tidewire-Header-H%d: x", i)
	}
	for _, c := range []struct {
		name     string
		headers  string
		body     string
		code     protocol.Code
		sentence string
	}{
		{"key twice", "Idempotency-Key: a|Idempotency-Key: a", "", protocol.CodeInvalidHeader, `"Idempotency-Key" is given 2 times`},
		{"header twice", "Tidewire-Header-A: 1|tidewire-header-a: 2", "", protocol.CodeInvalidHeader, "2 times"},
		{"ordering key twice", "Tidewire-Key: 1|Tidewire-Key: 2", "", protocol.CodeInvalidHeader, "2 times"},
		{"type twice", "Content-Type: a/b|Content-Type: c/d", "", protocol.CodeInvalidHeader, "2 times"},
		{"unknown header", "Tidewire-Expire-At: x", "", protocol.CodeInvalidHeader, "Tidewire-Expires-At"},
		{"header without a name", "Tidewire-Header-: x", "", protocol.CodeInvalidHeader, "header name"},
		{"header with a bad name", "Tidewire-Header-a!: x", "", protocol.CodeInvalidHeader, "character other than"},
		{"header not UTF-8", "Tidewire-Header-A: \xff", "", protocol.CodeInvalidHeader, "UTF-8"},
		{"long header", "Tidewire-Header-A: " + strings.Repeat("x", protocol.MaxHeaderValueBytes+1), "", protocol.CodeInvalidHeader, "4097 bytes"},
		{"many headers", strings.Join(many, "|"), "", protocol.CodeInvalidHeader, "32 headers"},
		{"empty id", "Idempotency-Key: ", "", protocol.CodeInvalidID, "is empty"},
		{"empty quoted id", `Idempotency-Key: ""`, "", protocol.CodeInvalidID, "is empty"},
		{"quote left open", `Idempotency-Key: "a`, "", protocol.CodeInvalidID, "no closing quote"},
		{"parameters", `Idempotency-Key: "a";b=1`, "", protocol.CodeInvalidID, "after its closing quote"},
		{"quote inside", `Idempotency-Key: a"b`, "", protocol.CodeInvalidID, "quote inside"},
		{"bad escape", `Idempotency-Key: "a\n"`, "", protocol.CodeInvalidID, `'\'`},
		{"long id", "Idempotency-Key: " + strings.Repeat("x", protocol.MaxIDBytes+1), "", protocol.CodeInvalidID, "129 bytes"},
		{"id with a tab", "Idempotency-Key: a\tb", "", protocol.CodeInvalidID, "U+0009"},
		{"empty ordering key", "Tidewire-Key: ", "", protocol.CodeInvalidKey, "is empty"},
		{"long ordering key", "Tidewire-Key: " + strings.Repeat("x", 256), "", protocol.CodeInvalidKey, "256 bytes"},
		{"expiry", "Tidewire-Expires-At: tomorrow", "", protocol.CodeInvalidMessage, "RFC 3339"},
		{"expiry as a number", "Tidewire-Expires-At: 1767366245", "", protocol.CodeInvalidMessage, "RFC 3339"},
		{"expiry too early", "Tidewire-Expires-At: 0001-01-02T00:00:00Z", "", protocol.CodeInvalidMessage, "1970"},
		{"ephemeral, wrong", "Tidewire-Ephemeral: yes", "", protocol.CodeInvalidHeader, "true or false"},
		{"age", "Idempotency-Key: a|Tidewire-Repeat-Age: old", "", protocol.CodeInvalidHeader, "90"},
		{"age below zero", "Idempotency-Key: a|Tidewire-Repeat-Age: -5s", "", protocol.CodeInvalidHeader, "90"},
		{"empty age", "Idempotency-Key: a|Tidewire-Repeat-Age: ", "", protocol.CodeInvalidHeader, "90"},
		{"endless age", "Idempotency-Key: a|Tidewire-Repeat-Age: 99999999999999999999", "", protocol.CodeInvalidHeader, "90"},
		{"age without an id", "Tidewire-Repeat-Age: 5s", "", protocol.CodeInvalidMessage, "stored twice"},
		{"encoded", "Content-Encoding: gzip", "", protocol.CodeUnsupported, "gzip"},
		{"long type", "Content-Type: " + strings.Repeat("x", 256), "", protocol.CodeInvalidMessage, "content type"},
		{"large", "", strings.Repeat("x", 1001), protocol.CodePayloadTooLarge, "1001 bytes, at most 1000"},
		{"bad token", "Authorization: Bearer x", "", protocol.CodeUnauthorized, "JWT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var headers []string
			if c.headers != "" {
				headers = strings.Split(c.headers, "|")
			}
			wantProblem(t, e.do("POST", "/v1/topics/a/messages", c.body, headers...), c.code, c.sentence)
		})
	}
	if _, head := e.log.Bounds(); head != 0 {
		t.Errorf("%d messages were stored", head)
	}
	if w := e.do("POST", "/v1/topics/a/messages", strings.Repeat("x", 1000)); w.Code != http.StatusOK {
		t.Errorf("a payload at the limit: %d %s", w.Code, w.Body)
	}
	if w := e.do("POST", "/v1/topics/a/messages", ""); w.Code != http.StatusOK {
		t.Errorf("an empty payload: %d %s", w.Code, w.Body)
	}
}

func TestPublishPermissions(t *testing.T) {
	e := newTestEdge(t, Options{Access: guarded()})
	if p := e.publishText("orders.a", "x", "Authorization: Bearer "+testKey); !p.Stored {
		t.Errorf("%+v", p)
	}
	if m := e.historyOf("orders.a", "", "Authorization: Bearer "+testKey).Messages[0]; m["publisher"] != "billing" {
		t.Errorf("%v", m)
	}
	wantProblem(t, e.do("POST", "/v1/topics/other/messages", "x", "Authorization: Bearer "+testKey), protocol.CodeForbidden, "orders.>, by.billing")
	wantProblem(t, e.do("POST", "/v1/topics/orders.a/messages", "x"), protocol.CodeUnauthorized, "a token is needed")
	token := sign(t, good(jwt.MapClaims{"exp": 1}), testSecret)
	wantProblem(t, e.do("POST", "/v1/topics/orders.a/messages", "x", "Authorization: Bearer "+token), protocol.CodeTokenExpired, "expired")
}

func TestPublishWhenTheLogCannot(t *testing.T) {
	e := newTestEdge(t, anyone())
	e.log.Refuse(protocol.Errorf(protocol.CodeStorageFull, "the disk is full"))
	w := e.do("POST", "/v1/topics/a/messages", "x")
	if w.Header().Get("Retry-After") == "" {
		t.Error("507 without Retry-After")
	}
	wantProblem(t, w, protocol.CodeStorageFull, "the disk is full")
	e.log.Refuse(&protocol.Error{Code: protocol.CodeOverloaded, Message: "too much", RetryAfter: 1500 * time.Millisecond})
	w = e.do("POST", "/v1/topics/a/messages", "x")
	if w.Header().Get("Retry-After") != "2" || !strings.Contains(w.Body.String(), `"retry_after_ms":1500`) {
		t.Errorf("%v %s", w.Header(), w.Body)
	}
}

func TestPublishNotAnswered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newTestEdge(t, anyone())
		e.log.Hold(true)
		start := time.Now()
		wantProblem(t, e.do("POST", "/v1/topics/a/messages", "x", "Idempotency-Key: k"), protocol.CodeUnknown, "same id")
		if d := time.Since(start); d != publishTimeout {
			t.Errorf("after %v", d)
		}
	})
}

// TestBodies sends bodies that a client library would not.
func TestBodies(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := anyone()
		o.Limits.PayloadBytes = 1000
		e := newTestEdge(t, o)
		dial, _ := e.serve()
		const head = "POST /v1/topics/a/messages HTTP/1.1\r\nHost: localhost\r\n"
		for _, c := range []struct {
			name    string
			request string
			status  int
			after   time.Duration
		}{
			{"whole", head + "Content-Length: 1\r\n\r\nx", 200, 0},
			{"chunked", head + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", 200, 0},
			{"slow", head + "Content-Length: 10\r\n\r\nx", 503, 30 * time.Second},
			{"slow and chunked", head + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", 503, 30 * time.Second},
			{"announced too large", head + "Content-Length: 99999999999\r\n\r\nx", 413, 0},
			{"expected, too large", head + "Content-Length: 9999\r\nExpect: 100-continue\r\n\r\n", 413, 0},
			{"chunked too large", head + "Transfer-Encoding: chunked\r\n\r\n7d0\r\n" + strings.Repeat("x", 2000) + "\r\n", 413, 0},
			{"broken chunks", head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, 0},
			{"refused before the body", "POST /v1/topics/a..b/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nx", 400, 30 * time.Second},
		} {
			start := time.Now()
			conn := dial()
			go func() { _, _ = io.WriteString(conn, c.request) }()
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			body, _ := io.ReadAll(response.Body)
			if response.StatusCode != c.status || time.Since(start) > c.after {
				t.Errorf("%s: %d after %v, want %d: %s", c.name, response.StatusCode, time.Since(start), c.status, body)
			}
			_ = conn.Close()
		}
	})
}

// TestPublishWaitsLonger: the deadline of the body does not end a request that
// waits for the log, nor the connection.
func TestPublishWaitsLonger(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := anyone()
		o.Limits.WriteTimeout = time.Second
		e := newTestEdge(t, o)
		_, client := e.serve()
		e.log.Hold(true)
		go func() {
			time.Sleep(10 * time.Second)
			e.log.Hold(false)
		}()
		for range 2 {
			response, err := client.Post("http://localhost/v1/topics/a/messages", "", strings.NewReader("x"))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
			if response.StatusCode != http.StatusOK {
				t.Error(response.Status)
			}
			synctest.Wait()
		}
	})
}

func FuzzIdempotencyKey(f *testing.F) {
	for _, s := range []string{"", "a", `"a"`, `""`, `"a\"b\\"`, `"a`, `a"`, `"\`, `"a" `, "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := parseIdempotencyKey(s)
		if err != nil {
			if err.Code != protocol.CodeInvalidID {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		if id == "" {
			t.Fatalf("%q became the empty id", s)
		}
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(id) + `"`
		if again, err := parseIdempotencyKey(quoted); err != nil || again != id {
			t.Fatalf("%q became %q, which quoted is %s, which is %q, %v", s, id, quoted, again, err)
		}
	})
}

func FuzzMessageHeaders(f *testing.F) {
	f.Add("Tidewire-Header-A", "x", "Tidewire-Repeat-Age", "1m")
	f.Add("Idempotency-Key", `"x"`, "Tidewire-Expires-At", "2026-01-02T15:04:05Z")
	f.Add("Tidewire-Key", "\xff", "Content-Type", "")
	f.Add("Tidewire-", "", "Tidewire-Header-", "")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		r := &http.Request{Header: http.Header{}}
		r.Header.Add(name1, value1)
		r.Header.Add(name2, value2)
		r.SetPathValue("topic", "a")
		m, age, err := readMessage(r)
		if err != nil {
			if err.Code.Info().Status != http.StatusBadRequest {
				t.Fatalf("%v", err)
			}
			return
		}
		if age < 0 || age > maxAge {
			t.Fatalf("age %v", age)
		}
		if err := m.Check(1); err == nil {
			protocol.AppendRecord(nil, &m)
		}
	})
}
