//go:build unix

package whole_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// refused checks that the program ends at once with status 1 and one sentence
// that has all of the words, and leaves the directory as it was.
func refused(t *testing.T, b *broker, cmd *exec.Cmd, words ...string) {
	t.Helper()
	before := tree(t, b.dir)
	timer := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	r := runToEnd(t, cmd)
	if r.code != 1 {
		t.Errorf("exit status %d, want 1", r.code)
	}
	if r.stdout != "" {
		t.Errorf("it wrote to stdout: %s", r.stdout)
	}
	line, more, _ := strings.Cut(r.stderr, "\n")
	if !strings.HasPrefix(line, "tidewire: ") || more != "" || len(line) > 400 {
		t.Errorf("stderr is not one sentence: %q", r.stderr)
	}
	for _, word := range words {
		if !strings.Contains(line, word) {
			t.Errorf("the sentence does not say %q: %s", word, line)
		}
	}
	if after := tree(t, b.dir); after != before {
		t.Errorf("it touched the directory:\n%s\nbecame\n%s", before, after)
	}
	t.Log(line)
}

// tree describes what is at a path: names, sizes, times and contents.
func tree(t *testing.T, path string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %v %d %v", name, info.Mode(), info.Size(), info.ModTime())
		if info.Mode().IsRegular() {
			text, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %x", sha256.Sum256(text))
		}
		b.WriteByte('\n')
		return nil
	})
	if os.IsNotExist(err) {
		return "nothing"
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestForeignDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	write(t, filepath.Join(b.dir, "holiday.jpg"), "not a log")
	refused(t, b, b.command(t.Context()), b.dir)
}

func TestSecondProcessOnADirectoryIsRefused(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	b.start()
	b.publish("room.1", "before")
	second := newBroker(t)
	second.dir = b.dir
	refused(t, second, second.command(t.Context()), b.dir)
	b.publish("room.1", "after")
}

func TestFileInPlaceOfTheDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	write(t, b.dir, "a file")
	refused(t, b, b.command(t.Context()), b.dir)
}

// Root may write anywhere, so as root the program runs as somebody else.
func TestUnwritableDirectoryIsRefused(t *testing.T) {
	for _, test := range []struct {
		name string
		make bool // the directory is there, and not only its parent
	}{{"directory", true}, {"parent", false}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := newBroker(t)
			parent := filepath.Dir(b.dir)
			locked := parent
			if test.make {
				locked = b.dir
				if err := os.Mkdir(b.dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(locked, 0o555); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.Chmod(locked, 0o755) }) // so that it can be removed
			cmd := b.command(t.Context())
			if os.Geteuid() == 0 {
				const nobody = 65534
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
				if err := os.Chmod(filepath.Dir(parent), 0o755); err != nil { // let it come this far
					t.Fatal(err)
				}
			}
			refused(t, b, cmd, b.dir)
		})
	}
}

func TestPortInUseIsRefused(t *testing.T) {
	for _, which := range []string{"listen", "admin"} {
		t.Run(which, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			b, address := newBroker(t), l.Addr().String()
			*map[string]*string{"listen": &b.listen, "admin": &b.admin}[which] = address
			refused(t, b, b.command(t.Context()), address, "--"+which)
		})
	}
}

func TestUnknownConfigKeyIsRefused(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	file := filepath.Join(t.TempDir(), "tidewire.yaml")
	write(t, file, "lisen: 127.0.0.1:7070\n")
	refused(t, b, b.command(t.Context(), "--config", file), filepath.Base(file), "lisen")
}

func TestUnknownVariableIsRefused(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	b.env = []string{"TIDEWIRE_LISTN=127.0.0.1:7070"}
	refused(t, b, b.command(t.Context()), "TIDEWIRE_LISTN")
}

func TestOpenAddressWithoutAuthenticationIsRefused(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	_, port, err := net.SplitHostPort(b.listen)
	if err != nil {
		t.Fatal(err)
	}
	b.listen = "0.0.0.0:" + port
	refused(t, b, b.command(t.Context()), b.listen, "auth")
}
