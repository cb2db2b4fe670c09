package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidewire/tidewire/config"
)

// started is a program that runs in this process.
type started struct {
	public, admin string // base URLs
	out           *bytes.Buffer
	logged        *bytes.Buffer // of warnings; to be read when nothing is logged
	stop          func() error
}

// start runs a program on free ports until stop, or until the test ends.
func start(t *testing.T, change func(*config.Config)) *started {
	t.Helper()
	settings, err := config.Load(config.Source{Flags: func(c *config.Config) {
		c.Data, c.Listen, c.Admin = filepath.Join(t.TempDir(), "data"), "127.0.0.1:0", "127.0.0.1:0"
		c.Shutdown.Drain = config.Duration(time.Second)
		if change != nil {
			change(c)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	s := &started{out: new(bytes.Buffer), logged: new(bytes.Buffer)}
	ready := make(chan struct{})
	p := &Program{Config: settings, Version: "test", Out: s.out, Logger: slog.New(slog.NewTextHandler(s.logged, &slog.HandlerOptions{Level: slog.LevelWarn})), Started: func(public, admin net.Addr) {
		s.public, s.admin = "http://"+public.String(), "http://"+admin.String()
		close(ready)
	}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	s.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	select {
	case <-ready:
	case err := <-ended:
		t.Fatalf("it ended at once: %v", err)
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("it ended with: %v", err)
		}
	})
	return s
}

// publish publishes over HTTP and returns the position.
func (s *started) publish(t *testing.T, topic, id, payload string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.public+"/v1/topics/"+topic+"/messages", strings.NewReader(payload))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Idempotency-Key", id)
	answer := fetch(t, request, http.StatusOK)
	var result struct {
		Position string
		Stored   bool
	}
	if err := json.Unmarshal(answer, &result); err != nil || !result.Stored {
		t.Fatalf("%s: %v", answer, err)
	}
	return result.Position
}

func (s *started) get(t *testing.T, url string) []byte {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return fetch(t, request, http.StatusOK)
}

func fetch(t *testing.T, request *http.Request, status int) []byte {
	t.Helper()
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != status {
		t.Fatalf("%s %s: %s, want %d: %s (%v)", request.Method, request.URL, response.Status, status, body, err)
	}
	return body
}

func TestProgramKeepsWhatItAnswered(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	at := func(c *config.Config) { c.Data = data }
	first := start(t, at)
	position := first.publish(t, "room.1", "a", "hello")
	for _, base := range []string{first.public, first.admin} {
		first.get(t, base+"/healthz")
		first.get(t, base+"/readyz")
	}
	if metrics := string(first.get(t, first.admin+"/metrics")); !strings.Contains(metrics, "\ntidewire_published_total 1\n") {
		t.Error("the metrics do not count the message")
	}
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}

	second := start(t, at)
	if again := second.publish(t, "room.1", "a", "hello"); again != position {
		t.Errorf("the repeat is at %s, the first at %s", again, position)
	}
	history := second.get(t, second.public+"/v1/topics/room.1/messages?from=earliest")
	if n := bytes.Count(history, []byte(`"hello"`)); n != 1 {
		t.Errorf("%d messages in %s", n, history)
	}
}

func TestProgramSaysWhereItIs(t *testing.T) {
	s := start(t, nil)
	want := fmt.Sprintf("Tidewire test listens on %s (anonymous, this machine only), admin %s, data in /", s.public, s.admin)
	if got := s.out.String(); !strings.HasPrefix(got, want) || strings.Count(got, "\n") != 1 {
		t.Errorf("got %q, want one line %q", got, want)
	}
	dev := start(t, func(c *config.Config) { c.Dev = true })
	if got := dev.out.String(); !strings.Contains(got, "curl -d hello "+dev.public+"/v1/topics/room.1/messages\n") {
		t.Errorf("with --dev it says %q", got)
	}
	closed := start(t, func(c *config.Config) { c.Auth.JWT.Secret = secret })
	if got := closed.out.String(); !strings.Contains(got, "(clients need a key or a token)") || strings.Contains(got, secret) {
		t.Errorf("with a secret it says %q", got)
	}
}

// A token from `tidewire token` opens exactly what it names.
func TestProgramTakesItsTokens(t *testing.T) {
	s := start(t, func(c *config.Config) { c.Auth.JWT.Secret = secret })
	t.Setenv("TIDEWIRE_AUTH_JWT_SECRET", secret)
	_, token, _ := call("token", "--sub", "alice", "--publish", "user.{sub}.>")
	post := func(topic, token string, status int) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.public+"/v1/topics/"+topic+"/messages", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		fetch(t, request, status)
	}
	token = strings.TrimSpace(token)
	post("user.alice.inbox", token, http.StatusOK)
	post("user.bob.inbox", token, http.StatusForbidden)
	post("user.alice.inbox", "", http.StatusUnauthorized)
	post("user.alice.inbox", token+"x", http.StatusUnauthorized)
}

// A publish that is on its way when the end comes is answered.
func TestProgramAnswersBeforeItEnds(t *testing.T) {
	s := start(t, nil)
	s.publish(t, "warm", "w", "x")
	const publishers = 32
	var group sync.WaitGroup
	refused := make([]string, publishers)
	var begun sync.WaitGroup
	begun.Add(publishers)
	for i := range publishers {
		group.Go(func() {
			client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, ExpectContinueTimeout: 30 * time.Second}}
			body := &slowBody{text: "hello", begun: begun.Done}
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.public+"/v1/topics/t/messages", body)
			if err != nil {
				refused[i] = err.Error()
				return
			}
			request.Header.Set("Expect", "100-continue") // the body is sent once the handler reads it
			response, err := client.Do(request)
			if err != nil {
				refused[i] = err.Error()
				return
			}
			_ = response.Body.Close()
			if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusServiceUnavailable {
				refused[i] = response.Status
			}
		})
	}
	begun.Wait() // every request is in its handler
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	group.Wait()
	for i, why := range refused {
		if why != "" {
			t.Errorf("publisher %d got no answer: %s", i, why)
		}
	}
}

// slowBody calls begun when the client begins to send it.
type slowBody struct {
	text  string
	begun func()
}

func (b *slowBody) Read(p []byte) (int, error) {
	if b.begun != nil {
		b.begun()
		b.begun = nil
	}
	n := copy(p, b.text)
	b.text = b.text[n:]
	if b.text == "" {
		return n, io.EOF
	}
	return n, nil
}

func TestProgramRefusesToStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	running := start(t, func(c *config.Config) { c.Data = filepath.Join(t.TempDir(), "running") })
	_, inUse, _ := strings.Cut(strings.TrimSpace(running.out.String()), "data in ")
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "thesis.txt"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	fresh := filepath.Join(t.TempDir(), "fresh")
	address := taken.Addr().String()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--listen", address, "--admin", "127.0.0.1:0", "--data", fresh}, "the address " + address + " is in use by another program: stop that one, or choose another address with --listen"},
		{[]string{"--listen", "127.0.0.1:0", "--admin", address, "--data", fresh}, "the address " + address + " is in use by another program: stop that one, or choose another address with --admin"},
		{[]string{"--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", inUse}, inUse + " is in use by another process: stop that one or choose another directory"},
		{[]string{"--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", foreign}, foreign + " is not empty and not a Tidewire data directory (it has thesis.txt but no FORMAT): choose an empty directory"},
	} {
		status, out, errs := call(append([]string{"serve"}, c.args...)...)
		if status != 1 || out != "" || errs != "tidewire: "+c.want+"\n" {
			t.Errorf("%q: status %d, output %q, and\n got: %s\nwant: %s", c.args, status, out, errs, c.want)
		}
	}
	if _, err := os.Stat(fresh); !os.IsNotExist(err) {
		t.Error("a refused start has made the data directory")
	}
	if entries, err := os.ReadDir(foreign); err != nil || len(entries) != 1 {
		t.Errorf("a refused start has touched a foreign directory: %v, %v", entries, err)
	}
}

// serveProcess starts a process and returns it with the line that it says at
// its start, and with its standard error.
func serveProcess(t *testing.T) (c *exec.Cmd, line string, errs *bufio.Reader) {
	t.Helper()
	c = program(t, "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", filepath.Join(t.TempDir(), "data"))
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	errs = bufio.NewReader(stderr)
	line, err = bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "Tidewire ") {
		said, _ := io.ReadAll(errs)
		t.Fatalf("it says %q (%v), and %s", line, err, said)
	}
	return c, line, errs
}

func TestProcessEndsOnSignal(t *testing.T) {
	for _, signal := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		c, _, errs := serveProcess(t)
		if err := c.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		said, _ := io.ReadAll(errs)
		if err := c.Wait(); err != nil {
			t.Errorf("after %v it ends with %v: %s", signal, err, said)
		}
	}
}

// While it waits for a client that does not go, a second signal ends it.
func TestProcessEndsAtOnceOnSecondSignal(t *testing.T) {
	c, line, errs := serveProcess(t)
	_, address, _ := strings.Cut(line, "http://")
	address, _, _ = strings.Cut(address, " ")
	client, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	_, _ = fmt.Fprintf(client, "GET /v1/ws HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: tidewire.v1.json\r\n\r\n", address)
	answer := bufio.NewReader(client)
	if status, err := answer.ReadString('\n'); err != nil || !strings.Contains(status, " 101 ") {
		t.Fatalf("%q, %v", status, err)
	}
	// A session that the drain does not find yet would be sent off at once, and the
	// process end by itself; so wait for the welcome.
	const connect = `{"type":"connect"}`
	_, _ = client.Write(append([]byte{0x81, 0x80 | byte(len(connect)), 0, 0, 0, 0}, connect...))
	if _, err := answer.ReadString('}'); err != nil { // the end of its limits
		t.Fatal(err)
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if said, err := errs.ReadString('\n'); err != nil || !strings.Contains(said, "shutting down") {
		t.Fatalf("%q, %v", said, err)
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); c.ProcessState.ExitCode() != 1 {
		t.Errorf("it ended with %v, want status 1", err)
	}
}
