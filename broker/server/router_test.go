package server

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/tidewire/tidewire/protocol"
)

func TestPaths(t *testing.T) {
	e := newTestEdge(t, anyone())
	for _, c := range []struct {
		method, target string
		code           protocol.Code
		sentence       string
	}{
		{"POST", "/v1/topics//messages", protocol.CodeBadRequest, "is the topic empty?"},
		{"POST", "/v1/topics/../messages", protocol.CodeBadRequest, `".."`},
		{"POST", "/v1/topics/./messages", protocol.CodeBadRequest, `"."`},
		{"POST", "/v1/topics/%2e%2e/messages", protocol.CodeBadRequest, `".."`},
		{"POST", "/v1/topics/%2E/messages", protocol.CodeBadRequest, `"."`},
		{"POST", "/v1/topics/a/messages/", protocol.CodeBadRequest, "ends in '/'"},
		{"POST", "/v1//topics/a/messages", protocol.CodeBadRequest, "nothing between"},
		{"POST", "//v1/topics/a/messages", protocol.CodeBadRequest, "nothing between"},
		{"GET", "/healthz/", protocol.CodeBadRequest, "ends in '/'"},
		{"GET", "/v1/../healthz", protocol.CodeBadRequest, `".."`},
		{"GET", "/", protocol.CodeNotFound, "nothing at"},
		{"GET", "/v1", protocol.CodeNotFound, "nothing at"},
		{"GET", "/V1/events", protocol.CodeNotFound, "nothing at"},
		{"POST", "/v1/messages/a", protocol.CodeNotFound, "nothing at"},
		{"POST", "/v1/topics/a/b/messages", protocol.CodeNotFound, "nothing at"},
		{"POST", "/v1/topics/{topic}/messagesx", protocol.CodeNotFound, "nothing at"},
		{"PUT", "/v1/topics/a/messages", protocol.CodeMethodNotAllowed, "GET, HEAD, OPTIONS, POST"},
		{"DELETE", "/healthz", protocol.CodeMethodNotAllowed, "GET, HEAD, OPTIONS"},
		{"POST", "/v1/events", protocol.CodeMethodNotAllowed, "GET, HEAD, OPTIONS"},
		{"post", "/v1/topics/a/messages", protocol.CodeMethodNotAllowed, "GET, HEAD, OPTIONS, POST"},
		{"POST", "/v1/topics/a%20b/messages", protocol.CodeInvalidTopic, "U+0020"},
		{"POST", "/v1/topics/%00/messages", protocol.CodeInvalidTopic, "U+0000"},
		{"POST", "/v1/topics/%ff/messages", protocol.CodeInvalidTopic, "UTF-8"},
		{"POST", "/v1/topics/a../messages", protocol.CodeInvalidTopic, "ends in '.'"},
		{"POST", "/v1/topics/a.%3E/messages", protocol.CodeInvalidTopic, "only filters"},
		{"POST", "/v1/topics/$dead.x/messages", protocol.CodeReservedTopic, "'$'"},
		{"GET", "/v1/topics/*/messages", protocol.CodeInvalidTopic, "only filters"},
		{"GET", "/v1/topics/a/messages?lmit=1", protocol.CodeBadRequest, "from, limit"},
		{"GET", "/v1/topics/a/messages?limit=1&limit=2", protocol.CodeBadRequest, "2 times"},
		{"GET", "/v1/topics/a/messages?from=%zz", protocol.CodeBadRequest, "badly encoded"},
		{"GET", "/v1/topics/a/messages?a;b", protocol.CodeBadRequest, "badly encoded"},
		{"POST", "/v1/topics/a/messages?id=1", protocol.CodeBadRequest, "takes none"},
		{"GET", "/healthz?x", protocol.CodeBadRequest, "takes none"},
		{"GET", "/readyz?verbose", protocol.CodeBadRequest, "takes none"},
		{"GET", "/v1/ws", protocol.CodeBadRequest, "WebSocket"},
	} {
		t.Run(c.method+" "+c.target, func(t *testing.T) {
			w := e.do(c.method, c.target, "")
			wantProblem(t, w, c.code, c.sentence)
			if w.Header().Get("Location") != "" {
				t.Error("redirected")
			}
			if c.code == protocol.CodeMethodNotAllowed && w.Header().Get("Allow") != c.sentence {
				t.Errorf("Allow: %s", w.Header().Get("Allow"))
			}
		})
	}
}

func TestTopicsInPaths(t *testing.T) {
	e := newTestEdge(t, anyone())
	for escaped, topic := range map[string]string{
		"room.42.chat":    "room.42.chat",
		"a%2Fb":           "a/b",
		"%2F":             "/",
		"%252F":           "%2F", // decoded once
		"%E2%82%AC.a":     "€.a",
		"a+b":             "a+b",
		"a.%7Bx%7D":       "a.{x}",
		"a:b@c,d;e=f&g!~": "a:b@c,d;e=f&g!~",
		"messages":        "messages",
	} {
		if p := e.publishText(escaped, "x"); p.Topic != topic {
			t.Errorf("%s became %q", escaped, p.Topic)
		}
	}
}

func TestMethods(t *testing.T) {
	e := newTestEdge(t, anyone())
	if w := e.do("HEAD", "/healthz", ""); w.Code != http.StatusOK {
		t.Errorf("HEAD: %d", w.Code)
	}
	if w := e.do("OPTIONS", "/v1/topics/a/messages", ""); w.Code != http.StatusNoContent || w.Header().Get("Allow") != "GET, HEAD, OPTIONS, POST" {
		t.Errorf("OPTIONS: %d %v", w.Code, w.Header())
	}
}

// TestRawRequests sends what no client library would, over a connection.
func TestRawRequests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newTestEdge(t, anyone())
		dial, _ := e.serve()
		for _, c := range []struct {
			request string
			status  int
		}{
			{"POST //v1/topics/a/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", 400},
			{"POST /v1/topics//messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", 400},
			{"POST /v1/topics/a/../../messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", 400},
			{"POST http://localhost/v1/topics/a/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", 200},
			{"POST http://evil.com/v1/topics/a/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", 421},
			{"GET /healthz HTTP/1.0\r\n\r\n", 421},
			{"GET /healthz HTTP/1.1\r\n\r\n", 400},
			{"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400},
			{"GET /%zz HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
			{"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
			{"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("a", 64<<10) + "\r\n\r\n", 431},
		} {
			conn := dial()
			go func() { _, _ = io.WriteString(conn, c.request) }()
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Errorf("%.60q: %v", c.request, err)
				continue
			}
			if response.StatusCode != c.status {
				body, _ := io.ReadAll(response.Body)
				t.Errorf("%.60q: %d, want %d: %s", c.request, response.StatusCode, c.status, body)
			}
			_ = conn.Close()
		}
	})
}

func TestPanics(t *testing.T) {
	e := newTestEdge(t, anyone())
	handle := func(f http.HandlerFunc) (w *httptest.ResponseRecorder, panicked any) {
		defer func() { panicked = recover() }()
		w = httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = "localhost"
		e.guard(f).ServeHTTP(w, r)
		return w, nil
	}
	w, panicked := handle(func(http.ResponseWriter, *http.Request) { panic(errors.New("secret")) })
	if panicked != nil {
		t.Errorf("the panic went on: %v", panicked)
	}
	if strings.Contains(w.Body.String(), "secret") {
		t.Error("the client learns of it")
	}
	wantProblem(t, w, protocol.CodeInternal, "its log says more")
	_, panicked = handle(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		panic("late")
	})
	if err, _ := panicked.(error); !errors.Is(err, http.ErrAbortHandler) {
		t.Errorf("after half an answer: %v", panicked)
	}
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"/", "/v1/topics/a/messages", "//", "/%2e%2e", "/a%2Fb", "/%", "/%25", "a", "/a//b", "/é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		parts, err := splitPath(path)
		if err != nil {
			if err.Code != protocol.CodeBadRequest || err.Message == "" {
				t.Fatalf("%q: %v", path, err)
			}
			return
		}
		again := ""
		for _, part := range parts {
			if part == "" || part == "." || part == ".." {
				t.Fatalf("%q has the segment %q", path, part)
			}
			again += "/" + url.PathEscape(part)
		}
		back, err := splitPath(again)
		if len(parts) > 0 && (err != nil || strings.Join(back, "\x00") != strings.Join(parts, "\x00")) {
			t.Fatalf("%q: %q and back %q, %v", path, parts, back, err)
		}
	})
}
