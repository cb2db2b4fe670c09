package whole_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOperator is the walk through docs/operating.md with the real program: two
// streams by the configuration of deploy/, metrics, a full disk, a backup that is
// restored into another directory, and the next version on that. In the end all
// that was answered is there, once and in order.
func TestOperator(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program twice")
	}
	w := newOperator(t)
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"install", w.install},
		{"configure", w.configure},
		{"start", w.start},
		{"publish and subscribe", w.publishAndSubscribe},
		{"metrics", w.lookAtMetrics},
		{"disk full", w.fillDisk},
		{"disk free", w.freeDisk},
		{"back up", w.backUp},
		{"stop", w.stop},
		{"restore", w.restore},
		{"upgrade", w.upgrade},
		{"everything is there", w.audit},
	} {
		t.Logf("%s", step.name)
		if step.do(); t.Failed() {
			t.Fatalf("the step %q failed", step.name)
		}
	}
}

// operator is somebody who runs a broker, with what clients saw of it.
type operator struct {
	t      *testing.T
	broker *broker
	disk   string // small
	old    string // the program, and its next version
	next   string
	key    string
	backup string // a directory

	published int                 // numbers the messages
	answered  map[string][]string // ids by stream, in the order of the answers
	subs      map[string]*output  // lines of JSON by stream
}

// operated are the streams of the configuration, and a topic of each.
var operated = map[string]string{"main": "room.1", "orders": "orders.eu"}

func newOperator(t *testing.T) *operator {
	w := &operator{
		t: t, broker: newBroker(t), disk: t.TempDir(), key: "twk_0123456789-0123456789-0123456789",
		answered: map[string][]string{}, subs: map[string]*output{},
	}
	err := unix.Mount("tmpfs", w.disk, "tmpfs", 0, "size=96m") // 64 MiB of it is the reserve
	if errors.Is(err, syscall.EPERM) {
		t.Skip("mounting a small disk needs root")
	}
	w.must(err)
	t.Cleanup(func() {
		if w.broker.cmd != nil {
			w.broker.kill()
		}
		if err := unix.Unmount(w.disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	w.broker.dir = filepath.Join(w.disk, "data")
	return w
}

func (w *operator) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *operator) install() {
	dir := w.t.TempDir()
	for _, version := range []string{"v0.1.0", "v0.2.0"} {
		args := []string{"build", "-ldflags", "-X main.version=" + version, "-o", filepath.Join(dir, version)}
		if raceEnabled {
			args = append(args, "-race")
		}
		if out, err := exec.Command("go", append(args, "github.com/tidewire/tidewire/cmd/tidewire")...).CombinedOutput(); err != nil {
			w.t.Fatalf("build: %v\n%s", err, out)
		}
		if out := w.tidewire(filepath.Join(dir, version), "version"); !strings.Contains(out, version) {
			w.t.Errorf("%s says that it is %s", version, out)
		}
	}
	w.old, w.next = filepath.Join(dir, "v0.1.0"), filepath.Join(dir, "v0.2.0")
	w.broker.program = w.old
}

// tidewire runs a command that is to succeed, and returns what it prints.
func (w *operator) tidewire(program string, args ...string) string {
	w.t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(cleanEnv(), "TIDEWIRE_TOKEN="+w.key)
	r := runToEnd(w.t, cmd)
	if r.code != 0 {
		w.t.Fatalf("tidewire %s: status %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// configure fills in deploy/tidewire.yaml, with small files for a small disk.
func (w *operator) configure() {
	text, err := os.ReadFile("../../deploy/tidewire.yaml")
	w.must(err)
	dir := w.t.TempDir()
	config, secret := filepath.Join(dir, "tidewire.yaml"), filepath.Join(dir, "jwt.secret")
	w.must(os.WriteFile(secret, []byte(strings.Repeat("s", 44)+"\n"), 0o600))
	w.must(os.WriteFile(config, text, 0o600))
	check := runToEnd(w.t, exec.Command(w.old, "config", "check", "--config", config))
	if check.code == 0 {
		w.t.Error("the configuration is taken without a key of one's own")
	}
	sum := sha256.Sum256([]byte(w.key))
	filled := string(text)
	for old, with := range map[string]string{
		"PUT-THE-HASH-HERE":        hex.EncodeToString(sum[:]),
		"/etc/tidewire/jwt.secret": secret,
		"retention_bytes: 10GiB":   "retention_bytes: 10GiB\n    segment_bytes: 1MiB\n    window_bytes: 1MiB",
		"retention_bytes: 50GiB":   "retention_bytes: 50GiB\n      segment_bytes: 1MiB\n      window_bytes: 1MiB",
	} {
		if !strings.Contains(filled, old) {
			w.t.Errorf("deploy/tidewire.yaml lacks %s", old)
		}
		filled = strings.ReplaceAll(filled, old, with)
	}
	w.must(os.WriteFile(config, []byte(filled), 0o600))
	w.tidewire(w.old, "config", "check", "--config", config)
	w.broker.flags = []string{"--config", config}
}

func (w *operator) start() {
	w.broker.start()
	streams := w.tidewire(w.old, "streams", "--server", "http://"+w.broker.admin)
	for name := range operated {
		if !strings.Contains(streams, name+" ") {
			w.t.Errorf("no stream %s in\n%s", name, streams)
		}
	}
}

// try publishes a message once, and returns the code of a refusal.
func (w *operator) try(stream, id string, headers ...string) (code string) {
	w.t.Helper()
	body := strings.NewReader(strings.Repeat("payload ", 4000))
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, "http://"+w.broker.listen+"/v1/topics/"+operated[stream]+"/messages", body)
	w.must(err)
	req.Header.Set("Authorization", "Bearer "+w.key)
	req.Header.Set("Idempotency-Key", id)
	for _, h := range headers {
		req.Header.Set(h, "true")
	}
	resp, err := http.DefaultClient.Do(req)
	w.must(err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	w.must(err)
	var answer struct {
		Code      string
		Duplicate bool
	}
	w.must(json.Unmarshal(text, &answer))
	if resp.StatusCode != http.StatusOK && answer.Code == "" || answer.Duplicate {
		w.t.Errorf("%s is answered %d %s", id, resp.StatusCode, text)
	}
	return answer.Code
}

// publish publishes so many messages to each stream, until it is refused.
func (w *operator) publish(n int) (refused string) {
	w.t.Helper()
	for range n {
		for stream := range operated {
			w.published++
			id := fmt.Sprintf("%s-%d", stream, w.published)
			if code := w.try(stream, id); code != "" {
				return code
			}
			w.answered[stream] = append(w.answered[stream], id)
		}
	}
	return ""
}

func (w *operator) publishAndSubscribe() {
	for stream := range operated {
		out := &output{}
		cmd := exec.CommandContext(w.t.Context(), w.old, "sub", ">", "--stream", stream, "--from", "earliest", "--json", "--server", "http://"+w.broker.listen)
		cmd.Env = append(cleanEnv(), "TIDEWIRE_TOKEN="+w.key)
		cmd.Stdout = out
		w.must(cmd.Start())
		w.t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		w.subs[stream] = out
	}
	within(w.t, 30*time.Second, "both subscribers are there", func() bool {
		return w.broker.scrape(w.t)["tidewire_subscriptions"] == 2
	})
	if code := w.publish(20); code != "" {
		w.t.Fatalf("refused: %s", code)
	}
	w.arrived()
}

// received returns the ids that a subscriber has printed.
func (w *operator) received(stream string) []string {
	w.t.Helper()
	var ids []string
	text := w.subs[stream].String()
	for line := range strings.Lines(text[:strings.LastIndexByte(text, '\n')+1]) {
		var m struct{ ID string }
		w.must(json.Unmarshal([]byte(line), &m))
		ids = append(ids, m.ID)
	}
	return ids
}

// arrived waits until the subscribers have what was answered, and finds nothing
// else there.
func (w *operator) arrived() {
	w.t.Helper()
	for stream, want := range w.answered {
		within(w.t, 30*time.Second, "the subscriber of "+stream+" has everything", func() bool {
			return len(w.received(stream)) >= len(want)
		})
		if got := w.received(stream); !slices.Equal(got, want) {
			w.t.Errorf("the subscriber of %s got %q, want %q", stream, got, want)
		}
	}
}

// lookAtMetrics: what docs/metrics.md tells to watch moves with what happens.
func (w *operator) lookAtMetrics() {
	before := w.broker.scrape(w.t)
	if code := w.publish(50); code != "" {
		w.t.Fatalf("refused: %s", code)
	}
	w.arrived()
	moves := []string{
		"tidewire_published_total", "tidewire_delivered_total", "tidewire_delivery_seconds_count", "tidewire_sent_bytes_total",
		"tidewire_http_requests_total", "go_gc_duration_seconds_count", "process_cpu_seconds_total",
	}
	for stream := range operated {
		for _, name := range []string{"commits_total", "commit_seconds_count", "sync_seconds_count", "batch_entries_count", "stored_messages_total", "stored_bytes_total", "sealed_segments_total", "segment_bytes", "dedupe_rows", "dedupe_window_seconds", "head_offset"} {
			moves = append(moves, fmt.Sprintf("tidewire_storage_%s{stream=%q}", name, stream))
		}
	}
	var after metrics
	for _, name := range moves { // some move in the keeper's next round
		within(w.t, 20*time.Second, name+" moves", func() bool {
			after = w.broker.scrape(w.t)
			return after[name] > before[name]
		})
	}
	now := float64(time.Now().Unix())
	for stream := range operated {
		label := fmt.Sprintf("{stream=%q}", stream)
		if age := now - after["tidewire_storage_oldest_message_timestamp_seconds"+label]; age < -2 || age > 600 {
			w.t.Errorf("the oldest message of %s is %v s old", stream, age)
		}
		if after["tidewire_storage_earliest_offset"+label] != 1 || after["tidewire_storage_window_bytes"+label] == 0 {
			w.t.Errorf("%s: the edge is %v, the window %v", stream, after["tidewire_storage_earliest_offset"+label], after["tidewire_storage_window_bytes"+label])
		}
	}
	if after["tidewire_websocket_connections"] != 2 || after["tidewire_sessions"] != 2 {
		w.t.Errorf("%v connections, %v sessions", after["tidewire_websocket_connections"], after["tidewire_sessions"])
	}
}

func (w *operator) ballast() string { return filepath.Join(w.disk, "ballast") }

// fillDisk: publishes are refused, readiness says why, and subscribers go on.
func (w *operator) fillDisk() {
	f, err := os.Create(w.ballast())
	w.must(err)
	for err == nil {
		_, err = f.Write(make([]byte, 64<<10))
	}
	w.must(f.Close())
	if !errors.Is(err, syscall.ENOSPC) {
		w.t.Fatal(err)
	}
	if code := w.publish(1000); code != "storage_full" {
		w.t.Fatalf("the refusal is %q", code)
	}
	within(w.t, 20*time.Second, "readiness says why", func() bool { return status("http://"+w.broker.admin+"/readyz") == http.StatusServiceUnavailable })
	if status("http://"+w.broker.admin+"/healthz") != http.StatusOK {
		w.t.Error("it is not healthy: a watchdog would end it")
	}
	if w.broker.scrape(w.t)["tidewire_storage_storage_full_total"] == 0 {
		w.t.Error("tidewire_storage_storage_full_total has not moved")
	}
	w.arrived()
	for stream := range operated { // live, without the disk
		const id = "live-while-full"
		if code := w.try(stream, id, "Tidewire-Ephemeral"); code != "" {
			w.t.Errorf("an ephemeral message is refused: %s", code)
		}
		w.answered[stream] = append(w.answered[stream], id)
	}
	w.arrived()
	w.history()
}

// history reads everything from the beginning, as somebody who is new.
func (w *operator) history() {
	w.t.Helper()
	for stream, want := range w.answered {
		want = slices.DeleteFunc(slices.Clone(want), func(id string) bool { return id == "live-while-full" })
		out := w.tidewire(w.broker.program, "sub", ">", "--stream", stream, "--from", "earliest", "--count", fmt.Sprint(len(want)), "--json", "--server", "http://"+w.broker.listen)
		var got []string
		for line := range strings.Lines(out) {
			var m struct{ ID string }
			w.must(json.Unmarshal([]byte(line), &m))
			got = append(got, m.ID)
		}
		if !slices.Equal(got, want) {
			w.t.Errorf("the history of %s is %q, want %q", stream, got, want)
		}
	}
}

// freeDisk: it goes on by itself.
func (w *operator) freeDisk() {
	w.must(os.Remove(w.ballast()))
	within(w.t, 60*time.Second, "publishing goes on", func() bool { return w.publish(1) == "" })
	within(w.t, 20*time.Second, "it is ready", func() bool { return status("http://"+w.broker.admin+"/readyz") == http.StatusOK })
	w.arrived()
}

// backUp copies the running broker.
func (w *operator) backUp() {
	w.backup = filepath.Join(w.t.TempDir(), "backup")
	w.tidewire(w.old, "backup", "--server", "http://"+w.broker.admin, w.backup)
	w.tidewire(w.old, "check", "--deep", "--backup", w.backup)
}

// restore puts the backup into another directory. Nothing was stored since, so
// the subscribers will miss nothing.
func (w *operator) restore() {
	dir := filepath.Join(w.t.TempDir(), "data")
	w.tidewire(w.old, "restore", "--data", dir, w.backup)
	w.tidewire(w.old, "check", "--deep", "--data", dir)
	w.broker.dir = dir
}

func (w *operator) stop() {
	if code := w.broker.terminate(); code != 0 {
		w.t.Errorf("exit status %d", code)
	}
	w.tidewire(w.old, "check", "--data", w.broker.dir)
}

// upgrade starts another version on the same data.
func (w *operator) upgrade() {
	w.broker.program = w.next
	w.broker.start()
	if !strings.Contains(w.broker.stderr.String(), "Tidewire v0.2.0 listens") {
		w.t.Error("this is not the next version")
	}
	if code := w.publish(20); code != "" {
		w.t.Errorf("refused: %s", code)
	}
}

func (w *operator) audit() {
	w.arrived() // by those who were there all the time
	w.history()
	w.stop()
}
