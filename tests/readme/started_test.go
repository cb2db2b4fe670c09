package readme

import (
	"encoding/json"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestGettingStarted types the blocks of docs/getting-started.md, in their order,
// and checks what the page says of them.
func TestGettingStarted(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program in a fresh tree and takes ten seconds")
	}
	for _, tool := range []string{"bash", "make", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	for _, address := range []string{"127.0.0.1:7070", "127.0.0.1:7071"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatalf("the page needs %s: %v", address, err)
		}
		_ = l.Close()
	}
	w := &walker{t: t, dir: copyTree(t), sh: strictBash}
	blocks := readBlocks(t, filepath.Join(w.dir, "docs", "getting-started.md"))
	if len(blocks) != 8 {
		t.Fatalf("the page has %d blocks to run, this test knows 8: change both together", len(blocks))
	}
	w.run(blocks[0].text)
	w.start("broker", blocks[1].text)
	w.until("the broker is ready", ready)
	sub := w.start("sub", blocks[2].text)
	w.until("the subscriber is there", func() bool { return subscriptions(t) == "1" })
	w.run(blocks[3].text)
	hellos := []string{"hello from the command line", "hello from curl"}
	w.until("both lines appear", func() bool { return slices.Equal(sub.lines(), hellos) })

	if got := strings.TrimSpace(w.run(blocks[4].text)); got != strings.Join(hellos, "\n") {
		t.Errorf("read from the beginning:\n%s", got)
	}
	if got := w.run(blocks[5].text); !strings.HasSuffix(got, "you were away\n") || strings.Contains(got, "hello") {
		t.Errorf("come back:\n%s", got)
	}
	var first, again answer
	dec := json.NewDecoder(strings.NewReader(w.run(blocks[6].text)))
	if err := dec.Decode(&first); err != nil {
		t.Fatal(err)
	}
	if err := dec.Decode(&again); err != nil {
		t.Fatal(err)
	}
	if first.Duplicate || !again.Duplicate || first.Position != again.Position {
		t.Errorf("published twice: %+v, then %+v", first, again)
	}
	past := w.run(blocks[7].text)
	for _, text := range []string{hellos[0], hellos[1], "you were away", `"next"`, "main"} {
		if !strings.Contains(past, text) {
			t.Errorf("the past lacks %s:\n%s", text, past)
		}
	}
}
