package server

import "net/http"

// readiness is the answer of /readyz.
type readiness struct {
	Status  string   `json:"status"` // ready, degraded or not_ready; ok for /healthz
	Reasons []string `json:"reasons,omitempty"`
}

// Degraded takes requests, as ready does: sending them elsewhere would mend
// nothing, but an operator has something to do.
const (
	statusNotReady = "not_ready"
	statusDegraded = "degraded"
)

// unready says why requests should go elsewhere; nothing if they need not.
func (s *Server) unready() []string {
	var reasons []string
	if s.draining.Load() {
		reasons = append(reasons, "the broker is shutting down")
	}
	if s.options.Ready != nil {
		if err := s.options.Ready(); err != nil {
			reasons = append(reasons, err.Error())
		}
	}
	return reasons
}

// healthz says that the process lives and answers. It looks at nothing else: a
// restart would help nobody whose disk is full.
func (s *Server) healthz(w http.ResponseWriter, r *http.Request) {
	if _, err := parseQuery(r); err != nil {
		writeProblem(w, err)
		return
	}
	writeHealth(w, readiness{Status: "ok"})
}

// readyz says whether requests should come here; why not is for operators.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	if _, err := parseQuery(r); err != nil {
		writeProblem(w, err)
		return
	}
	body := s.readiness()
	body.Reasons = nil
	writeHealth(w, body)
}

func (s *Server) adminReadyz(w http.ResponseWriter, _ *http.Request) { writeHealth(w, s.readiness()) }

func (s *Server) readiness() readiness {
	if reasons := s.unready(); len(reasons) > 0 {
		return readiness{Status: statusNotReady, Reasons: reasons}
	}
	if s.options.Degraded != nil {
		if reasons := s.options.Degraded(); len(reasons) > 0 {
			return readiness{Status: statusDegraded, Reasons: reasons}
		}
	}
	return readiness{Status: "ready"}
}

func writeHealth(w http.ResponseWriter, body readiness) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if body.Status == statusNotReady {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = writeJSON(w, body)
}
