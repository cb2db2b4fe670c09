package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// working is `tidewire work` as a process.
type working struct {
	t         *testing.T
	cmd       *exec.Cmd
	out, errs string // files
}

// work starts a worker whose command is a script. SELF is the program.
func work(t *testing.T, server, script string, args ...string) *working {
	t.Helper()
	onSh(t)
	dir := t.TempDir()
	w := &working{t: t, out: filepath.Join(dir, "out"), errs: filepath.Join(dir, "errs")}
	w.cmd = program(t, append(append([]string{"work"}, args...), "--", "sh", "-c", script)...)
	w.cmd.Env = append(w.cmd.Env, "TIDEWIRE_SERVER="+server, "SELF="+w.cmd.Path)
	out, err := os.Create(w.out)
	if err != nil {
		t.Fatal(err)
	}
	errs, err := os.Create(w.errs)
	if err != nil {
		t.Fatal(err)
	}
	w.cmd.Stdout, w.cmd.Stderr = out, errs
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = out.Close(), errs.Close()
	return w
}

// wait waits for the end and returns the status and what was written.
func (w *working) wait() (status int, out, errs string) {
	w.t.Helper()
	_ = w.cmd.Wait()
	return w.cmd.ProcessState.ExitCode(), w.text(w.out), w.text(w.errs)
}

func (w *working) text(file string) string {
	w.t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// until waits until a file of the worker holds a text.
func (w *working) until(file, text string) {
	w.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); !strings.Contains("\n"+w.text(file), text); <-tick.C {
		if time.Now().After(deadline) {
			w.t.Fatalf("%q does not appear: %s%s", text, w.text(w.out), w.text(w.errs))
		}
	}
}

func sortedLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// What becomes of messages, with a broker: done, tried again, rejected, dead; and
// the program works inside the command. Operators see it, and put it right.
func TestWork(t *testing.T) {
	s := start(t, nil)
	for i := range 5 {
		s.publish(t, "orders.eu", fmt.Sprint("o", i), fmt.Sprint("order ", i))
	}
	const script = `
echo "$TIDEWIRE_MSG_ID $TIDEWIRE_MSG_ATTEMPT $(cat)"
case $TIDEWIRE_MSG_ID in
o1) [ "$TIDEWIRE_MSG_ATTEMPT" = 3 ] || exit 1;;
o2) echo "no such customer" >&2; exit 65;;
o3) kill -KILL $$;;
o4) "$SELF" config check >/dev/null && "$SELF" pub done "$TIDEWIRE_MSG_POSITION" --id "$TIDEWIRE_MSG_ID";;
esac`
	w := work(t, s.public, script, "orders.>", "--consumer", "billing", "--backoff", "10ms", "--max-deliver", "3", "--concurrency", "2", "--count", "3")
	status, out, errs := w.wait()
	if status != 0 || !strings.Contains(errs, "tidewire: 3 done, ") { // o3 may still have attempts before it
		t.Fatalf("%d, %s%s", status, out, errs)
	}
	for _, line := range []string{"o0 1 order 0\n", "o1 3 order 1\n", "o2 1 order 2\n", "o4 1 order 4\n"} {
		if strings.Count(out, line) != 1 {
			t.Errorf("%q is not there once: %s", line, out)
		}
	}
	for _, line := range []string{"no such customer\n", "tidewire: orders.eu o2 is rejected: no such customer\n", "tidewire: orders.eu o1, attempt 2: exit status 1\n", "tidewire: orders.eu o3, attempt 1: signal: killed\n"} {
		if strings.Count(errs, line) == 0 {
			t.Errorf("%q is missing: %s", line, errs)
		}
	}
	if got := s.history(t, "done", "from=earliest"); !strings.HasPrefix(got, "p") {
		t.Errorf("the command has published %q", got)
	}

	admin := func(args ...string) string {
		t.Helper()
		status, out, errs := call(append(args, "--server", s.admin)...)
		if status != 0 || errs != "" {
			t.Fatalf("%q: %d, %s%s", args, status, out, errs)
		}
		return out
	}
	var letter deadLine
	if out := admin("dead", "show", "billing", "o2", "--json"); json.Unmarshal([]byte(out), &letter) != nil || letter.Topic != "orders.eu" || letter.Reason != "no such customer" || letter.Attempts != 1 || *letter.Payload != "order 2" || letter.First == "" {
		t.Errorf("%s", out)
	}
	if out := admin("message", "o2"); !strings.Contains(out, "billing   dead   1         -      no such customer\n") {
		t.Errorf("%s", out)
	}
	if out := admin("dead", "redrive", "billing", "o2"); out != "1 dead letter is given back to billing\n" {
		t.Error(out)
	}
	w = work(t, s.public, `[ $TIDEWIRE_MSG_ID = o2 ] && echo "$TIDEWIRE_MSG_TOPIC $TIDEWIRE_MSG_ATTEMPT"`, "orders.>", "--consumer", "billing", "--count", "1", "--quiet")
	if status, out, errs := w.wait(); status != 0 || out != "orders.eu 1\n" || strings.Contains(errs, "done") {
		t.Errorf("%d, %s%s", status, out, errs)
	}
	if out := admin("consumers", "seek", "billing", "--to", "earliest", "--json"); !strings.Contains(out, `"in_flight":0,"waiting":0`) {
		t.Error(out)
	}
	w = work(t, s.public, "cat; echo", "orders.>", "--consumer", "billing", "--count", "5")
	if status, out, errs := w.wait(); status != 0 || sortedLines(out) != "order 0\norder 1\norder 2\norder 3\norder 4" || errs != "tidewire: 5 done, 0 failed attempts, 0 rejected\n" {
		t.Errorf("%d, %s%s", status, out, errs)
	}
	admin("consumers", "create", "billing", "orders.>", "--ack-wait", "90s")
	if out := admin("consumers", "list"); !strings.Contains(out, "billing  main    orders.>  0        ") {
		t.Error(out)
	}
	if out := admin("consumers", "show", "billing"); !strings.Contains(out, "ack wait      1m30s\n") || !strings.Contains(out, "max deliver   3\n") {
		t.Error(out)
	}
	admin("consumers", "pause", "billing")
	admin("consumers", "resume", "billing")
	admin("dead", "purge", "billing", "--all", "--yes")
	if out := admin("dead", "list", "billing", "--json"); out != "" {
		t.Error(out)
	}
	admin("consumers", "delete", "billing", "--yes")
	if status, _, errs := call("consumers", "show", "billing", "--server", s.admin); status != 1 || !strings.Contains(errs, "billing") {
		t.Errorf("%d, %s", status, errs)
	}
}

// The first signal lets commands finish, the second kills them; their messages come
// again at once.
func TestWorkSignals(t *testing.T) {
	s := start(t, nil)
	s.publish(t, "a", "1", "x")
	const slowly = `echo "begin $TIDEWIRE_MSG_ATTEMPT"; while [ ! -e "$GO" ]; do sleep 0.02; done; echo end`
	t.Setenv("GO", filepath.Join(t.TempDir(), "go"))
	args := []string{"a", "--consumer", "c", "--backoff", "1ms", "--ack-wait", "10m"}

	w := work(t, s.public, slowly, args...)
	w.until(w.out, "begin 1\n")
	_ = w.cmd.Process.Signal(syscall.SIGTERM)
	w.until(w.errs, "tidewire: waiting for 1 that still run; Ctrl-C or SIGTERM again kills them\n")
	_ = w.cmd.Process.Signal(os.Interrupt)
	status, out, errs := w.wait()
	if status != 0 || out != "begin 1\n" || !strings.Contains(errs, "tidewire: a 1, attempt 1: killed\n") || !strings.HasSuffix(errs, "tidewire: 0 done, 1 failed attempts, 0 rejected\n") {
		t.Errorf("%d, %s%s", status, out, errs)
	}

	w = work(t, s.public, slowly, args...)
	w.until(w.out, "\nbegin ") // in another attempt
	_ = w.cmd.Process.Signal(syscall.SIGTERM)
	w.until(w.errs, "waiting for 1")
	if err := os.WriteFile(os.Getenv("GO"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	status, out, errs = w.wait()
	if status != 0 || out == "begin 1\nend\n" || !strings.HasSuffix(out, "\nend\n") || !strings.HasSuffix(errs, "tidewire: 1 done, 0 failed attempts, 0 rejected\n") {
		t.Errorf("%d, %s%s", status, out, errs)
	}
	if _, out, _ := call("message", "1", "--server", s.admin); !strings.Contains(out, "c         done") {
		t.Error(out)
	}
	// Fewer than --count is a failure.
	w = work(t, s.public, slowly, append(args, "--count", "3")...)
	s.publish(t, "a", "2", "x")
	w.until(w.out, "end\n")
	_ = w.cmd.Process.Signal(syscall.SIGTERM)
	if status, _, errs = w.wait(); status != 1 || !strings.HasSuffix(errs, "tidewire: interrupted after 1 of 3 messages\n") {
		t.Errorf("%d, %s", status, errs)
	}
}

// Another worker takes an exclusive consumer over; what the first one runs is
// killed.
func TestWorkIsTakenOver(t *testing.T) {
	s := start(t, nil)
	s.publish(t, "a", "1", "x")
	first := work(t, s.public, "echo begin; sleep 600", "a", "--consumer", "c", "--exclusive")
	first.until(first.out, "begin\n")
	second := work(t, s.public, `echo "$TIDEWIRE_MSG_ID $TIDEWIRE_MSG_ATTEMPT"`, "a", "--consumer", "c", "--exclusive", "--count", "1")
	if status, out, errs := second.wait(); status != 0 || out != "1 2\n" {
		t.Errorf("%d, %s%s", status, out, errs)
	}
	if status, _, errs := first.wait(); status != 1 || !strings.HasSuffix(errs, "tidewire: another worker has taken over the exclusive consumer c\n") {
		t.Errorf("%d, %s", status, errs)
	}
}

// A broker that is killed while workers run loses no message, and what was done
// stays done.
func TestWorkSurvivesTheBroker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	data := filepath.Join(t.TempDir(), "data")
	var broker *exec.Cmd
	serve := func() {
		t.Helper()
		broker = program(t, "serve", "--data", data, "--listen", address, "--admin", "127.0.0.1:0")
		if err := broker.Start(); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(30 * time.Second)
		for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
			if answer, err := http.Get("http://" + address + "/readyz"); err == nil {
				_ = answer.Body.Close()
				if answer.StatusCode == http.StatusOK {
					return
				}
			}
			if time.Now().After(deadline) {
				t.Fatal("the broker does not start")
			}
		}
	}
	serve()
	const n = 60
	pub := program(t, "pub", "a", "--lines", "--server", "http://"+address)
	pub.Stdin = strings.NewReader(numbers(1, n))
	if out, err := pub.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w := work(t, "http://"+address, `sleep 0.05; echo "$(cat) $TIDEWIRE_MSG_ATTEMPT"`, "a", "--consumer", "c", "--concurrency", "2", "--ack-wait", "2s", "--backoff", "10ms")
	for _, seen := range []int{5, 25} {
		w.until(w.out, fmt.Sprintf("\n%d ", seen))
		_ = broker.Process.Kill()
		_ = broker.Wait()
		serve()
	}
	for i := 1; i <= n; i++ {
		w.until(w.out, fmt.Sprintf("\n%d ", i))
	}
	_ = w.cmd.Process.Signal(syscall.SIGTERM)
	status, out, errs := w.wait()
	if status != 0 {
		t.Fatalf("%d, %s", status, errs)
	}
	done := make(map[string]int)
	for line := range strings.Lines(out) {
		payload, _, _ := strings.Cut(line, " ")
		done[payload]++
	}
	again := 0
	for i := 1; i <= n; i++ {
		if done[fmt.Sprint(i)] == 0 {
			t.Errorf("%d was never handled: %s", i, errs)
		}
		again += done[fmt.Sprint(i)] - 1
	}
	if again > 10 { // what was under way at each kill
		t.Errorf("%d were handled again: %s", again, out)
	}
	_ = broker.Process.Kill()
	_ = broker.Wait()
}
