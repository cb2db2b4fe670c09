package server

import (
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// What pages of other origins may send and read. Application headers are
// allowed by their prefix.
var (
	corsRequestHeaders = []string{"accept", "authorization", "cache-control", "content-type", "idempotency-key", "last-event-id"}
	corsRequestPrefix  = "tidewire-"
)

const (
	corsExposedHeaders = "Allow, Retry-After, WWW-Authenticate"
	corsMethods        = "GET, HEAD, POST"
	corsMaxAge         = "600"
	websocketPath      = "/v1/ws"
)

// guard stands before the router: it counts, catches panics, and checks Host
// and Origin. A WebSocket upgrade decides for itself, since it must tell a
// browser in its own way.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &response{ResponseWriter: w}
		defer s.finish(out, r)
		served(r)
		if r.URL.Path == websocketPath && isUpgrade(r) {
			next.ServeHTTP(out, r)
			return
		}
		if r.ContentLength != 0 {
			// Also of a request that is refused: net/http reads what is left of
			// its body, for as long as it takes.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.limits().BodyTimeout))
		}
		if refuseGuest(out, r) {
			return
		}
		if err := s.access().checkHost(r); err != nil {
			writeProblem(out, err)
			return
		}
		if s.cors(out, r) {
			next.ServeHTTP(out, r)
		}
	})
}

// refuseGuest answers a request whose connection has no room, and reports
// whether it did. Who asks whether the process lives is answered all the same:
// many clients are no reason to restart it.
func refuseGuest(w http.ResponseWriter, r *http.Request) bool {
	err := noRoom(r)
	if err == nil {
		return false
	}
	w.Header().Set("Connection", "close")
	if r.URL.Path == "/healthz" || r.URL.Path == "/readyz" {
		return false
	}
	writeProblem(w, err)
	return true
}

// cors tells the browser what a page may do, and reports whether the request
// goes on.
func (s *Server) cors(w http.ResponseWriter, r *http.Request) bool {
	h := w.Header()
	h.Add("Vary", "Origin")
	if len(r.Header.Values("Origin")) == 0 {
		return true
	}
	preflight := r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
	if err := s.access().checkOrigin(r); err != nil {
		if preflight || !isSafe(r.Method) {
			writeProblem(w, err)
			return false
		}
		return true // without the headers below the page cannot read the answer
	}
	h.Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
	if s.access().cookie != "" && r.Header.Get("Origin") != "null" {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	if !preflight {
		h.Set("Access-Control-Expose-Headers", corsExposedHeaders)
		return true
	}
	h.Add("Vary", "Access-Control-Request-Headers")
	h.Set("Access-Control-Allow-Methods", corsMethods)
	if names := corsHeaders(r); names != "" {
		h.Set("Access-Control-Allow-Headers", names)
	}
	h.Set("Access-Control-Max-Age", corsMaxAge)
	w.WriteHeader(http.StatusNoContent)
	return false
}

// corsHeaders returns those of the headers that a page asks for which it may
// send. The prefix cannot be said in CORS, so the names are given back.
func corsHeaders(r *http.Request) string {
	var names []string
	for _, line := range r.Header.Values("Access-Control-Request-Headers") {
		for name := range strings.SplitSeq(line, ",") {
			name = strings.ToLower(strings.TrimSpace(name))
			if slices.Contains(corsRequestHeaders, name) || (strings.HasPrefix(name, corsRequestPrefix) && isToken(name)) {
				names = append(names, name)
			}
		}
	}
	return strings.Join(names, ", ")
}

func isToken(name string) bool {
	return !strings.ContainsFunc(name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.'
	})
}

func isSafe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// finish counts the request and catches what its handler has panicked with. If
// the answer has begun, the connection is cut, so that nobody takes half an
// answer for a whole one.
func (s *Server) finish(out *response, r *http.Request) {
	p := recover()
	if p == http.ErrAbortHandler { //nolint:errorlint // a sentinel that net/http compares like this
		panic(p)
	}
	if p != nil {
		s.log.Error("panic while a request was handled", "method", r.Method, "route", out.route, "panic", p, "stack", string(debug.Stack()))
		if out.status == 0 {
			writeProblem(out, protocol.Errorf(protocol.CodeInternal, "something went wrong inside the broker; its log says more"))
		} else {
			defer panic(http.ErrAbortHandler)
		}
	}
	s.metrics.request(out)
	if out.refusal != nil {
		s.metrics.limits.Refused(out.refusal)
	}
}

// response notes what is answered.
type response struct {
	http.ResponseWriter
	route  string // pattern, empty if there is none
	status int    // 0 before the answer has begun

	refusal *protocol.Error // what it is, if it is one
}

// Unwrap lets [http.ResponseController] find the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader begins the answer.
func (w *response) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write writes a part of the body.
func (w *response) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}
