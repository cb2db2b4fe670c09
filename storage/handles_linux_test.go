package storage

import (
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// scarce leaves the process as many files to open as spare says, until the test
// ends.
func scarce(t *testing.T, spare int) {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("this test counts open files in /proc")
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	highest := len(open) - 1 + spare // without the one that read the directory
	after := before
	after.Cur = uint64(highest)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &after); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before) })
}

// TestReadsWithoutFiles reads many sealed segments, by several readers, while
// the process may open two files more.
func TestReadsWithoutFiles(t *testing.T) {
	l := openTest(t, t.TempDir(), LogOptions{SegmentBytes: 1, WindowBytes: 1})
	const messages = 40
	for range messages {
		l.publish(message("a", "", strings.Repeat("x", 50_000)))
		l.settle()
	}
	if n := len(l.state.segs); n < 10 {
		t.Fatalf("only %d segments", n)
	}
	l.handles.closeAll()
	scarce(t, 2)
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for range 3 {
				if got := len(l.readAll("a", 0, 0)); got != messages {
					t.Errorf("read %d messages, want %d", got, messages)
				}
			}
		})
	}
	readers.Wait()
}

// closeAll closes all handles that nobody uses.
func (h *handles) closeAll() {
	for h.shed() {
	}
}

// TestHandlesAreBounded: no more sealed segments are open than the log may have.
func TestHandlesAreBounded(t *testing.T) {
	l := openTest(t, t.TempDir(), LogOptions{SegmentBytes: 1, WindowBytes: 1, OpenSegments: 3})
	for range 20 {
		l.publish(message("a", "", strings.Repeat("x", 50_000)))
		l.settle()
	}
	l.readAll("a", 0, 0)
	if n := len(l.handles.open); n == 0 || n > 3 {
		t.Errorf("%d handles are open, at most 3 may be", n)
	}
}
