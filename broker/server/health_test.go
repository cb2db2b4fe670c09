package server

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

func gaugeOf(t testing.TB, m prometheus.Metric) float64 {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	if out.Gauge != nil {
		return out.Gauge.GetValue()
	}
	return out.Counter.GetValue()
}

func (e *testEdge) admin(method, target string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.Host = "localhost:7071"
	w := httptest.NewRecorder()
	e.Admin().ServeHTTP(w, r)
	noteExchange(e.t, &exchange{adminListener, r, nil, w.Code, w.Header(), w.Body.Bytes()})
	return w
}

func TestHealth(t *testing.T) {
	var broken error
	var damaged []string
	o := anyone()
	o.Degraded = func() []string { return damaged }
	o.Ready = func() error { return broken }
	e := newTestEdge(t, o)
	check := func(name string, status int, public, admin string) {
		t.Helper()
		w := e.do("GET", "/readyz", "")
		if w.Code != status || strings.TrimSpace(w.Body.String()) != public || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		if w = e.admin("GET", "/readyz"); w.Code != status || strings.TrimSpace(w.Body.String()) != admin {
			t.Errorf("%s, to operators: %d %s", name, w.Code, w.Body)
		}
		for _, w := range []*httptest.ResponseRecorder{e.do("GET", "/healthz", ""), e.admin("GET", "/healthz")} {
			if w.Code != http.StatusOK || strings.TrimSpace(w.Body.String()) != `{"status":"ok"}` {
				t.Errorf("%s: healthz: %d %s", name, w.Code, w.Body)
			}
		}
	}
	check("ready", 200, `{"status":"ready"}`, `{"status":"ready"}`)
	damaged = []string{"a file is damaged"}
	check("damaged", 200, `{"status":"degraded"}`, `{"status":"degraded","reasons":["a file is damaged"]}`)
	broken = errors.New("the disk is full")
	check("broken", 503, `{"status":"not_ready"}`, `{"status":"not_ready","reasons":["the disk is full"]}`)
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	e.Drain(gone, 0)
	check("draining", 503, `{"status":"not_ready"}`, `{"status":"not_ready","reasons":["the broker is shutting down","the disk is full"]}`)
}

func TestHealthNeedsNoToken(t *testing.T) {
	e := newTestEdge(t, Options{Access: guarded()})
	if w := e.do("GET", "/readyz", ""); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestAdmin(t *testing.T) {
	e := newTestEdge(t, anyone())
	e.publishText("a", "x")
	e.do("GET", "/nothing/"+strings.Repeat("x", 50), "")
	e.do("POST", "/v1/topics//messages", "")
	for target, want := range map[string]string{
		"/":                      "/metrics",
		"/metrics":               `tidewire_http_requests_total{route="/v1/topics/{topic}/messages",status="200"} 1`,
		"/metrics?":              `tidewire_http_requests_total{route="none",status="404"} 1`,
		"/metrics?name=x":        "",
		"/debug/pprof/":          "goroutine",
		"/debug/pprof/goroutine": "",
	} {
		w := e.admin("GET", target)
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %.300s", target, w.Code, w.Body)
		}
	}
	metrics := e.admin("GET", "/metrics").Body.String()
	for _, want := range []string{"go_goroutines", "process_resident_memory_bytes", "tidewire_websocket_connections 0", "tidewire_event_streams 0"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s", want)
		}
	}
	for _, c := range []struct {
		method, target string
		want           int
	}{{"GET", "/v1/events", 404}, {"POST", "/metrics", 405}, {"POST", "/v1/topics/a/messages", 404}} {
		if w := e.admin(c.method, c.target); w.Code != c.want {
			t.Errorf("%s %s: %d", c.method, c.target, w.Code)
		}
	}
}

// TestPublicHasNoAdmin: what is for operators is not on the public listener.
func TestPublicHasNoAdmin(t *testing.T) {
	e := newTestEdge(t, anyone())
	for _, target := range []string{"/metrics", "/debug/pprof/cmdline"} {
		if w := e.do("GET", target, ""); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", target, w.Code)
		}
	}
}
