//go:build linux || darwin

package main

import (
	"log/slog"
	"syscall"
)

// warnOfFileLimit says so if the system allows fewer connections than the
// configuration. Go raises the soft limit to the hard one before main begins.
func warnOfFileLimit(log *slog.Logger, connections int) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return
	}
	if need := uint64(connections) + spareFiles; limit.Cur < need {
		log.Warn("the system allows fewer open files than limits.connections needs: raise its limit (ulimit -n, or LimitNOFILE of systemd) or lower the setting",
			"allowed", limit.Cur, "needed", need)
	}
}
