package main

import (
	"strings"
	"testing"

	"github.com/tidewire/tidewire/broker/server"
)

// However few files there are, connections and segments fit into them together,
// and both get some.
func TestFileBudget(t *testing.T) {
	for files := 1; files < 50_000; files += 1 + files/97 {
		b, err := budgetFiles(files, 10_000)
		if err != nil {
			if files > 256 || !strings.Contains(err.Error(), "raise the limit") {
				t.Errorf("%d files: %v", files, err)
			}
			continue
		}
		if all := filesOfProcess + filesOfLog + b.segments + server.FilesFor(b.connections); all > files {
			t.Errorf("%d files: %+v need %d", files, b, all)
		}
		if b.connections < leastClients || b.segments < leastSegments || b.connections > 10_000 || b.segments > mostSegments {
			t.Errorf("%d files: %+v", files, b)
		}
	}
	if b, err := budgetFiles(1<<20, 10_000); err != nil || b != (fileBudget{connections: 10_000, segments: mostSegments}) {
		t.Errorf("with plenty: %+v, %v", b, err)
	}
}
