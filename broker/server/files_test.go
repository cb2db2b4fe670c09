package server

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tidewire/tidewire/protocol"
)

const module = "export const connect = 1;\n"

// withFiles returns an edge with a module for everybody, a page, and a file at a
// path of the API.
func withFiles(t *testing.T) *testEdge {
	o := anyone()
	o.Access.AllowedOrigins = []string{"https://app.example.com"}
	o.Files = []File{
		{Path: "/sdk/client.js", Type: "text/javascript; charset=utf-8", Body: []byte(module), Anywhere: true},
		{Path: "/", Type: "text/html; charset=utf-8", Body: []byte("<!doctype html>"), Policy: "default-src 'self'"},
		{Path: "/healthz", Body: []byte("not this")},
	}
	return newTestEdge(t, o)
}

// file asks for one. Files are not a part of the API: the document that do
// compares with does not have them.
func (e *testEdge) file(method, target string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.Host = "localhost:7070"
	setHeaders(r, headers)
	w := httptest.NewRecorder()
	e.handler.ServeHTTP(w, r)
	return w
}

func TestFiles(t *testing.T) {
	e := withFiles(t)
	w := e.file("GET", "/sdk/client.js")
	h := w.Header()
	if w.Code != http.StatusOK || w.Body.String() != module || h.Get("Content-Type") != "text/javascript; charset=utf-8" ||
		h.Get("Cache-Control") != "no-cache" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Content-Security-Policy") != "" {
		t.Errorf("%d %v %s", w.Code, h, w.Body)
	}
	tag := h.Get("ETag")
	if w = e.file("GET", "/sdk/client.js?v=2", "If-None-Match: "+tag); w.Code != http.StatusNotModified || w.Body.Len() != 0 {
		t.Errorf("with the tag %s: %d %s", tag, w.Code, w.Body)
	}
	if w = e.file("GET", "/sdk/client.js", `If-None-Match: "other"`); w.Code != http.StatusOK {
		t.Errorf("with another tag: %d", w.Code)
	}
	if w = e.file("HEAD", "/sdk/client.js"); w.Code != http.StatusOK || w.Body.Len() != 0 || w.Header().Get("Content-Length") != "26" {
		t.Errorf("HEAD: %d %v", w.Code, w.Header())
	}
	w = e.file("GET", "/")
	if h = w.Header(); w.Code != http.StatusOK || h.Get("Content-Security-Policy") != "default-src 'self'" || h.Get("Referrer-Policy") != "no-referrer" || h.Get("ETag") == tag {
		t.Errorf("the page: %d %v", w.Code, h)
	}

	wantProblem(t, e.file("POST", "/sdk/client.js"), protocol.CodeMethodNotAllowed, "GET, HEAD, OPTIONS")
	wantProblem(t, e.file("GET", "/sdk/other.js"), protocol.CodeNotFound, "nothing at")
	wantProblem(t, e.file("GET", "/sdk"), protocol.CodeNotFound, "nothing at")
	wantProblem(t, e.file("GET", "/sdk/client.js", "Host: evil.com"), protocol.CodeBadHost, "evil.com")
	if w = e.file("GET", "/healthz"); strings.Contains(w.Body.String(), "not this") {
		t.Error("a file hides a path of the API")
	}
}

// A module is for pages of every origin, a page for itself alone.
func TestFilesOfOtherOrigins(t *testing.T) {
	e := withFiles(t)
	for _, origin := range []string{"", "null", "https://evil.com", "https://app.example.com"} {
		var headers []string
		if origin != "" {
			headers = []string{"Origin: " + origin}
		}
		w := e.file("GET", "/sdk/client.js", headers...)
		if h := w.Header(); w.Code != http.StatusOK || h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Cross-Origin-Resource-Policy") != "cross-origin" {
			t.Errorf("the module for %q: %d %v", origin, w.Code, h)
		}
		w = e.file("GET", "/", headers...)
		allowed := map[bool]string{true: origin}[origin == "https://app.example.com"]
		if h := w.Header(); h.Get("Access-Control-Allow-Origin") != allowed || h.Get("Cross-Origin-Resource-Policy") != "same-origin" {
			t.Errorf("the page for %q: %v", origin, h)
		}
	}
}

func TestFilesWithoutCredentials(t *testing.T) {
	o := Options{Access: guarded(), Files: []File{{Path: "/sdk/client.js", Anywhere: true}}}
	w := newTestEdge(t, o).file("GET", "/sdk/client.js", "Origin: https://app.example.com")
	if h := w.Header(); w.Code != http.StatusOK || h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("%d %v", w.Code, h)
	}
}

// TestMadeFiles: what takes a while to make is made when it is wanted, and once.
func TestMadeFiles(t *testing.T) {
	o := anyone()
	made, failed := 0, 0
	o.Files = []File{
		{Path: "/sdk/client.tgz", Type: "application/gzip", Anywhere: true, Make: func() ([]byte, error) {
			made++
			return []byte("packed"), nil
		}},
		{Path: "/sdk/broken", Make: func() ([]byte, error) {
			failed++
			return nil, errors.New("no room")
		}},
	}
	e := newTestEdge(t, o)
	if made != 0 {
		t.Error("it was made before anybody asked")
	}
	var tags []string
	for range 2 {
		w := e.file("GET", "/sdk/client.tgz")
		if w.Code != http.StatusOK || w.Body.String() != "packed" {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		tags = append(tags, w.Header().Get("ETag"))
	}
	if made != 1 || tags[0] == "" || tags[0] != tags[1] {
		t.Errorf("made %d times, tags %q", made, tags)
	}
	w := e.file("GET", "/sdk/broken")
	if w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "no room") || w.Header().Get("ETag") != "" || failed != 1 {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
}
