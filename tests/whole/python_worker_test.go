package whole_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Two workers in Python over HTTP share the messages; the broker is killed, one of
// them too. What fails comes again, what is hopeless becomes a dead letter with the
// command's last line as reason, and everything else is done.
func TestPythonWorker(t *testing.T) {
	b := newBroker(t)
	b.env = small
	b.start()
	const jobs = 30
	for n := range jobs {
		b.publish("jobs.files", fmt.Sprint(n))
	}
	dir := t.TempDir()
	// Each tenth fails the first time; 13 and 23 are hopeless.
	command := `n=$(cat); case $n in 13|23) echo "no file $n" >&2; exit 65;; esac
		case $TIDEWIRE_MSG_ATTEMPT.$n in 1.*5) exit 1;; esac; echo done > ` + dir + `/$n`
	start := func() *exec.Cmd {
		cmd, _, _ := pythonExample(t, "worker.py", "--url", "http://"+b.listen, "files", "jobs.>", "--", "sh", "-c", command)
		return cmd
	}
	done := func() int {
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	start()
	first := start()
	within(t, 60*time.Second, "some work is done", func() bool { return done() >= 5 })
	b.kill()
	_ = first.Process.Kill()
	start()
	b.start()
	within(t, 60*time.Second, "everything is done", func() bool { return done() == jobs-2 })
	if _, err := os.Stat(filepath.Join(dir, "13")); err == nil {
		t.Error("what is hopeless was done")
	}

	var dead struct {
		Letters []struct{ Reason, Topic string } `json:"dead"`
	}
	within(t, 20*time.Second, "the dead letters are there", func() bool {
		resp, err := probe.Get("http://" + b.admin + "/v1/consumers/files/dead")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK && json.NewDecoder(resp.Body).Decode(&dead) == nil && len(dead.Letters) == 2
	})
	for _, d := range dead.Letters {
		if d.Topic != "jobs.files" || !strings.HasPrefix(d.Reason, "no file ") {
			t.Errorf("a dead letter %+v", d)
		}
	}
}
