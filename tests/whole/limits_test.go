//go:build unix

package whole_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// withFiles makes the broker run with a limit of open files.
func (b *broker) withFiles(n int) {
	b.t.Helper()
	script := filepath.Join(b.t.TempDir(), "few-files")
	text := fmt.Sprintf("#!/bin/sh\nulimit -n %d\nexec %s \"$@\"\n", n, binary)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		b.t.Fatal(err)
	}
	b.program = script
}

// TestFewFiles: where the system allows few open files, the broker says that it
// takes fewer connections, and a crowd of them keeps nobody from publishing and
// from reading segments that are closed.
func TestFewFiles(t *testing.T) {
	b := newBroker(t)
	b.withFiles(240)
	b.env = append(b.env, "TIDEWIRE_STREAMS_MAIN_SEGMENT_BYTES=1MiB", "TIDEWIRE_STREAMS_MAIN_WINDOW_BYTES=1MiB")
	b.start()
	const messages = 100
	client := &http.Client{Timeout: 20 * time.Second}
	for i := range messages {
		resp, err := client.Post("http://"+b.listen+"/v1/topics/t/messages", "text/plain", strings.NewReader(fmt.Sprint(i)+strings.Repeat("x", 200_000)))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status)
		}
	}
	match := regexp.MustCompile(`connections=(\d+)`).FindStringSubmatch(b.stderr.String())
	if match == nil {
		t.Fatalf("it does not say that it takes fewer connections: %s", b.stderr)
	}
	allowed, _ := strconv.Atoi(match[1])
	for range 300 { // each of them holds a file of the broker, if it is let in
		conn, err := net.Dial("tcp", b.listen)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	within(t, 10*time.Second, "connections are at their bound", func() bool {
		return strings.Contains(body(t, "http://"+b.admin+"/metrics"), fmt.Sprintf("\ntidewire_limits_total{limit=\"connections\"} %d\n", 300+1-allowed))
	})
	seen, next := 0, "earliest"
	for seen < messages {
		resp, err := client.Get("http://" + b.listen + "/v1/topics/t/messages?limit=20&from=" + next)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s %s %v", resp.Status, text, err)
		}
		seen += strings.Count(string(text), `"topic"`)
		_, rest, _ := strings.Cut(string(text), `"next":"`)
		next, _, _ = strings.Cut(rest, `"`)
	}
	if strings.Contains(b.stderr.String(), "too many open files") {
		t.Error("it ran out of files")
	}
}

// TestTooFewFiles: below a bound the broker does not start, and says why.
func TestTooFewFiles(t *testing.T) {
	b := newBroker(t)
	b.withFiles(64)
	refused(t, b, b.command(t.Context()), "64 open files", "ulimit -n")
}

func body(t testing.TB, url string) string {
	t.Helper()
	resp, err := probe.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
