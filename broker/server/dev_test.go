package server

import (
	"encoding/json"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// withProcess returns an edge for development, and counts how often it is killed.
func withProcess(t *testing.T) (e *testEdge, killed *int) {
	o := anyone()
	o.Dev, o.Access.AllowedOrigins = true, []string{"https://app.example.com", "null"}
	killed = new(int)
	o.Process = &Process{Supervisor: 41, Starts: 3, Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Kill: func() { *killed++ }}
	return newTestEdge(t, o), killed
}

func TestProcesses(t *testing.T) {
	e, _ := withProcess(t)
	w := e.file("GET", "/dev/processes")
	var got map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got["supervisor"] != 41.0 || got["broker"] != float64(os.Getpid()) || got["starts"] != 3.0 || got["started"] != "2026-01-02T03:04:05Z" || len(got) != 4 || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%v %v", got, w.Header())
	}
	wantProblem(t, e.file("GET", "/dev/processes?x=1"), protocol.CodeBadRequest, "takes none")
}

// Only a page of this machine that means it kills the broker, or a program.
func TestKill(t *testing.T) {
	e, killed := withProcess(t)
	for _, headers := range [][]string{
		{"Tidewire-Dev: 1"}, // curl
		{"Tidewire-Dev: 1", "Origin: http://localhost:7070", "Sec-Fetch-Site: same-origin"},
		{"Tidewire-Dev: 1", "Origin: http://127.0.0.1:5173", "Sec-Fetch-Site: cross-site"},
		{"Tidewire-Dev: 1", "Sec-Fetch-Site: same-origin"},
	} {
		*killed = 0
		if w := e.file("POST", "/dev/kill", headers...); w.Code != http.StatusAccepted || *killed != 1 || w.Body.String() != killAnswer {
			t.Errorf("%q: %d %s, killed %d times", headers, w.Code, w.Body, *killed)
		}
	}
	*killed = 0
	for _, c := range []struct {
		headers []string
		code    protocol.Code
	}{
		{nil, protocol.CodeBadRequest},
		{[]string{"Origin: http://localhost:7070"}, protocol.CodeBadRequest}, // a form
		{[]string{"Tidewire-Dev: 0"}, protocol.CodeBadRequest},
		{[]string{"Tidewire-Dev: 1", "Origin: https://evil.com"}, protocol.CodeBadOrigin},
		{[]string{"Tidewire-Dev: 1", "Origin: null"}, protocol.CodeBadOrigin},                    // may publish
		{[]string{"Tidewire-Dev: 1", "Origin: https://app.example.com"}, protocol.CodeBadOrigin}, // may publish
		{[]string{"Tidewire-Dev: 1", "Sec-Fetch-Site: cross-site"}, protocol.CodeBadOrigin},
		{[]string{"Tidewire-Dev: 1", "Sec-Fetch-Site: none"}, protocol.CodeBadOrigin},
		{[]string{"Tidewire-Dev: 1", "Origin: http://evil.com", "Host: evil.com"}, protocol.CodeBadHost},
		{[]string{"Tidewire-Dev: 1", "Origin: http://localhost:7070", "Origin: http://localhost:7070"}, protocol.CodeBadOrigin},
	} {
		wantProblem(t, e.file("POST", "/dev/kill", c.headers...), c.code, "")
	}
	wantProblem(t, e.file("GET", "/dev/kill", "Tidewire-Dev: 1"), protocol.CodeMethodNotAllowed, "")
	wantProblem(t, e.file("POST", "/dev/kill?x=1", "Tidewire-Dev: 1"), protocol.CodeBadRequest, "")
	if *killed != 0 {
		t.Errorf("refused, and killed %d times", *killed)
	}
}

// Without --dev, or without a supervisor, there is nothing to kill.
func TestNoKill(t *testing.T) {
	with := anyone()
	with.Process = &Process{Kill: func() { t.Error("killed") }}
	without := anyone()
	without.Dev = true
	for _, o := range []Options{with, without} {
		e := newTestEdge(t, o)
		wantProblem(t, e.file("POST", "/dev/kill", "Tidewire-Dev: 1"), protocol.CodeNotFound, "nothing at")
		wantProblem(t, e.file("GET", "/dev/processes"), protocol.CodeNotFound, "nothing at")
	}
}
