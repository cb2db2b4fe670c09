// Package readme runs the blocks of README.md as a newcomer would type them, on
// a copy of the tree, and the examples of docs/http.md, and checks what they
// promise.
package readme

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	public  = "http://127.0.0.1:7070"
	admin   = "http://127.0.0.1:7071"
	patient = 5 * time.Minute // the first build may be slow
)

// block is a piece of shell in the README, preceded by <!-- run --> or
// <!-- run: background -->.
type block struct {
	background bool
	text       string
}

var blockPattern = regexp.MustCompile("(?s)<!-- run(: background)? -->\n```sh\n(.*?)```")

func readBlocks(t *testing.T, path string) []block {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var blocks []block
	for _, m := range blockPattern.FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, block{background: m[1] != "", text: m[2]})
	}
	return blocks
}

// walker types the blocks.
type walker struct {
	t       *testing.T
	dir     string
	sh      []string          // the shell and its arguments before the text
	replace *strings.Replacer // changes the text before it is typed; may be nil
}

// strictBash ends a block at its first failure.
var strictBash = []string{"bash", "-eo", "pipefail", "-c"}

// running is a block in a terminal of its own.
type running struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  string // files
	err  string
	done chan struct{}
}

func (w *walker) shell(text string) *exec.Cmd {
	if w.replace != nil {
		text = w.replace.Replace(text)
	}
	cmd := exec.Command(w.sh[0], append(slices.Clone(w.sh[1:]), text)...)
	cmd.Dir = w.dir
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(name, "MAKE") && name != "MFLAGS" {
			cmd.Env = append(cmd.Env, v) // a newcomer's terminal is not below a make
		}
	}
	cmd.Env = append(cmd.Env, "TIDEWIRE_DATA="+filepath.Join(w.dir, "walk-data"))
	return cmd
}

// run types a block and returns what it prints. Its status is 0, or one of those
// allowed.
func (w *walker) run(text string, allowed ...int) string {
	w.t.Helper()
	cmd := w.shell(text)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && (cmd.ProcessState == nil || !slices.Contains(allowed, cmd.ProcessState.ExitCode())) {
		w.t.Fatalf("the block\n%sfailed: %v\n%s%s", text, err, out, stderr.String())
	}
	return string(out)
}

// start types a block in a terminal of its own.
func (w *walker) start(name, text string) *running {
	w.t.Helper()
	r := &running{t: w.t, cmd: w.shell(text), out: filepath.Join(w.dir, name+".out"), err: filepath.Join(w.dir, name+".err"), done: make(chan struct{})}
	stdout, err := os.Create(r.out)
	if err != nil {
		w.t.Fatal(err)
	}
	stderr, err := os.Create(r.err)
	if err != nil {
		w.t.Fatal(err)
	}
	r.cmd.Stdout, r.cmd.Stderr = stdout, stderr
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		_ = r.cmd.Wait()
		_, _ = stdout.Close(), stderr.Close()
		close(r.done)
	}()
	w.t.Cleanup(r.kill)
	return r
}

// kill ends everything in the terminal.
func (r *running) kill() {
	_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
	<-r.done
	if r.t.Failed() {
		stderr, _ := os.ReadFile(r.err)
		r.t.Logf("%s\n%s", filepath.Base(r.err), stderr)
	}
}

// lines returns the whole lines that the terminal shows.
func (r *running) lines() []string {
	text, err := os.ReadFile(r.out)
	if err != nil {
		r.t.Fatal(err)
	}
	all := strings.Split(string(text), "\n")
	return all[:len(all)-1]
}

// until waits for something to become true.
func (w *walker) until(what string, done func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patient)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			w.t.Fatalf("waited in vain until %s", what)
		}
	}
}

func ready() bool { return readyAt(public) }

func readyAt(url string) bool {
	resp, err := http.Get(url + "/readyz")
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// subscriptions asks the broker how many there are.
func subscriptions(t *testing.T) string {
	resp, err := http.Get(admin + "/metrics")
	if err != nil {
		return ""
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^tidewire_subscriptions (\d+)`).FindSubmatch(text)
	if m == nil {
		return ""
	}
	return string(m[1])
}

// stored reads the payloads of a topic from its history.
func stored(t *testing.T, topic string) []string {
	t.Helper()
	var payloads []string
	from := "earliest"
	for {
		resp, err := http.Get(fmt.Sprintf("%s/v1/topics/%s/messages?limit=1000&from=%s", public, topic, from))
		if err != nil {
			t.Fatal(err)
		}
		var page struct {
			Messages []struct{ Payload string }
			Next     string
		}
		err = json.NewDecoder(resp.Body).Decode(&page)
		_ = resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Messages) == 0 {
			return payloads
		}
		for _, m := range page.Messages {
			payloads = append(payloads, m.Payload)
		}
		from = page.Next
	}
}

// newcomer reads a page in a fresh tree. The page has so many blocks to run, for
// which more tools may be needed than for all pages.
func newcomer(t *testing.T, page string, blocks int, tools ...string) (*walker, []block) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the program in a fresh tree, and takes from ten seconds to half a minute")
	}
	needs(t, append([]string{"bash", "make", "curl"}, tools...)...)
	for _, url := range []string{public, admin} {
		address := strings.TrimPrefix(url, "http://")
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatalf("%s is tried as it stands, on %s, and something listens there: end it for as long as the test runs: %v", page, address, err)
		}
		_ = l.Close()
	}
	w := &walker{t: t, dir: copyTree(t), sh: strictBash}
	all := readBlocks(t, filepath.Join(w.dir, page))
	if len(all) != blocks {
		t.Fatalf("%s has %d blocks to run, this test knows %d: change both together", page, len(all), blocks)
	}
	return w, all
}

// needs skips a test for which a program is not installed.
func needs(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
}

// The blocks of README.md: those of the first walk and of real work come before those
// of many nodes.
const (
	walkBlocks   = 13
	readmeBlocks = walkBlocks + 4
)

// TestWalk is the first walk of README.md.
func TestWalk(t *testing.T) {
	w, blocks := newcomer(t, "README.md", readmeBlocks, "python3", "vmstat", "pkill")
	broker := w.start("broker", blocks[0].text)
	w.until("the broker is ready", ready)
	sub := w.start("sub", blocks[1].text)
	w.until("the subscriber is there", func() bool { return subscriptions(t) == "1" })
	pub := w.start("pub", blocks[2].text)
	sse := w.start("sse", blocks[3].text)
	python := w.start("python", blocks[4].text)
	w.until("lines arrive everywhere", func() bool {
		return len(sub.lines()) >= 4 && len(python.lines()) >= 4 && len(events(sse)) >= 4
	})
	w.run(onlyOf(broker, blocks[5].text))
	w.until("the broker is gone", func() bool { return !ready() })
	before := len(sub.lines())
	w.start("broker-again", blocks[6].text)
	w.until("the broker is back", ready)
	w.until("lines arrive again", func() bool { return len(sub.lines()) >= before+4 && len(python.lines()) >= before+4 })
	endInput(t, pub)

	want := stored(t, "walk.vmstat")
	w.until("everybody has every line", func() bool {
		return len(sub.lines()) >= len(want) && len(python.lines()) >= len(want)
	})
	for name, got := range map[string][]string{"sub": sub.lines(), "python": python.lines()} {
		if !slices.Equal(got, want) {
			t.Errorf("%s has\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	if got := events(sse); !slices.Equal(got, want[:len(got)]) {
		t.Errorf("curl has\n%s\nwant the beginning of\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	checkRepeat(t, w.run(blocks[7].text))
	checkPast(t, w.run(blocks[8].text), want)
	realWork(t, w, blocks[9:walkBlocks])
}

// onlyOf has the block that kills the broker kill nothing outside of a terminal:
// on the machine of a developer other brokers may run.
func onlyOf(r *running, text string) string {
	r.t.Helper()
	const kill = "pkill -9 -f "
	if pattern, ok := strings.CutPrefix(text, kill); ok && strings.Count(text, "\n") == 1 {
		return fmt.Sprintf("pkill -9 -g %d -f %s", r.cmd.Process.Pid, pattern)
	}
	r.t.Fatalf("the block that kills the broker is no longer one %q: see that this test kills nobody else's\n%s", kill, text)
	return ""
}

// realWork is the section of that name, with the broker of the walk.
func realWork(t *testing.T, w *walker, blocks []block) {
	t.Helper()
	began := time.Now()
	done := func() int {
		files, err := filepath.Glob(filepath.Join(w.dir, "done", "*.txt"))
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	const dead = "bin/tidewire dead list files --json"
	letters := func() int { return strings.Count(w.run(dead), "\n") }
	w.run(blocks[0].text)
	workers := w.start("workers", blocks[1].text)
	w.until("87 files are done and 3 are dead letters", func() bool { return done() == 87 && letters() == 3 })
	out := w.run(blocks[2].text)
	if !strings.HasPrefix(out, "87\n") || strings.Count(out, "jobs.files") != 3 {
		t.Errorf("it says\n%s", out)
	}
	w.run(blocks[3].text)
	w.until("all files are done", func() bool { return done() == 90 })
	w.until("no dead letter is left", func() bool { return letters() == 0 })
	for n := 1; n <= 90; n++ {
		text, err := os.ReadFile(filepath.Join(w.dir, "done", fmt.Sprintf("%d.txt", n)))
		if want := fmt.Sprintf("the content of %d\n", n); err != nil || string(text) != want {
			t.Errorf("file %d is %q, error %v", n, text, err)
		}
	}
	text, err := os.ReadFile(workers.err)
	if err != nil {
		t.Fatal(err)
	}
	if said := string(text); strings.Count(said, "bad luck") < 9 {
		t.Errorf("the command failed less often than it is to:\n%s", said)
	}
	alive, err := exec.Command("pgrep", "-c", "-g", fmt.Sprint(workers.cmd.Process.Pid), "-x", "tidewire").Output()
	if err != nil || strings.TrimSpace(string(alive)) != "2" {
		t.Errorf("%s workers are left, error %v, want 2", alive, err)
	}
	t.Logf("the work took %v", time.Since(began).Round(time.Second))
}

// endInput ends vmstat, as ctrl-C would, and waits until all is answered.
func endInput(t *testing.T, pub *running) {
	t.Helper()
	out, err := exec.Command("pkill", "-g", fmt.Sprint(pub.cmd.Process.Pid), "-x", "vmstat").CombinedOutput()
	if err != nil {
		t.Fatalf("end vmstat: %v %s", err, out)
	}
	select {
	case <-pub.done:
	case <-time.After(patient):
		t.Fatal("pub --lines does not end")
	}
	// vmstat was killed, so the pipe's status is vmstat's; a refusal of pub would
	// be 1.
	if code := pub.cmd.ProcessState.ExitCode(); code != 128+int(syscall.SIGTERM) {
		t.Errorf("vmstat | tidewire pub ended with %d", code)
	}
}

// events returns the payloads of the server-sent events in a terminal.
func events(r *running) []string {
	var payloads []string
	for _, line := range r.lines() {
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		var m struct{ Payload string }
		if err := json.Unmarshal([]byte(data), &m); err != nil {
			r.t.Fatal(err)
		}
		payloads = append(payloads, m.Payload)
	}
	return payloads
}

// answer is what publishing prints.
type answer struct {
	ID, Topic, Position string
	Duplicate           bool
}

func checkRepeat(t *testing.T, out string) {
	t.Helper()
	var answers []answer
	for dec := json.NewDecoder(strings.NewReader(out)); ; {
		var a answer
		err := dec.Decode(&a)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		answers = append(answers, a)
	}
	if len(answers) != 3 {
		t.Fatalf("%d answers in\n%s", len(answers), out)
	}
	first, second, third := answers[0], answers[1], answers[2]
	if first.Duplicate || !second.Duplicate || first.Position != second.Position || first.ID != "greeting-1" {
		t.Errorf("the repeat is not told as one:\n%s", out)
	}
	if third.Duplicate || third.ID != third.Position {
		t.Errorf("the message of curl has no id of its own:\n%s", out)
	}
}

func checkPast(t *testing.T, out string, want []string) {
	t.Helper()
	for _, line := range want[:3] {
		if !strings.Contains(out, strings.TrimSpace(line)) {
			t.Errorf("history lacks %q:\n%s", line, out)
		}
	}
	for _, text := range []string{"hello, once", "hello from curl", `"next"`} {
		if !strings.Contains(out, text) {
			t.Errorf("the past lacks %s:\n%s", text, out)
		}
	}
}

// copyTree copies what git would hand to a newcomer, with changes that are not
// committed yet.
func copyTree(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("git", "-C", "../..", "ls-files", "-co", "--exclude-standard", "--full-name").Output()
	if err != nil {
		t.Skipf("git cannot list the tree: %v", err)
	}
	dir := t.TempDir()
	for name := range strings.FieldsSeq(string(out)) {
		from, to := filepath.Join("../..", name), filepath.Join(dir, name)
		text, err := os.ReadFile(from)
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted, not committed
		}
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, text, info.Mode()); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
