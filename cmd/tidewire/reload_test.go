//go:build unix

package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hangup is a broker with a configuration file that is changed while it runs.
type hangup struct {
	t     *testing.T
	file  string
	data  string
	base  string
	admin string
	errs  *bufio.Reader
	ask   func() // sends SIGHUP
	end   func() // sends SIGTERM and waits
}

func startHangup(t *testing.T, text string) *hangup {
	t.Helper()
	h := &hangup{t: t, file: filepath.Join(t.TempDir(), "tidewire.yaml"), data: filepath.Join(t.TempDir(), "data")}
	h.start(text)
	return h
}

// start starts the broker with a configuration, again if it has ended.
func (h *hangup) start(text string) {
	t := h.t
	t.Helper()
	h.write(text)
	c := program(t, "serve", "--config", h.file, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // without the terminal of whoever runs the test
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
	h.errs = bufio.NewReader(stderr)
	h.ask = func() {
		if err := c.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	h.end = func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		if err := c.Wait(); err != nil {
			t.Errorf("it ended with %v", err)
		}
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		said, _ := io.ReadAll(h.errs)
		t.Fatalf("%q, %v: %s", line, err, said)
	}
	_, h.base, _ = strings.Cut(line, "listens on ")
	h.base, h.admin, _ = strings.Cut(h.base, " ")
	_, h.admin, _ = strings.Cut(h.admin, "admin ")
	h.admin, _, _ = strings.Cut(h.admin, ",")
}

func (h *hangup) write(text string) {
	h.t.Helper()
	if err := os.WriteFile(h.file, []byte("data: "+h.data+"\nshutdown: {drain: 1s}\n"+text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// reload puts another file in place and returns what the broker logs about it:
// so many lines.
func (h *hangup) reload(text string, lines int) string {
	h.t.Helper()
	h.write(text)
	h.ask()
	var all strings.Builder
	for range lines {
		line, err := h.errs.ReadString('\n')
		if err != nil {
			h.t.Fatal(err)
		}
		all.WriteString(line)
	}
	return all.String()
}

// post publishes with a key and returns the status.
func (h *hangup) post(key string, size int) int {
	h.t.Helper()
	request, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, h.base+"/v1/topics/t/messages", strings.NewReader(strings.Repeat("x", size)))
	if err != nil {
		h.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+key)
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		h.t.Fatal(err)
	}
	_ = response.Body.Close()
	return response.StatusCode
}

func (h *hangup) want(what string, got, want int) {
	h.t.Helper()
	if got != want {
		h.t.Errorf("%s: status %d, want %d", what, got, want)
	}
}

// TestHangupReloads: the program itself, told by SIGHUP, takes what it can
// change, says what it cannot, and is not moved by a file with a mistake.
func TestHangupReloads(t *testing.T) {
	const one, two = "twk_0123456789abcdefghij-one", "twk_0123456789abcdefghij-two"
	keys := func(list ...string) string {
		text := "auth:\n  api_keys:\n"
		for i, key := range list {
			text += fmt.Sprintf("    - {name: k%d, key: %s, publish: ['>']}\n", i, key)
		}
		return text
	}
	h := startHangup(t, keys(one))
	defer h.end()
	h.want("at the start", h.post(one, 100), 200)
	h.want("a key that is not there", h.post(two, 100), 401)

	said := h.reload(keys(one, two)+"limits: {payload_bytes: 50, rates: {publish: 1000}}\nlog: {level: debug}\n", 1)
	for _, part := range []string{"level=INFO", "was reloaded", `changed="auth.api_keys, limits.payload_bytes, limits.rates.publish, log.level"`} {
		if !strings.Contains(said, part) {
			t.Errorf("it does not say %s: %s", part, said)
		}
	}
	if strings.Contains(said, "twk_") {
		t.Errorf("it shows a key: %s", said)
	}
	h.want("the new key", h.post(two, 10), 200)
	h.want("a payload over the new limit", h.post(one, 100), 413)

	for text, mistake := range map[string]string{
		keys(two) + "limits: {payload_byts: 5}\n":  "did you mean",
		keys(two) + "limits: {connections: 0}\n":   "limits.connections is 0",
		keys(two) + "limits: [\n":                  "not YAML",
		"auth: {jwt: {secret_file: /not/there}}\n": "cannot be read",
	} {
		said := h.reload(text, 1)
		if !strings.Contains(said, "was not reloaded, everything stays as it is") || !strings.Contains(said, mistake) {
			t.Errorf("with %q it says: %s", text, said)
		}
		_, _, checked := call("config", "check", "--config", h.file)
		sentence := strings.TrimSuffix(strings.TrimPrefix(checked, "tidewire: "), "\n")
		if !strings.Contains(said, sentence) && !strings.Contains(said, strings.ReplaceAll(sentence, `"`, `\"`)) {
			t.Errorf("config check says %q, the log %s", sentence, said)
		}
		h.want("after a mistake", h.post(one, 10), 200)
	}

	said = h.reload(keys(two)+"streams: {main: {retention_age: 1d}}\nlog: {format: json}\n", 2)
	for _, part := range []string{`changed="auth.api_keys, limits.payload_bytes, limits.rates.publish, log.level"`, "level=WARN", `kept="streams.main.retention_age, log.format"`} {
		if !strings.Contains(said, part) {
			t.Errorf("it does not say %s: %s", part, said)
		}
	}
	h.want("the key that has gone", h.post(one, 10), 401)
	h.want("the limit is the default again", h.post(two, 100), 200)
	if said := h.reload(keys(two)+"streams: {main: {retention_age: 1d}}\nlog: {format: json}\n", 2); !strings.Contains(said, "changed=nothing") {
		t.Errorf("without a change it says: %s", said)
	}
}
