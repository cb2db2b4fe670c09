//go:build unix

package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"syscall"
	"time"
)

// A Link is the end of a broker that has a supervisor.
type Link struct {
	starts  int
	started time.Time
	reports io.Writer
}

// The files that a supervisor hands on.
const (
	lifelineFile = 3
	reportsFile  = 4
)

// Attach returns the link of a broker whose supervisor has started it that many
// times, and a context that ends when it is asked to end.
func Attach(parent context.Context, starts int) (context.Context, *Link, error) {
	for _, file := range []int{lifelineFile, reportsFile} {
		var s syscall.Stat_t
		if err := syscall.Fstat(file, &s); err != nil || s.Mode&syscall.S_IFMT != syscall.S_IFIFO {
			return nil, nil, errors.New("--supervised is for the supervisor of `tidewire serve --dev` alone: leave it out")
		}
		syscall.CloseOnExec(file)
	}
	ctx, end := context.WithCancel(parent)
	go obey(os.NewFile(lifelineFile, "lifeline"), end, os.Exit)
	return ctx, &Link{starts: starts, started: time.Now(), reports: os.NewFile(reportsFile, "reports")}, nil
}

// obey ends the broker as it is asked to on the lifeline, and at once when that
// ends: then the supervisor is dead, and whoever has killed it must find ports and
// data free. An end at once loses nothing that was answered.
func obey(lifeline io.Reader, end func(), exit func(int)) {
	one := make([]byte, 1)
	for asked := 0; ; asked++ {
		if _, err := lifeline.Read(one); err != nil || asked > 0 {
			exit(1)
			return
		}
		end()
	}
}

// Starts says how often the supervisor has started a broker.
func (l *Link) Starts() int { return l.starts }

// Started says when this one was.
func (l *Link) Started() time.Time { return l.started }

// Supervisor returns the number of its process.
func (l *Link) Supervisor() int { return os.Getppid() }

// Kill ends this process as kill -9 does.
func (l *Link) Kill() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) }

// Report tells the supervisor something. One that is dead needs not hear it.
func (l *Link) Report(r Report) { _ = json.NewEncoder(l.reports).Encode(r) }

// Count reports how large an audience is whenever that has changed, until ctx
// ends.
func (l *Link) Count(ctx context.Context, audience func() int) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for last := -1; ; {
		select {
		case <-tick.C:
			if n := audience(); n != last {
				last = n
				l.Report(Report{Audience: &n})
			}
		case <-ctx.Done():
			return
		}
	}
}
