package server

import (
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// Process is this process as its supervisor sees it. With it and [Options].Dev
// the demo can show who runs, and kill the broker.
type Process struct {
	Supervisor int // the number of its process
	Starts     int // how often it has started a broker
	Started    time.Time
	Kill       func() // ends this process as kill -9 does
}

type processList struct {
	Supervisor int       `json:"supervisor"`
	Broker     int       `json:"broker"`
	Started    time.Time `json:"started"`
	Starts     int       `json:"starts"`
}

// processes is GET /dev/processes.
func (s *Server) processes(w http.ResponseWriter, r *http.Request) {
	if _, err := parseQuery(r); err != nil {
		writeProblem(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	p := s.options.Process
	_ = writeJSON(w, processList{p.Supervisor, os.Getpid(), p.Started.UTC(), p.Starts})
}

const (
	headerDev  = "Tidewire-Dev"
	killAnswer = "{\"killed\":true}\n"
)

// kill is POST /dev/kill. The answer is written before the end; nothing else is.
func (s *Server) kill(w http.ResponseWriter, r *http.Request) {
	_, err := parseQuery(r)
	if err == nil {
		err = s.access().mayKill(r)
	}
	if err != nil {
		writeProblem(w, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(killAnswer)))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusAccepted)
	_, _ = w.Write([]byte(killAnswer))
	_ = http.NewResponseController(w).Flush()
	s.options.Process.Kill()
}

// mayKill refuses what a page of a stranger could send: without the header its
// browser sends a form without asking the broker first; and allowed_origins and
// the origin null, which any page can have, are for messages.
func (a *access) mayKill(r *http.Request) *protocol.Error {
	if origin := r.Header.Values("Origin"); len(origin) > 0 {
		if !a.originLocal(r) {
			return protocol.Errorf(protocol.CodeBadOrigin, "pages of the origin %.80q may not kill this broker, only pages of this machine may", origin[0])
		}
	} else if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return protocol.Errorf(protocol.CodeBadOrigin, "a page of another site may not kill this broker")
	}
	if r.Header.Get(headerDev) != "1" {
		return protocol.Errorf(protocol.CodeBadRequest, "the header %s is missing: send '%s: 1' if you mean it", headerDev, headerDev)
	}
	return nil
}
