package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	tidewire "github.com/tidewire/tidewire/clients/go"
	"github.com/tidewire/tidewire/config"
	"github.com/tidewire/tidewire/protocol"
)

// onSh skips a test where there is no shell as the tests want it.
func onSh(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the command is a shell script")
	}
}

func aDelivery() *tidewire.Delivery {
	return &tidewire.Delivery{Message: tidewire.Message{
		ID: "order-7", Topic: "orders.eu", Key: "k 1", Payload: []byte("total\n42"), Attempt: 3,
		Position: protocol.Position{Term: 77, Offset: 5},
		Headers:  []tidewire.Header{{Name: "lang", Value: "en"}, {Name: "x-trace.id_2", Value: "a b"}},
	}}
}

// What a command finds, and what its end means.
func TestRunCommand(t *testing.T) {
	onSh(t)
	t.Setenv("TIDEWIRE_MSG_HEADER_OLD", "of a worker around this one")
	long := strings.Repeat("ä", 3000)
	for _, test := range []struct {
		script, out, errs, want string // want is of the error
	}{
		{`cat; echo; env | grep ^TIDEWIRE_MSG_ | sort`, "total\n42\nTIDEWIRE_MSG_ATTEMPT=3\nTIDEWIRE_MSG_HEADER_LANG=en\nTIDEWIRE_MSG_HEADER_X_TRACE_ID_2=a b\nTIDEWIRE_MSG_ID=order-7\nTIDEWIRE_MSG_KEY=k 1\nTIDEWIRE_MSG_POSITION=p25-5\nTIDEWIRE_MSG_TOPIC=orders.eu\n", "", ""},
		{`echo warning >&2`, "", "warning\n", ""},
		{`exit 3`, "", "", "exit status 3"},
		{`kill -TERM $$`, "", "", "signal: terminated"},
		{`echo one >&2; echo two >&2; exit 65`, "", "one\ntwo\n", "rejected: two"},
		{`printf 'one\ntwo\n\n  \n' >&2; exit 65`, "", "one\ntwo\n\n  \n", "rejected: two"},
		{`printf 'one\ntwo' >&2; exit 65`, "", "one\ntwo", "rejected: two"},
		{`exit 65`, "", "", "rejected: exit status 65"},
		{`printf '\377' >&2; exit 65`, "", "\xff", "rejected: \uFFFD"},
		{`sleep 600 & exit 4`, "", "", "exit status 4"}, // which keeps the standard error open
	} {
		var out, errs bytes.Buffer
		w := worker{command: []string{"sh", "-c", test.script}, out: shared(&out), errs: &locked{w: &errs}}
		err := w.runCommand(t.Context(), aDelivery())
		if got := fmt.Sprint(err); got != test.want && (err != nil || test.want != "") {
			t.Errorf("%s: %s", test.script, got)
		}
		_, rejected := errors.AsType[*tidewire.RejectError](err)
		if out.String() != test.out || errs.String() != test.errs || rejected != strings.HasPrefix(test.want, "rejected") {
			t.Errorf("%s: %q, %q", test.script, out.String(), errs.String())
		}
	}
	l := lastLine{w: new(bytes.Buffer)}
	for _, part := range []string{long[:999], long[999:], long + "\n"} {
		_, _ = l.Write([]byte(part))
	}
	if text := l.text(""); !utf8.ValidString(text) || len(text) > maxLastLine+2 || !strings.HasPrefix(text, "ää") {
		t.Errorf("%d bytes: %.20q", len(text), text)
	}
}

// Killing a command kills what it has started.
func TestKillReachesTheGroup(t *testing.T) {
	onSh(t)
	alive := t.TempDir() + "/alive"
	ctx, cancel := context.WithCancel(t.Context())
	w := worker{command: []string{"sh", "-c", "(while :; do touch " + alive + "; sleep 0.01; done) & wait"}, out: new(bytes.Buffer), errs: new(bytes.Buffer)}
	done := make(chan error, 1)
	go func() { done <- w.runCommand(ctx, aDelivery()) }()
	waitForFile(t, alive)
	cancel()
	if err := <-done; !errors.Is(err, errKilled) {
		t.Error(err)
	}
	if err := os.Remove(alive); err != nil {
		t.Fatal(err)
	}
	for tick, n := time.NewTicker(20*time.Millisecond), 0; n < 10; n++ {
		<-tick.C
		if _, err := os.Stat(alive); err == nil {
			t.Fatal("a process of the command lives on")
		}
	}
}

// With --count no more is begun than is wanted, and what fails is made up for.
func TestCountIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, enough := context.WithCancel(t.Context())
		w := worker{count: 3, errs: new(bytes.Buffer), tally: tally{changed: make(chan struct{}), enough: enough}}
		begun, ended := 0, make(chan error)
		for range 8 {
			go func() {
				for w.begin(ctx) {
					w.mu.Lock()
					begun++
					w.mu.Unlock()
					w.end(aDelivery(), <-ended)
				}
			}()
		}
		want := func(n int) {
			t.Helper()
			synctest.Wait()
			w.mu.Lock()
			defer w.mu.Unlock()
			if begun != n {
				t.Fatalf("%d begun, want %d", begun, n)
			}
		}
		want(3)
		ended <- nil
		want(3)
		ended <- errors.New("failed")
		want(4)
		ended <- tidewire.Reject("no")
		want(5)
		ended <- nil
		want(5)
		if ctx.Err() != nil {
			t.Error("it ends too early")
		}
		ended <- nil
		want(5)
		if ctx.Err() == nil {
			t.Error("it does not end")
		}
		if s := w.errs.(*bytes.Buffer).String(); s != "tidewire: orders.eu order-7, attempt 3: failed\ntidewire: orders.eu order-7 is rejected: no\n" {
			t.Errorf("%q", s)
		}
	})
}

func TestWorkCommandLines(t *testing.T) {
	for args, want := range map[string]string{
		"a.> --consumer b":                                   "the command is missing; write it behind --, for example: tidewire work 'orders.>' --consumer billing -- ./charge",
		"a.> --consumer b --":                                "the command is missing; write it behind --, for example: tidewire work 'orders.>' --consumer billing -- ./charge",
		"--consumer b -- cat":                                "write one filter before --, not 0; quote it, or the shell takes it",
		"a b --consumer b -- cat":                            "write one filter before --, not 2; quote it, or the shell takes it",
		"a -- cat":                                           "the name of the consumer is missing; write for example --consumer billing",
		"a..b --consumer b -- cat":                           `the filter "a..b" has an empty token: write one '.' between two tokens and none at the start`,
		"a --consumer b --concurrency 0 -- cat":              "--concurrency 0: give a number above 0",
		"a --consumer b --count -1 -- cat":                   "--count -1: give a number above 0",
		"a --consumer b --from x -- cat":                     `--from: "x" is no start: use new, earliest, last:N, last-per-topic, a duration such as -10m, a time such as 2026-01-02T15:04:05Z, or a position`,
		"a --consumer b --ack-wait 1us -- cat":               "--ack-wait 1µs: give whole milliseconds above 0",
		"a --consumer b -- /nowhere/cat":                     "cannot run /nowhere/cat: no such file or directory",
		"a --consumer b -- tidewire-no-such-command --quiet": "cannot run tidewire-no-such-command: executable file not found in $PATH",
	} {
		status, out, errs := call(append([]string{"work"}, strings.Fields(args)...)...)
		if status != 1 || out != "" || errs != "tidewire: "+want+"\n" {
			t.Errorf("%s: %d, %q\n got %swant %s", args, status, out, errs, want)
		}
	}
}

// The variables of a message are no settings: `tidewire` inside a command works.
func TestMessageVariablesAreNoSettings(t *testing.T) {
	d := aDelivery()
	d.Headers = append(d.Headers, tidewire.Header{Name: "listen", Value: "nonsense"})
	c, err := config.Load(config.Source{Environment: messageEnvironment(d)})
	if err != nil || c.Listen != config.Default().Listen {
		t.Errorf("%v, %v", c, err)
	}
}
