package disk_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidewire/tidewire/tests/judge"
)

// brokerDir is where the program is built, if it is. TestMain removes it.
var brokerDir string

// buildBroker builds the program, once.
var buildBroker = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tidewire-disk-")
	if err != nil {
		return "", err
	}
	brokerDir = dir
	path := filepath.Join(dir, "tidewire")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/tidewire/tidewire/cmd/tidewire").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return path, nil
})

// station is a broker on a device, over its lives.
type station struct {
	*machine
	rng     *rand.Rand
	program string
	listen  string
	admin   string
	errs    strings.Builder
	cmd     *exec.Cmd
	ended   chan struct{}
	lie     func() // called when the broker is ready
}

func newStation(t *testing.T, seed uint64) *station {
	t.Helper()
	s := &station{machine: newMachine(t, seed), rng: rand.New(rand.NewPCG(seed, 2)), lie: func() {}}
	var err error
	s.program, err = buildBroker()
	must(t, err)
	s.listen, s.admin = freeAddress(t), freeAddress(t)
	t.Cleanup(s.off)
	return s
}

// freeAddress returns an address on which nobody listens, below the range from
// which outgoing connections take theirs.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 1000 {
		address := fmt.Sprintf("127.0.0.1:%d", 12000+rand.IntN(18000))
		if l, err := net.Listen("tcp", address); err == nil {
			_ = l.Close()
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}

// on starts the broker and returns when it is ready.
func (s *station) on() error {
	s.cmd = exec.Command(s.program, "serve", "--data", filepath.Join(s.dir, "data"), "--listen", s.listen, "--admin", s.admin)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "TIDEWIRE_") {
			s.cmd.Env = append(s.cmd.Env, v)
		}
	}
	s.cmd.Env = append(s.cmd.Env,
		"TIDEWIRE_STREAMS_MAIN_SEGMENT_BYTES=1MiB", "TIDEWIRE_STREAMS_MAIN_WINDOW_BYTES=1MiB",
		"TIDEWIRE_AUTH_ANONYMOUS_PUBLISH=>", "TIDEWIRE_AUTH_ANONYMOUS_CONSUME=>", "TIDEWIRE_AUTH_ANONYMOUS_SUBSCRIBE=>,$dead.>",
	)
	s.cmd.Stderr = &s.errs
	if err := s.cmd.Start(); err != nil {
		return err
	}
	ended, cmd := make(chan struct{}), s.cmd
	s.ended = ended
	go func() {
		_ = cmd.Wait() // whoever ended it knows
		close(ended)
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for {
		resp, err := http.Get("http://" + s.listen + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				s.lie()
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ended:
			return fmt.Errorf("the broker ended at its start: %s", s.errs.String())
		case <-late:
			return errors.New("the broker is not ready")
		}
	}
}

// off kills the broker, if it runs.
func (s *station) off() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may have ended by itself
	s.Release()
	<-s.ended
	s.cmd = nil
}

// work has members of consumers do their work through some power cuts, and
// returns what the judge says.
func (s *station) work(t *testing.T, cuts int) (*judge.Report, error) {
	t.Helper()
	must(t, s.on())
	plan := judge.Plan{
		URLs: []string{"ws://" + s.listen}, Dir: filepath.Join(t.TempDir(), "run"), Seed: s.rng.Uint64(),
		Publishers: 2, Topics: 6, Keys: 100, PayloadBytes: 300, Rate: 300, Subscribers: 1,
		Consumers: []judge.Consumer{
			{Name: "shared", Members: 3, Fetchers: 1},
			{Name: "exclusive", Members: 2, Exclusive: true},
		},
		Tuning: judge.Tuning{LeaveEvery: 2 * time.Second, Patience: 15 * time.Second},
	}
	l, err := judge.Start(t.Context(), plan)
	must(t, err)
	over, end := context.WithCancel(t.Context())
	end()
	ended := false
	defer func() {
		if !ended { // nobody may write into the directory of a test that has failed
			_ = l.Wait(over)
		}
	}()
	for range cuts {
		answered, received := l.Answered(), l.Received()
		at := time.After(time.Duration(s.rng.IntN(1000)) * time.Millisecond)
		tick := time.NewTicker(5 * time.Millisecond)
		for deadline := time.After(patience); l.Answered() == answered || l.Received() == received; {
			select {
			case <-tick.C:
			case <-deadline:
				return nil, errors.New("the load does not go on")
			}
		}
		tick.Stop()
		<-at
		reached := s.StopAfter(1 + s.rng.IntN(300))
		select {
		case <-reached:
		case <-time.After(patience):
			return nil, errors.New("nothing is written any more")
		}
		l.Crash(s.off)
		s.powerCut()
		if err := s.on(); err != nil {
			return nil, err
		}
	}
	l.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ended = true
	if err := l.Wait(ctx); err != nil {
		return nil, err
	}
	return judge.Verdict(plan.Dir)
}

// TestPowerCutOfConsumers cuts the power while members of consumers work: no
// acknowledgement that was confirmed is undone, and each message ends as
// acknowledged or as a dead letter.
func TestPowerCutOfConsumers(t *testing.T) {
	cuts := 12
	if testing.Short() {
		cuts = 2
	}
	end := time.Now().Add(soak(t))
	rng := rand.New(rand.NewPCG(seed(t), 0))
	for first := true; first || time.Now().Before(end); first = false {
		s := newStation(t, rng.Uint64())
		r, err := s.work(t, cuts)
		if err == nil {
			err = r.Err()
		}
		if err != nil {
			t.Fatalf("%v\nthe broker wrote:\n%.4000s", err, s.errs.String())
		}
		t.Logf("%+v", r.Work)
		s.off()
		s.unmount()
	}
}

// TestPowerCutOfConsumersWithoutSync is the proof that it would be noticed: on a
// disk that only pretends to sync files something is undone, or nothing can be
// read at all.
func TestPowerCutOfConsumersWithoutSync(t *testing.T) {
	rng := rand.New(rand.NewPCG(seed(t), 0))
	for range 5 {
		s := newStation(t, rng.Uint64())
		s.lie = func() { s.Lie(true, false) }
		r, err := s.work(t, 3)
		if err == nil {
			err = r.Err()
		}
		s.off()
		s.unmount()
		if err != nil {
			t.Logf("noticed: %.300v", err)
			return
		}
	}
	t.Error("15 power cuts on a disk that lies, and nothing was noticed")
}
