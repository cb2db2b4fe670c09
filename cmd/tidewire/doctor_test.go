package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/broker/server"
	"github.com/tidewire/tidewire/config"
)

// doctorSays runs the command as a process and returns its findings by name.
func doctorSays(t *testing.T, args ...string) (map[string]finding, int) {
	t.Helper()
	c := program(t, append([]string{"doctor", "--json"}, args...)...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	_ = c.Run()
	var r doctorReport
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || strings.Count(out.String(), "\n") != 1 {
		t.Fatalf("it prints %s, %s: %v", &out, &errs, err)
	}
	findings, names := map[string]finding{}, []string{}
	failed := false
	for _, f := range r.Checks {
		findings[f.Name] = f
		names = append(names, f.Name)
		failed = failed || f.Status == statusFail
		if (f.Advice == "") != (f.Status == statusOK || f.Status == statusSkipped) {
			t.Errorf("%s: %s has the advice %q", f.Name, f.Status, f.Advice)
		}
	}
	if want := []string{"open_files", "disk_space", "disk_sync", "data", "listener", "readiness", "exposure", "version", "clock"}; !slices.Equal(names, want) {
		t.Errorf("the checks are %v, want %v", names, want)
	}
	if status := c.ProcessState.ExitCode(); r.OK == failed || (status == 0) != r.OK || status > 1 {
		t.Errorf("ok is %v with status %d, failed is %v", r.OK, status, failed)
	}
	return findings, c.ProcessState.ExitCode()
}

func wantFinding(t *testing.T, all map[string]finding, name, status, says string) {
	t.Helper()
	if f := all[name]; f.Status != status || !strings.Contains(f.Message+f.Advice, says) {
		t.Errorf("%s: %+v, want %s and %q", name, f, status, says)
	}
}

// TestDoctorOnRunningBroker looks at a healthy broker, at one with a token, and at
// one that is drained of disk.
func TestDoctorOnRunningBroker(t *testing.T) {
	var data string
	s := guardedWithData(t, &data)
	all, status := doctorSays(t, "--data", data, "--server", s.public, "--admin", s.admin, "--token", tokenFor(t, time.Hour))
	if status != 0 {
		t.Errorf("status %d", status)
	}
	wantFinding(t, all, "data", statusOK, "a broker uses")
	wantFinding(t, all, "listener", statusOK, "answers")
	wantFinding(t, all, "readiness", statusOK, "ready")
	wantFinding(t, all, "version", statusWarn, "the broker is tidewire/test")
	wantFinding(t, all, "clock", statusOK, "the broker's differs by")
	wantFinding(t, all, "exposure", statusOK, "this machine alone")

	all, _ = doctorSays(t, "--data", data, "--server", s.public, "--admin", s.admin)
	wantFinding(t, all, "version", statusSkipped, "--token")
	all, _ = doctorSays(t, "--data", data, "--server", s.public, "--admin", s.admin, "--token", tokenFor(t, -time.Hour))
	wantFinding(t, all, "version", statusWarn, "expired")
	all, _ = doctorSays(t, "--data", data, "--server", "ws"+strings.TrimPrefix(s.public, "http")+"/v1/ws,http://elsewhere", "--admin", s.public)
	wantFinding(t, all, "listener", statusOK, "answers")
	wantFinding(t, all, "readiness", statusOK, "ready") // /readyz is there too
}

func guardedWithData(t *testing.T, data *string) *started {
	return start(t, func(c *config.Config) {
		c.Auth.JWT.Secret = secret
		*data = c.Data
	})
}

// TestDoctorOnDeadBroker: the port is free though the data are in use; then
// nobody has them, and they are whole; then they are damaged.
func TestDoctorOnDeadBroker(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + free.Addr().String()
	t.Setenv("TIDEWIRE_LISTEN", free.Addr().String())
	_ = free.Close()
	var data string
	s := guardedWithData(t, &data)
	all, status := doctorSays(t, "--data", data)
	if status != 1 {
		t.Errorf("status %d", status)
	}
	wantFinding(t, all, "listener", statusFail, "a process has the data directory, but nobody answers")
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	all, status = doctorSays(t, "--data", data)
	if status != 0 {
		t.Errorf("status %d", status)
	}
	wantFinding(t, all, "data", statusOK, "whole: 0 messages in 3 segments")
	wantFinding(t, all, "listener", statusSkipped, "`tidewire serve` starts one")
	all, _ = doctorSays(t, "--data", data, "--server", nobody)
	wantFinding(t, all, "listener", statusFail, "nobody answers")

	segments, err := filepath.Glob(filepath.Join(data, "streams", "main", "*"))
	if err != nil || len(segments) == 0 {
		t.Fatal(segments, err)
	}
	for _, name := range segments {
		if err := os.WriteFile(name, bytes.Repeat([]byte("x"), 1<<16), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all, status = doctorSays(t, "--data", data)
	wantFinding(t, all, "data", statusFail, "tidewire check")
	if status != 1 {
		t.Errorf("status %d", status)
	}
	all, _ = doctorSays(t, "--data", t.TempDir())
	wantFinding(t, all, "data", statusSkipped, "is empty")
	all, _ = doctorSays(t, "--data", filepath.Join(data, "FORMAT", "x"))
	wantFinding(t, all, "disk_space", statusFail, "not a directory")
	leftovers, _ := filepath.Glob(filepath.Join(data, ".tidewire-doctor-*"))
	if len(leftovers) > 0 {
		t.Errorf("it leaves %v", leftovers)
	}
}

// TestDoctorOnForeigners: what answers is no broker, or says that it is not ready;
// addresses are open.
func TestDoctorOnForeigners(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/healthz":
			w.WriteHeader(http.StatusOK)
		case "/readyz":
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(`{"status":"not_ready","reasons":["the disk is full"]}`))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer web.Close()
	dir := filepath.Join(t.TempDir(), "data")
	all, _ := doctorSays(t, "--data", dir, "--server", web.URL, "--admin", web.URL)
	wantFinding(t, all, "readiness", statusFail, "the disk is full")
	wantFinding(t, all, "version", statusFail, "proxy")
	all, _ = doctorSays(t, "--data", dir, "--server", web.URL+"/", "--admin", "http://127.0.0.1:1")
	wantFinding(t, all, "readiness", statusWarn, "does not answer")
	all, _ = doctorSays(t, "--data", dir, "--server", "http://192.0.2.1:7070")
	wantFinding(t, all, "exposure", statusWarn, "not encrypted")
	wantFinding(t, all, "readiness", statusSkipped, "--admin")

	t.Setenv("TIDEWIRE_AUTH_JWT_SECRET", secret)
	t.Setenv("TIDEWIRE_LISTEN", "0.0.0.0:1")
	all, _ = doctorSays(t, "--data", dir)
	wantFinding(t, all, "exposure", statusWarn, "can be read on the way")
	t.Setenv("TIDEWIRE_STREAMS_MAIN_RETENTION_BYTES", "unlimited")
	t.Setenv("TIDEWIRE_LIMITS_CONNECTIONS", "999999")
	all, _ = doctorSays(t, "--data", dir)
	wantFinding(t, all, "disk_space", statusWarn, "unlimited")
	wantFinding(t, all, "open_files", statusWarn, "limits.connections")
}

// TestDoctorInMemory: a data directory that a restart of the machine empties.
func TestDoctorInMemory(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "tidewire-test")
	if err != nil {
		t.Skip("there is no /dev/shm")
	}
	defer func() { _ = os.RemoveAll(dir) }()
	all, _ := doctorSays(t, "--data", dir)
	wantFinding(t, all, "disk_sync", statusWarn, "in memory")
}

func TestDoctorJudges(t *testing.T) {
	many := func(d time.Duration, slow ...time.Duration) []time.Duration {
		return append(slices.Repeat([]time.Duration{d}, 100-len(slow)), slow...)
	}
	for _, c := range []struct {
		times  []time.Duration
		status string
		says   string
	}{
		{many(time.Millisecond), statusOK, "a sync takes 1ms"},
		{many(time.Millisecond, time.Hour), statusOK, ""}, // one in a hundred may be anything
		{many(time.Millisecond, time.Second, time.Second, time.Second), statusWarn, "faster disk"},
		{many(50 * time.Millisecond), statusWarn, "faster disk"},
		{many(time.Microsecond), statusWarn, "power cut"},
		{[]time.Duration{time.Second}, statusWarn, "faster disk"},
	} {
		if f := judgeSyncs(c.times, false); f.Status != c.status || !strings.Contains(f.Message+f.Advice, c.says) {
			t.Errorf("%v: %+v, want %s", c.times[0], f, c.status)
		}
	}
	settings := config.Default()
	d := &doctor{settings: settings}
	for _, c := range []struct {
		jumped, ahead time.Duration
		known         bool
		status, says  string
	}{
		{0, 0, false, statusOK, "evenly"},
		{0, 20 * time.Millisecond, true, statusOK, "20ms"},
		{0, -3 * time.Second, true, statusWarn, "differs by -3s"},
		{0, -time.Minute, true, statusWarn, "auth.jwt.leeway (5s)"},
		{-time.Second, 0, true, statusWarn, "was set by -1s"},
	} {
		if f := d.judgeClock(c.jumped, c.ahead, c.known); f.Status != c.status || !strings.Contains(f.Message, c.says) {
			t.Errorf("%+v: %+v", c, f)
		}
	}
	c := startClock()
	if d := c.jumped(time.Now()); d.Abs() > clockJump {
		t.Errorf("the clock jumped by %v", d)
	}
	for address, want := range map[string]string{
		"0.0.0.0:7070": "http://127.0.0.1:7070", ":7070": "http://127.0.0.1:7070", "[::]:7070": "http://[::1]:7070",
		"127.0.0.1:1": "http://127.0.0.1:1", "broker.example:80": "http://broker.example:80",
	} {
		if got := localURL(address); got != want {
			t.Errorf("%s is reached at %s", address, got)
		}
	}
}

// TestDoctorCountsFiles: of every log on disk, the broker's own too.
func TestDoctorCountsFiles(t *testing.T) {
	text := "streams: {others: ["
	for i := range 3 {
		text += fmt.Sprintf("{name: s%d, filters: [s%d]}, {name: m%d, filters: [m%d], storage: memory}, ", i, i, i, i)
	}
	plain, many := &doctor{settings: config.Default()}, &doctor{settings: loaded(t, strings.TrimSuffix(text, ", ")+"]}")}
	for logs, d := range map[int]*doctor{3: plain, 6: many} {
		enough := filesOfProcess + logs*(filesOfLog+mostSegments) + server.FilesFor(d.settings.Limits.Connections)
		least := filesOfProcess + logs*(filesOfLog+leastSegments) + server.FilesFor(leastClients)
		for limit, want := range map[int]string{math.MaxInt32: statusOK, enough: statusOK, enough - 1: statusWarn, least: statusWarn, least - 1: statusFail} {
			if f := d.judgeFiles(limit); f.Status != want || !strings.Contains(f.Message, fmt.Sprintf("%d logs", logs)) {
				t.Errorf("%d logs, %d files: %+v, want %s", logs, limit, f, want)
			}
		}
	}
}

// TestDoctorCountsSpace: of every stream on disk.
func TestDoctorCountsSpace(t *testing.T) {
	const mib, gib = int64(1 << 20), int64(1 << 30)
	others := func(more string) *doctor {
		s := loaded(t, "data: "+t.TempDir()+"\nstreams: {others: [{name: a, filters: [a]"+more+"}]}\n")
		return &doctor{settings: s}
	}
	segments := int64(128+16+controlSegment/int(mib)) * mib // of main, the dead letters, and what consumers have done
	grown := 2*segments + 64*mib
	for _, c := range []struct {
		d            *doctor
		free         int64
		status, says string
	}{
		{others(", storage: memory"), segments + 64*mib - 1, statusFail, "next segments"},
		{others(", storage: memory"), segments + 64*mib, statusWarn, "may grow by"},
		{others(", storage: memory"), 20*gib + grown - 1, statusWarn, "may grow by"},
		{others(", storage: memory"), 20*gib + grown, statusOK, ""},
		{others(", segment_bytes: 1MiB"), 30*gib + grown + 2*mib - 1, statusWarn, "may grow by"},
		{others(", segment_bytes: 1MiB"), 30*gib + grown + 2*mib, statusOK, ""},
		{others(", retention_bytes: unlimited"), 1000 * gib, statusWarn, "streams.others[0].retention_bytes"},
	} {
		if f := c.d.judgeSpace(c.free); f.Status != c.status || !strings.Contains(f.Message+f.Advice, c.says) {
			t.Errorf("%d free: %+v, want %s and %q", c.free, f, c.status, c.says)
		}
	}
}

// TestDoctorForPeople: one line for each check.
func TestDoctorForPeople(t *testing.T) {
	t.Setenv("TIDEWIRE_LISTEN", "127.0.0.1:1")
	status, out, errs := call("doctor", "--data", filepath.Join(t.TempDir(), "none"))
	if status != 0 || errs != "" || strings.Count(out, "\n") != 9 {
		t.Errorf("status %d, %q:\n%s", status, errs, out)
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(out, "\n"), "\n") {
		if !slices.Contains([]string{statusOK, statusWarn, statusSkipped}, strings.Fields(line)[0]) {
			t.Errorf("a line is %q", line)
		}
	}
	if status, _, errs := call("doctor", "x"); status != 1 || !strings.Contains(errs, "takes no arguments") {
		t.Errorf("status %d, %q", status, errs)
	}
}
