package main

import (
	"fmt"

	"github.com/tidewire/tidewire/broker/server"
)

// Files that a broker needs besides connections and sealed segments.
const (
	filesOfProcess = 24 // standard ones, listeners, the poller, secrets being read
	filesOfLog     = 8  // lock, meta, the segment that is written, the next one, one being sealed
)

// Sealed segments that are kept open; each log needs some, or its readers would
// open and close files all the time.
const (
	leastSegments   = 8
	mostSegments    = 128
	leastClients    = 16
	shareOfSegments = 8 // they get an eighth of what is free
)

// fileBudget says what the open files of a process are for. Connections and
// files share one limit of the system: if connections could take all, the log
// could not be read.
type fileBudget struct {
	connections int // at most as many as were wanted
	segments    int // sealed ones that the log keeps open
}

// budgetFiles divides the files that the process may open. wanted is how many
// connections there should be.
func budgetFiles(files, wanted int) (fileBudget, error) {
	fixed := filesOfProcess + filesOfLog + server.FilesFor(0)
	if least := fixed + leastSegments + leastClients; files < least {
		return fileBudget{}, fmt.Errorf("the system allows this process %d open files, but a broker needs at least %d: raise the limit (ulimit -n, or LimitNOFILE of systemd)", files, least)
	}
	segments := min(max((files-fixed)/shareOfSegments, leastSegments), mostSegments)
	return fileBudget{connections: min(wanted, files-fixed-segments), segments: segments}, nil
}
