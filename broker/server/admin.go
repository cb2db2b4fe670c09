package server

import (
	"io"
	"net"
	"net/http"
	"net/http/pprof"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const adminListing = `Tidewire, the listener of operators

/healthz       the process lives
/readyz        whether it takes requests, and why not
/v1/streams    what the streams hold; POST /NAME/purge empties one
/v1/topics     what they hold of each topic: ?filter= &stream= &limit= &after=
/v1/consumers  the consumers; /NAME one of them, /NAME/dead its dead letters;
               PUT, DELETE, POST /NAME/pause and others change them
/v1/messages/  ID: where a message is and what consumers made of it: ?topic=
/metrics       Prometheus
/v1/backup     POST: a backup of everything; see tidewire backup --help
/debug/pprof/  profiles of Go: go tool pprof http://HOST/debug/pprof/heap

docs/openapi.yaml has all of them, with what they take and answer.
`

// Admin returns the handler of the admin listener. It asks nobody who they are:
// whoever reaches the listener is an operator.
func (s *Server) Admin() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.options.Registry, promhttp.HandlerOpts{}))
	i := &inspector{server: s, busy: make(chan struct{}, 1), finding: make(chan struct{}, 1)}
	mux.HandleFunc("GET /v1/streams", i.streams)
	mux.HandleFunc("POST /v1/streams/{name}/purge", i.purge)
	mux.HandleFunc("GET /v1/topics", i.topics)
	mux.HandleFunc("GET /v1/consumers", i.consumers)
	mux.HandleFunc("GET /v1/consumers/{name}", i.consumer)
	mux.HandleFunc("PUT /v1/consumers/{name}", i.putConsumer)
	mux.HandleFunc("DELETE /v1/consumers/{name}", i.deleteConsumer)
	mux.HandleFunc("POST /v1/consumers/{name}/pause", i.pause(true))
	mux.HandleFunc("POST /v1/consumers/{name}/resume", i.pause(false))
	mux.HandleFunc("POST /v1/consumers/{name}/seek", i.seekConsumer)
	mux.HandleFunc("GET /v1/consumers/{name}/dead", i.deadLetters)
	mux.HandleFunc("GET /v1/consumers/{name}/dead/{id}", i.deadLetter)
	mux.HandleFunc("POST /v1/consumers/{name}/dead/redrive", i.redrive)
	mux.HandleFunc("POST /v1/consumers/{name}/dead/purge", i.purgeDead)
	mux.HandleFunc("GET /v1/messages/{id}", i.message)
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.adminReadyz)
	mux.HandleFunc("POST /v1/backup", s.backup)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, adminListing)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &response{ResponseWriter: w, route: "admin"}
		defer s.finish(out, r)
		served(r)
		if refuseGuest(out, r) {
			return
		}
		if onLoopback(r) {
			if err := s.access().checkLocalHost(r); err != nil {
				writeProblem(out, err)
				return
			}
		}
		mux.ServeHTTP(out, r)
	})
}

// onLoopback reports whether the request came in on a loopback address, or on
// one that is not known. Then its sender is a program of this machine, perhaps
// a browser with a page whose name was rebound.
func onLoopback(r *http.Request) bool {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return !ok || addr.IP.IsLoopback()
}
