package server

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// backup streams a backup of everything that is stored, as a tar archive. It
// answers 200 before it knows whether all will go well: an archive that is not
// complete has no MANIFEST, and the trailer Tidewire-Error says why.
//
// One is made at a time. A client that takes nothing for the write timeout is
// let go, and so is every one when the broker shuts down.
func (s *Server) backup(w http.ResponseWriter, r *http.Request) {
	if s.options.Backup == nil {
		writeProblem(w, protocol.Errorf(protocol.CodeUnsupported, "this broker has nothing to back up: its streams are in Kafka, or in memory; back up Kafka"))
		return
	}
	if r.Header.Get("Origin") != "" {
		writeProblem(w, protocol.Errorf(protocol.CodeBadOrigin, "a page may not make backups: use `tidewire backup`"))
		return
	}
	ctx, end := context.WithCancelCause(r.Context())
	defer end(nil)
	stop := context.AfterFunc(s.draining.ctx, func() { end(errBackupEnded) })
	defer stop()
	w.Header().Set("Content-Type", "application/x-tar")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Connection", "close") // the deadline of the last write stays with it
	out := &patientWriter{w: w, control: http.NewResponseController(w), timeout: s.limits().WriteTimeout}
	begun := time.Now()
	m, err := s.options.Backup(ctx, out)
	switch {
	case errors.Is(err, storage.ErrBackupRuns):
		s.metrics.backups.WithLabelValues("refused").Inc()
		busy := protocol.Errorf(protocol.CodeOverloaded, "%v", err)
		busy.RetryAfter = time.Minute
		writeProblem(w, busy)
	case err != nil:
		s.metrics.backups.WithLabelValues("failed").Inc()
		s.log.Warn("a backup could not be completed", "error", err)
		if !out.begun {
			writeProblem(w, protocol.Errorf(protocol.CodeInternal, "%v", err))
			return
		}
		w.Header().Set(http.TrailerPrefix+backupError, strings.Join(strings.Fields(err.Error()), " "))
	default:
		s.metrics.backups.WithLabelValues("complete").Inc()
		s.metrics.lastBackup.Set(float64(begun.Unix()))
		s.log.Info("a backup was made", "streams", len(m.Streams), "bytes", m.Bytes(), "seconds", int(time.Since(begun).Seconds()))
	}
}

// backupError is the name of the trailer.
const backupError = "Tidewire-Error"

var errBackupEnded = errors.New("the broker is shutting down: begin again when it is back")

// patientWriter gives each write the same time, and sends it at once.
type patientWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
	begun   bool
}

func (p *patientWriter) Write(b []byte) (int, error) {
	p.begun = true
	if err := p.control.SetWriteDeadline(time.Now().Add(p.timeout)); err != nil {
		return 0, err
	}
	n, err := p.w.Write(b)
	if err == nil {
		err = p.control.Flush()
	}
	return n, err
}
