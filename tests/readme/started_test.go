package readme

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// TestGettingStarted types the blocks of docs/getting-started.md, in their order,
// and checks what the page says of them.
func TestGettingStarted(t *testing.T) {
	w, blocks := newcomer(t, "docs/getting-started.md", 8)
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
