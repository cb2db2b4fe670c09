package readme

import (
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidewire/tidewire/tests/kafka/kafkatest"
)

// TestManyNodes is the section of that name of README.md.
func TestManyNodes(t *testing.T) {
	kafkatest.Need(t)
	addresses := []string{"127.0.0.1:7072", "127.0.0.1:7073", "127.0.0.1:7171", "127.0.0.1:7172", "127.0.0.1:7173", "127.0.0.1:9092"}
	for _, address := range addresses {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatalf("the section is tried as it stands, on %s, and something listens there: %v", address, err)
		}
		_ = l.Close()
	}
	w, blocks := newcomer(t, "README.md", readmeBlocks)
	blocks = blocks[walkBlocks:]
	cluster := w.start("cluster", blocks[0].text)
	w.until("the cluster is ready", func() bool { return slices.Contains(cluster.lines(), "Ctrl-C ends everything.") })
	sub := w.start("sub", blocks[1].text)
	w.until("the subscriber is there", func() bool { return len(strings.TrimSpace(subscribers(w))) > 0 })
	w.run(blocks[2].text)
	want := []string{"hello from curl", "hello from Kafka"}
	w.until("both lines appear", func() bool { return slices.Equal(sub.lines(), want) })

	began := time.Now()
	status := w.run(blocks[3].text)
	want = append(want, "hello after the kill")
	w.until("the subscriber goes on", func() bool { return len(sub.lines()) >= len(want) })
	t.Logf("kill, publish and delivery took %v, with the status of the cluster", time.Since(began))
	if got := sub.lines(); !slices.Equal(got, want) {
		t.Errorf("the subscriber has\n%s", strings.Join(got, "\n"))
	}
	if !strings.Contains(status, "NODE") {
		t.Errorf("kafka status prints\n%s", status)
	}
	if !slices.ContainsFunc(cluster.lines(), func(l string) bool { return strings.Contains(l, "has ended (signal: killed)") }) {
		t.Errorf("no broker was killed:\n%s", strings.Join(cluster.lines(), "\n"))
	}

	_ = syscall.Kill(-cluster.cmd.Process.Pid, syscall.SIGINT) // Ctrl-C
	w.until("everything has ended", func() bool {
		select {
		case <-cluster.done:
			return true
		default:
			return false
		}
	})
	for _, address := range addresses {
		if conn, err := net.Dial("tcp", address); err == nil {
			_ = conn.Close()
			t.Errorf("after Ctrl-C somebody still listens on %s", address)
		}
	}
}

// subscribers names the brokers that have a session.
func subscribers(w *walker) string {
	return w.run(`for n in 1 2 3; do curl -s http://127.0.0.1:717$n/metrics | grep "^tidewire_sessions 1\$" >/dev/null && echo $n; done; true`)
}
