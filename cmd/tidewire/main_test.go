package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/tidewire/tidewire/config"
)

var update = flag.Bool("update", false, "write testdata/help.txt anew")

// asProgram makes the test binary behave as the program, for tests that need a
// process.
const asProgram = "TIDEWIRE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	cobra.EnableCommandSorting = false // as main does
	if os.Getenv(asProgram) != "" {
		os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "TIDEWIRE_") {
			_ = os.Unsetenv(name)
		}
	}
	os.Exit(m.Run())
}

// program returns the program as a process that is not started.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self, args...)
	c.Env = append(os.Environ(), asProgram+"=1")
	return c
}

// call runs a command in this process.
func call(args ...string) (status int, out, errs string) {
	var o, e bytes.Buffer
	status = run(args, strings.NewReader(""), &o, &e)
	return status, o.String(), e.String()
}

func TestHelpIsReadable(t *testing.T) {
	var all strings.Builder
	for _, args := range [][]string{{}, {"serve"}, {"config"}, {"config", "check"}, {"config", "print"}, {"backup"}, {"restore"}, {"check"}, {"doctor"}, {"streams"}, {"streams", "list"}, {"streams", "info"}, {"streams", "purge"}, {"topics"}, {"consumers"}, {"consumers", "list"}, {"consumers", "show"}, {"consumers", "create"}, {"consumers", "pause"}, {"consumers", "resume"}, {"consumers", "seek"}, {"consumers", "delete"}, {"dead"}, {"dead", "list"}, {"dead", "show"}, {"dead", "redrive"}, {"dead", "purge"}, {"message"}, {"work"}, {"token"}, {"version"}} {
		args = append(args, "--help")
		status, out, errs := call(args...)
		if status != 0 || errs != "" {
			t.Errorf("%q ends with %d and says %q", args, status, errs)
		}
		all.WriteString("$ tidewire " + strings.Join(args, " ") + "\n" + out + "\n")
	}
	for i, line := range strings.Split(all.String(), "\n") {
		if len(line) > 100 {
			t.Errorf("line %d is %d characters wide: %s", i+1, len(line), line)
		}
	}
	golden := filepath.Join("testdata", "help.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(all.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if all.String() != string(want) {
		t.Errorf("the help is not that of %s; read it, then run go test ./cmd/tidewire -update. It is\n%s", golden, all.String())
	}
}

func TestBadCommandLines(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"srve"}, `unknown command "srve" for "tidewire"; did you mean serve?`},
		{[]string{"xyzzy"}, `unknown command "xyzzy" for "tidewire"`},
		{[]string{"serve", "--foo"}, "unknown flag: --foo; `tidewire serve --help` lists what there is"},
		{[]string{"serve", "x"}, "tidewire serve takes no arguments, but \"x\" was given; `tidewire serve --help` lists its flags"},
		{[]string{"config", "prnt"}, `unknown command "prnt" for "tidewire config"; there is check and print`},
		{[]string{"config", "print", "--config", "/nowhere/tidewire.yaml"}, "the configuration file /nowhere/tidewire.yaml cannot be read: no such file or directory"},
		{[]string{"serve", "--listen", "0.0.0.0:0"}, "listen: 0.0.0.0:0 can be reached from other machines, but nothing says who may do what; set auth.api_keys or auth.jwt.secret, or use an address of this machine alone, such as 127.0.0.1:0"},
		{[]string{"serve", "--data", ""}, "data is empty; write the directory for the messages, such as ./tidewire-data"},
	} {
		status, out, errs := call(c.args...)
		if status != 1 || out != "" || errs != "tidewire: "+c.want+"\n" {
			t.Errorf("%q: status %d, output %q, and\n got: %s\nwant: %s", c.args, status, out, errs, c.want)
		}
	}
}

func TestConfigCommands(t *testing.T) {
	name := filepath.Join(t.TempDir(), "tidewire.yaml")
	text := "listen: 127.0.0.1:9999\nauth: {jwt: {secret: " + secret + "}}\n"
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, out, errs := call("config", "check", "--config", name); status != 0 || out != "OK\n" || errs != "" {
		t.Errorf("check: status %d, %q, %q", status, out, errs)
	}
	t.Setenv("TIDEWIRE_ADMIN", "127.0.0.1:9998")
	status, out, errs := call("config", "print", "--config", name)
	if status != 0 || errs != "" || strings.Contains(out, secret) {
		t.Errorf("print: status %d, %q, %q", status, out, errs)
	}
	for _, line := range []string{"listen: 127.0.0.1:9999\n", "admin: 127.0.0.1:9998\n", "    secret: (set)\n"} {
		if !strings.Contains(out, line) {
			t.Errorf("%q is missing in\n%s", line, out)
		}
	}
	t.Setenv("TIDEWIRE_LISTN", "x")
	if status, _, errs := call("config", "check"); status != 1 || errs != "tidewire: there is no variable TIDEWIRE_LISTN; did you mean TIDEWIRE_LISTEN?\n" {
		t.Errorf("check: status %d, %q", status, errs)
	}
}

func TestVersion(t *testing.T) {
	status, out, _ := call("version")
	if status != 0 || !strings.HasPrefix(out, "tidewire ") || strings.Count(out, "\n") != 1 {
		t.Errorf("status %d, %q", status, out)
	}
	status, out, _ = call("version", "--json")
	var v versionInfo
	if err := json.Unmarshal([]byte(out), &v); err != nil || status != 0 || v.Version == "" || v.Go == "" || len(v.Protocols) != 2 {
		t.Errorf("status %d, %q: %v", status, out, err)
	}
}

// loaded returns the settings that a file has.
func loaded(t *testing.T, text string) *config.Config {
	t.Helper()
	name := filepath.Join(t.TempDir(), "tidewire.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(config.Source{File: name})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
