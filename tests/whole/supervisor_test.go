package whole_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// processes is the answer of /dev/processes.
type processes struct {
	Supervisor, Broker, Starts int
	Started                    time.Time
}

// newDevBroker returns a broker with --dev: its process is the supervisor.
func newDevBroker(t *testing.T) *broker {
	b := newBroker(t)
	b.flags = []string{"--dev"}
	return b
}

// processes waits for an answer; the broker may be away.
func (b *broker) processes() (p processes) {
	b.t.Helper()
	within(b.t, 30*time.Second, "the broker says who runs", func() bool {
		answer, err := probe.Get("http://" + b.listen + "/dev/processes")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		return json.NewDecoder(answer.Body).Decode(&p) == nil && p.Broker != 0
	})
	return p
}

// another waits until another process than the one before is the broker.
func (b *broker) another(before processes) (p processes) {
	b.t.Helper()
	within(b.t, 30*time.Second, "another broker runs", func() bool {
		p = b.processes()
		return p.Broker != before.Broker
	})
	return p
}

func TestKilledBrokerIsStartedAgain(t *testing.T) {
	b := newDevBroker(t)
	b.start()
	first := b.processes()
	if first.Supervisor != b.cmd.Process.Pid || first.Broker == first.Supervisor || first.Starts != 1 || time.Since(first.Started) > time.Minute {
		t.Errorf("at the start: %+v, the supervisor is %d", first, b.cmd.Process.Pid)
	}
	b.publish("room.1", "before")
	if err := syscall.Kill(first.Broker, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := b.another(first)
	if second.Supervisor != first.Supervisor || second.Starts != 2 || second.Started.Before(first.Started) {
		t.Errorf("after a kill: %+v, before %+v", second, first)
	}
	if got := status("http://" + b.listen + "/"); got != http.StatusOK {
		t.Errorf("the page: %d", got)
	}
	if got := status("http://" + b.admin + "/healthz"); got != http.StatusOK {
		t.Errorf("the admin listener: %d", got)
	}
	b.publish("room.1", "after")

	// The demo does the same by itself.
	request, err := http.NewRequest("POST", "http://"+b.listen+"/dev/kill", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Origin", "http://"+b.listen)
	request.Header.Set("Tidewire-Dev", "1")
	answer, err := probe.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	_ = answer.Body.Close()
	if err != nil || answer.StatusCode != http.StatusAccepted || !strings.Contains(string(text), "true") {
		t.Errorf("kill: %d %s, error %v", answer.StatusCode, text, err)
	}
	if third := b.another(second); third.Starts != 3 {
		t.Errorf("after the second kill: %+v", third)
	}
	if n := strings.Count(b.stderr.String(), "signal: killed"); n != 2 {
		t.Errorf("it tells of %d kills, want 2", n)
	}
	if code := b.terminate(); code != 0 {
		t.Errorf("it ends with %d", code)
	}
}

// Each way to end both, and what is left: nothing.
func TestSupervisorEndsWithItsBroker(t *testing.T) {
	for name, c := range map[string]struct {
		signal syscall.Signal
		group  bool // as a terminal does
		broker bool // to the broker
		want   int
	}{
		"SIGTERM":                      {syscall.SIGTERM, false, false, 0},
		"SIGTERM to both":              {syscall.SIGTERM, true, false, 0},
		"SIGINT":                       {syscall.SIGINT, false, false, 0},
		"Ctrl-C":                       {syscall.SIGINT, true, false, 0},
		"SIGTERM to the broker":        {syscall.SIGTERM, false, true, 0},
		"kill -9 of the supervisor":    {syscall.SIGKILL, false, false, -1},
		"kill -9 of both at once":      {syscall.SIGKILL, true, false, -1},
		"SIGQUIT, which Go dies of":    {syscall.SIGQUIT, false, false, 2},
		"SIGSTOP and kill -9 after it": {syscall.SIGSTOP, false, false, -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newDevBroker(t)
			if c.signal == syscall.SIGQUIT {
				b.env = append(b.env, "GOTRACEBACK=none")
			}
			b.group = true
			b.start()
			p := b.processes()
			to := p.Supervisor
			if c.broker {
				to = p.Broker
			} else if c.group {
				to = -to
			}
			if err := syscall.Kill(to, c.signal); err != nil {
				t.Fatal(err)
			}
			if c.signal == syscall.SIGSTOP {
				if err := syscall.Kill(to, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			if code := b.awaitExit(10 * time.Second); code != c.want {
				t.Errorf("it ends with %d, want %d", code, c.want)
			}
			if n := strings.Count(b.stderr.String(), "shutting down"); c.want == 0 && n != 1 {
				t.Errorf("it shut down %d times", n)
			}
			// Ports and data are free at once: a broker without a supervisor takes them.
			b.flags = nil
			within(t, 5*time.Second, "the ports are free", func() bool { return free(b.listen) && free(b.admin) })
			b.start()
		})
	}
}

// While the broker waits for a client that does not go, a second signal ends both
// at once.
func TestSecondSignalEndsBothAtOnce(t *testing.T) {
	b := newDevBroker(t)
	b.env = []string{"TIDEWIRE_SHUTDOWN_DRAIN=10m"}
	b.start()
	client, err := net.Dial("tcp", b.listen)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	_, _ = fmt.Fprintf(client, "GET /v1/ws HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: tidewire.v1.json\r\n\r\n", b.listen)
	const connect = `{"type":"connect"}`
	_, _ = client.Write(append([]byte{0x81, 0x80 | byte(len(connect)), 0, 0, 0, 0}, connect...))
	if _, err := bufio.NewReader(client).ReadString('}'); err != nil { // the end of what its welcome says of limits
		t.Fatal(err)
	}
	for range 2 {
		if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		within(t, 10*time.Second, "it shuts down", func() bool { return strings.Contains(b.stderr.String(), "shutting down") })
	}
	if code := b.awaitExit(20 * time.Second); code != 1 {
		t.Errorf("it ends with %d", code)
	}
}

func free(address string) bool {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// What is wrong at the start is said once, and not tried again.
func TestSupervisorDoesNotRepeatAFailedStart(t *testing.T) {
	other := newBroker(t)
	other.start()
	for name, c := range map[string]struct {
		change func(*broker)
		want   string
	}{
		"the port": {func(b *broker) { b.listen = other.listen }, "the address " + other.listen + " is in use by another program"},
		"the data": {func(b *broker) { b.dir = other.dir }, "is in use by another process"},
		"the settings": {func(b *broker) {
			b.env = []string{"TIDEWIRE_LISTEN=nonsense"}
			b.flags = append(b.flags, "--listen", "x")
		}, "is not an address"},
		"what is meant": {func(b *broker) { b.flags = append(b.flags, "--supervised=1") }, "--supervised is for the supervisor"},
	} {
		b := newDevBroker(t)
		c.change(b)
		ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
		got := runToEnd(t, b.command(ctx))
		stop()
		if got.code != 1 || got.stdout != "" || strings.Count(got.stderr, "\n") != 1 || !strings.HasPrefix(got.stderr, "tidewire: ") || !strings.Contains(got.stderr, c.want) {
			t.Errorf("%s: status %d, output %q, and it says %q", name, got.code, got.stdout, got.stderr)
		}
	}
}

// A port that the system chose stays when the broker is started again.
func TestSupervisorKeepsThePort(t *testing.T) {
	b := newDevBroker(t)
	b.flags = append(b.flags, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	b.launch()
	line := func(n int) string {
		var all []string
		within(t, 30*time.Second, "it says where it is", func() bool {
			all = nil
			for _, l := range b.stderr.lines() {
				if strings.HasPrefix(l, "Tidewire ") {
					all = append(all, l)
				}
			}
			return len(all) >= n
		})
		return all[n-1]
	}
	first := line(1)
	_, address, _ := strings.Cut(first, "http://")
	b.listen, _, _ = strings.Cut(address, " ")
	if err := syscall.Kill(b.processes().Broker, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if second := line(2); second != first {
		t.Errorf("first %q, then %q", first, second)
	}
	if code := b.terminate(); code != 0 {
		t.Errorf("it ends with %d", code)
	}
}

func TestSupervisorHandsOnHangups(t *testing.T) {
	b := newDevBroker(t)
	b.start()
	if err := b.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, "the broker reloads", func() bool {
		return strings.Contains(b.stderr.String(), "the configuration was reloaded")
	})
}

// numbers returns those of the feed, in the order of the log.
func numbers(t *testing.T, b *broker) (all []int64) {
	t.Helper()
	for from := "earliest"; ; {
		answer, err := probe.Get("http://" + b.listen + "/v1/topics/demo.host/messages?limit=1000&from=" + from)
		if err != nil {
			t.Fatal(err)
		}
		var page struct {
			Messages []struct{ Payload string }
			Next     string
		}
		err = json.NewDecoder(answer.Body).Decode(&page)
		_ = answer.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Messages) == 0 {
			return all
		}
		from = page.Next
		for _, m := range page.Messages {
			var p struct {
				N       int64
				Time    time.Time
				CPU, RX *float64
				Memory  *float64
			}
			if err := json.Unmarshal([]byte(m.Payload), &p); err != nil {
				t.Fatal(err)
			}
			if time.Since(p.Time) > time.Hour || p.Memory == nil {
				t.Errorf("%s", m.Payload)
			}
			all = append(all, p.N)
		}
	}
}

// The numbers of the feed have no hole and none comes twice, over kills of the
// broker and of the supervisor.
func TestFeedOverKills(t *testing.T) {
	b := newDevBroker(t)
	b.start()
	count := 0
	more := func(n int) {
		t.Helper()
		want := count + n
		within(t, 60*time.Second, fmt.Sprintf("%d numbers are there", want), func() bool {
			count = len(numbers(t, b))
			return count >= want
		})
	}
	more(10)
	for range 3 {
		p := b.processes()
		if err := syscall.Kill(p.Broker, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		b.another(p)
		more(10)
	}
	b.kill()
	b.start()
	more(10)
	if code := b.terminate(); code != 0 {
		t.Errorf("it ends with %d", code)
	}
	b.flags = nil
	b.start()
	for i, n := range numbers(t, b) {
		if n != int64(i)+1 {
			t.Fatalf("message %d has the number %d", i+1, n)
		}
	}
}

// Without --dev there is neither page nor feed nor supervisor, and nobody kills
// the broker.
func TestNoDemoWithoutDev(t *testing.T) {
	b := newBroker(t)
	b.start()
	for path, want := range map[string]int{"/": 404, "/demo/main.js": 404, "/dev/processes": 404, "/sdk/client.tgz": 200} {
		if got := status("http://" + b.listen + path); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
	if out, _ := exec.Command("pgrep", "-P", fmt.Sprint(b.cmd.Process.Pid)).Output(); len(out) > 0 {
		t.Errorf("the broker has children: %s", out)
	}
	answer, err := probe.Post("http://"+b.listen+"/dev/kill", "text/plain", bytes.NewReader(nil))
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusNotFound {
		t.Errorf("kill: %d", answer.StatusCode)
	}
}
