//go:build !linux && !darwin

package main

import "log/slog"

// warnOfFileLimit does nothing where there is no such limit, or no common way to
// ask for it.
func warnOfFileLimit(*slog.Logger, int) {}
