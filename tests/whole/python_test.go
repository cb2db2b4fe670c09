package whole_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// python starts the example client.
func python(t *testing.T, b *broker, args ...string) (cmd *exec.Cmd, stdout, stderr *output) {
	t.Helper()
	return pythonExample(t, "client.py", append([]string{"--url", b.url()}, args...)...)
}

// pythonExample starts a program of docs/examples. It is killed when the test ends.
func pythonExample(t *testing.T, name string, args ...string) (cmd *exec.Cmd, stdout, stderr *output) {
	t.Helper()
	path, err := exec.LookPath("python3")
	if err != nil {
		t.Skipf("python3 is not installed, which docs/examples/%s needs", name)
	}
	stdout, stderr = &output{}, &output{}
	cmd = exec.Command(path, append([]string{"-B", filepath.Join("../../docs/examples", name)}, args...)...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // an error means that it is gone
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s %q wrote:\n%s", name, args, stderr)
		}
	})
	return cmd, stdout, stderr
}

// The example client gets every line once and in order over a kill of the
// broker, and over a kill of its own.
func TestPythonClientOverAKill(t *testing.T) {
	b := newBroker(t)
	b.env = small
	b.start()
	file := filepath.Join(t.TempDir(), "position")
	sub, lines, _ := python(t, b, "sub", "room.*.chat", "--from", "earliest", "--position-file", file)
	var want []string
	send := func(n int) {
		for range n {
			line := fmt.Sprintf("line %d with é", len(want))
			b.publish(fmt.Sprintf("room.%d.chat", len(want)%3), line)
			want = append(want, line)
		}
	}
	arrived := func() bool { return len(lines.lines()) >= len(want) }
	send(50)
	within(t, 30*time.Second, "the first lines arrive", arrived)
	send(50) // some of them on their way while it dies
	b.kill()
	published, answer, _ := python(t, b, "pub", "room.1.chat", "said while the broker was dead")
	b.start()
	if err := published.Wait(); err != nil || !strings.Contains(answer.String(), "stored") {
		t.Fatalf("the publisher says %q, error %v", answer, err)
	}
	want = append(want, "said while the broker was dead")
	send(50)
	within(t, 60*time.Second, "all lines arrive", arrived)
	if got := lines.lines(); !slices.Equal(got, want) {
		t.Fatalf("got %d lines, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}

	// The position is kept after the lines were handled, so wait for it before
	// the kill: else the last lines may rightly come again.
	within(t, 10*time.Second, "the position is kept", func() bool { return offsetIn(t, file) >= uint64(len(want)) })
	_ = sub.Process.Kill()
	before := len(want)
	send(10)
	again, lines, _ := python(t, b, "sub", "room.*.chat", "--position-file", file, "--count", "10")
	if err := again.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := lines.lines(); !slices.Equal(got, want[before:]) {
		t.Errorf("after its own kill it got %q, want %q", got, want[before:])
	}
}

// The same id is stored once, whoever sends it.
func TestPythonClientRepeatsAnID(t *testing.T) {
	b := newBroker(t)
	b.start()
	for i, want := range []string{"stored", "duplicate"} {
		cmd, answer, _ := python(t, b, "pub", "room.1", "hello", "--id", "a1")
		if err := cmd.Wait(); err != nil || !strings.HasSuffix(strings.TrimSpace(answer.String()), want) {
			t.Errorf("attempt %d: %q, error %v, want %s", i+1, answer, err, want)
		}
	}
	cmd, _, stderr := python(t, b, "pub", "room.1", "something else", "--id", "a1")
	if err := cmd.Wait(); err == nil || !strings.Contains(stderr.String(), "id_conflict") {
		t.Errorf("another payload with the id: error %v, %q", err, stderr)
	}
}

// It answers pings: a session that does not is closed within ping interval and
// timeout, and this one lives for several of them.
func TestPythonClientAnswersPings(t *testing.T) {
	b := newBroker(t)
	b.env = []string{"TIDEWIRE_PING_INTERVAL=1s", "TIDEWIRE_PING_TIMEOUT=1s"}
	b.start()
	_, lines, stderr := python(t, b, "sub", "clock", "--from", "earliest")
	began := time.Now()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for n := 1; time.Since(began) < 5*time.Second; n++ {
		b.publish("clock", strconv.Itoa(n))
		within(t, 10*time.Second, "the message arrives", func() bool { return len(lines.lines()) == n })
		<-tick.C
	}
	if s := stderr.String(); s != "" {
		t.Errorf("it lost the connection: %s", s)
	}
}

// offsetIn reads the last number of the position that a client keeps.
func offsetIn(t *testing.T, file string) uint64 {
	t.Helper()
	text, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	position := strings.TrimSpace(string(text))
	n, err := strconv.ParseUint(position[strings.LastIndex(position, "-")+1:], 10, 64)
	if err != nil {
		t.Fatalf("%s holds %q", file, position)
	}
	return n
}
