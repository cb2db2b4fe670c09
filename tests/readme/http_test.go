package readme

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// example is a piece of shell in a page, and the answer that is printed below
// it, if there is one.
type example struct {
	text   string
	answer string
}

var examplePattern = regexp.MustCompile("(?s)```sh\n(.*?)```\n(?:\n```(?:json)?\n(.*?)```\n)?")

func readExamples(t *testing.T, path string) (examples []example, answers int) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range examplePattern.FindAllStringSubmatch(string(text), -1) {
		examples = append(examples, example{text: m[1], answer: m[2]})
		if m[2] != "" {
			answers++
		}
	}
	return examples, answers
}

// TestHTTPPage types every example of docs/http.md, in their order, into a POSIX
// shell beside a fresh broker, and compares what comes with what the page shows.
// Only the addresses differ.
func TestHTTPPage(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program and takes ten seconds")
	}
	needs(t, "sh", "curl", "sed")
	examples, answers := readExamples(t, "../../docs/http.md")
	if len(examples) < 15 || answers < 5 {
		t.Fatalf("only %d examples, %d with an answer: are they still found?", len(examples), answers)
	}
	dir, public, admin := t.TempDir(), freeAddress(t), freeAddress(t)
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "tidewire"), "../../cmd/tidewire").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	w := &walker{t: t, dir: dir, sh: []string{"sh", "-c"}, replace: strings.NewReplacer("localhost:7070", public, "localhost:7071", admin)}
	w.start("broker", "exec ./tidewire serve --listen localhost:7070 --admin localhost:7071")
	w.until("the broker is ready", func() bool { return readyAt("http://" + public) })

	var walks [][]string // what the loops over pages print
	for _, e := range examples {
		const timedOut = 28 // of curl
		var allowed []int
		if strings.Contains(e.text, "-N --max-time") {
			allowed = append(allowed, timedOut)
		}
		out := w.run(e.text, allowed...)
		if strings.Contains(out, `"code":`) && !strings.Contains(e.answer, `"code":`) || strings.TrimSpace(out) == "" {
			t.Errorf("the example\n%sprints\n%s", e.text, out)
		}
		if missing := unlike(e.answer, out); missing != "" {
			t.Errorf("the example\n%sprints\n%s\nand nothing like\n%s", e.text, out, missing)
		}
		if strings.Contains(e.text, "while :") {
			walks = append(walks, strings.Split(strings.TrimSpace(out), "\n"))
		}
	}
	if len(walks) != 2 {
		t.Fatalf("%d examples walk over pages, this test knows 2", len(walks))
	}
	slices.Reverse(walks[1])
	if forwards, backwards := walked(t, walks[0]), walked(t, walks[1]); len(forwards) < 3 || !slices.Equal(forwards, backwards) {
		t.Errorf("forwards\n%q\nbackwards\n%q", forwards, backwards)
	}
}

// walked returns the ids on the pages.
func walked(t *testing.T, pages []string) []string {
	t.Helper()
	var ids []string
	for _, text := range pages {
		var page struct{ Messages []struct{ ID string } }
		if err := json.Unmarshal([]byte(text), &page); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		for _, m := range page.Messages {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// unlike returns the first line of an answer that has no line like it, in their
// order, among those that were printed; empty if all have.
func unlike(answer, printed string) string {
	rest := strings.Split(printed, "\n")
	for want := range strings.Lines(answer) {
		want = strings.TrimSpace(want)
		i := slices.IndexFunc(rest, func(line string) bool { return like(want, line) })
		if i < 0 {
			return want
		}
		rest = rest[i+1:]
	}
	return ""
}

var (
	positionPattern = regexp.MustCompile(`\bp[0-9a-z]{2,13}-\d+\b`)
	timePattern     = regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.]+Z`)
)

// like reports whether a line is one that the page shows, but for positions and
// times. Where the page shows a list there may be more of the kind.
func like(want, got string) bool {
	norm := func(s string) string {
		return timePattern.ReplaceAllString(positionPattern.ReplaceAllString(strings.TrimSpace(s), "POSITION"), "TIME")
	}
	want, got = norm(want), norm(got)
	if want == got {
		return true
	}
	var a, b any
	if json.Unmarshal([]byte(strings.TrimPrefix(want, "data: ")), &a) != nil || json.Unmarshal([]byte(strings.TrimPrefix(got, "data: ")), &b) != nil {
		return false
	}
	return alike(a, b)
}

func alike(want, got any) bool {
	switch want := want.(type) {
	case map[string]any:
		other, ok := got.(map[string]any)
		if !ok || len(other) != len(want) {
			return false
		}
		for name, v := range want {
			if has, ok := other[name]; !ok || !alike(v, has) {
				return false
			}
		}
		return true
	case []any:
		other, ok := got.([]any)
		return ok && len(other) >= len(want) && slices.EqualFunc(want, other[:len(want)], alike)
	default:
		return want == got
	}
}

// freeAddress returns an address of this machine that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
