package whole_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A disk has changed a byte of what was stored long ago. The program starts and
// says so, takes and gives messages, and tells each kind of subscriber exactly
// which message is lost; check finds it.
func TestDamagedSegment(t *testing.T) {
	const count, lost = 150, 7
	b := newBroker(t)
	b.env = []string{"TIDEWIRE_STREAMS_MAIN_SEGMENT_BYTES=1MiB"}
	b.start()
	for n := range count {
		b.publish("old", fmt.Sprintf("message %03d %s", n, strings.Repeat("x", 20_000)))
	}
	if code := b.terminate(); code != 0 {
		t.Fatalf("exit status %d", code)
	}
	changeByte(t, filepath.Join(b.dir, "streams", "main", "00000001.seg"), fmt.Sprintf("message %03d", lost))

	check := runToEnd(t, exec.Command(binary, "check", "--deep", "--data", b.dir))
	if where := fmt.Sprintf("offsets %d to %d", lost+1, lost+1); check.code != 1 || strings.Count(check.stdout, "\nproblem: ") != 1 || !strings.Contains(check.stdout, where) {
		t.Errorf("check: status %d, %.400s", check.code, check.stdout)
	}
	b.start()
	b.publish("old", "after the damage")
	b.wantHistory(count, lost)
	b.wantEvents(count, lost)
	resp, err := probe.Get("http://" + b.admin + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if !bytes.Contains(body, []byte(`"degraded"`)) || !bytes.Contains(body, []byte("00000001.seg is damaged")) {
		t.Errorf("readiness: %s", body)
	}
	if n := strings.Count(b.stderr.String(), "a file is damaged"); n != 1 {
		t.Errorf("the log says %d times that a file is damaged", n)
	}
}

// changeByte changes a byte of the text wherever a file has it.
func changeByte(t *testing.T, path, text string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.ReplaceAll(content, []byte(text), []byte("M"+text[1:]))
	if bytes.Equal(changed, content) {
		t.Fatalf("%s does not have %q", path, text)
	}
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		t.Fatal(err)
	}
}

// wantHistory reads everything by pages.
func (b *broker) wantHistory(count, lost int) {
	b.t.Helper()
	var got []string
	for from := "earliest"; ; {
		resp, err := probe.Get("http://" + b.listen + "/v1/topics/old/messages?limit=10&from=" + from)
		if err != nil {
			b.t.Fatal(err)
		}
		var page struct {
			Messages []struct{ Payload string }
			Next     string
			Gap      *told
		}
		err = json.NewDecoder(resp.Body).Decode(&page)
		_ = resp.Body.Close()
		if err != nil {
			b.t.Fatal(err)
		}
		if page.Gap != nil {
			got = append(got, page.Gap.String())
		}
		for _, m := range page.Messages {
			got = append(got, m.Payload[:11])
		}
		if page.Next == from {
			break
		}
		from = page.Next
	}
	b.wantAll("history", got, count, lost)
}

// told is a gap.
type told struct {
	Reason         string
	After, Through int
}

func (g told) String() string { return fmt.Sprintf("%s(%d,%d]", g.Reason, g.After, g.Through) }

// wantEvents reads everything as server-sent events.
func (b *broker) wantEvents(count, lost int) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.listen+"/v1/events?filter=old&from=earliest", nil)
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	var got []string
	for d := newLines(resp.Body); len(got) < count+1; {
		data, ok := strings.CutPrefix(d.next(b.t), "data: ")
		if !ok {
			continue
		}
		var e struct {
			told
			Payload string
		}
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			b.t.Fatal(err)
		}
		if e.Reason != "" {
			got = append(got, e.String())
		} else {
			got = append(got, e.Payload[:11])
		}
	}
	b.wantAll("events", got, count, lost)
}

func (b *broker) wantAll(what string, got []string, count, lost int) {
	b.t.Helper()
	var want []string
	for n := range count {
		if n == lost {
			want = append(want, told{"passed_over", lost, lost + 1}.String())
		} else {
			want = append(want, fmt.Sprintf("message %03d", n))
		}
	}
	want = append(want, "after the d")
	if strings.Join(got, "|") != strings.Join(want, "|") {
		b.t.Errorf("%s: got %q", what, got)
	}
}

// lines are those of a stream.
type lines struct{ *bufio.Reader }

func newLines(r io.Reader) lines { return lines{bufio.NewReader(r)} }

func (l lines) next(t testing.TB) string {
	t.Helper()
	line, err := l.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(line, "\n")
}
