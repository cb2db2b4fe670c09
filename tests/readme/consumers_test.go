package readme

import (
	"strings"
	"testing"
)

// TestConsumersPage types the blocks of docs/consumers.md, in their order, and
// checks what the page says of them.
func TestConsumersPage(t *testing.T) {
	w, blocks := newcomer(t, "docs/consumers.md", 7, "sed")
	w.run("make build")
	w.start("broker", blocks[0].text)
	w.until("the broker is ready", ready)
	has := func(block int, texts ...string) {
		t.Helper()
		out := w.run(blocks[block].text)
		for _, text := range texts {
			if !strings.Contains(out, text) {
				t.Errorf("block %d lacks %q:\n%s", block, text, out)
			}
		}
	}
	has(1, "charge order-1: {\"total\":42}\n", "charge order-2: {\"total\":7}\n")
	if out := w.run(blocks[2].text); !strings.HasSuffix(out, "attempt 2\nattempt 3\n") {
		t.Errorf("retries:\n%s", out)
	}
	has(3, "the order has no total", "forty-two")
	has(4, "order-4 in orders.us, by hand: forty-two\n")
	has(5, "billing  main    orders.>", "max deliver   10\n", "billing   done")
	has(6, `"id":"order-6"`, "{\"settled\":1,\"refused\":[]}\n")
}
