package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	tidewire "github.com/tidewire/tidewire/clients/go"
)

const (
	// rejects is the exit status that makes a message a dead letter: EX_DATAERR of
	// sysexits.h.
	rejects = 65

	// outputTime is how long to read what processes write that a command has left
	// behind.
	outputTime = time.Second

	messageVariable = "TIDEWIRE_MSG_"
)

// runCommand runs the command with one message. The error says what becomes of the
// message.
func (w *worker) runCommand(ctx context.Context, d *tidewire.Delivery) error {
	said := &lastLine{w: w.errs}
	c := exec.CommandContext(ctx, w.command[0], w.command[1:]...)
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(d.Payload), w.out, said
	c.Env = append(outerEnvironment(), messageEnvironment(d)...)
	c.WaitDelay = outputTime
	ownGroup(c)
	err := c.Run()
	switch status := c.ProcessState; {
	case status == nil && ctx.Err() == nil:
		return fmt.Errorf("cannot run %s: %s", w.command[0], commandProblem(err))
	case status == nil:
		return errKilled
	case status.Success():
		return nil
	case status.ExitCode() == rejects:
		return tidewire.Reject(said.text(status.String()))
	case ctx.Err() != nil:
		return errKilled
	default:
		return errors.New(status.String())
	}
}

var errKilled = errors.New("killed")

// outerEnvironment is that of this process, without what another one has said of
// another message.
func outerEnvironment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, messageVariable) })
}

// messageEnvironment tells a command of its message.
func messageEnvironment(d *tidewire.Delivery) []string {
	env := []string{
		messageVariable + "ID=" + d.ID,
		messageVariable + "TOPIC=" + d.Topic,
		messageVariable + "KEY=" + d.Key,
		messageVariable + "POSITION=" + d.Position.String(),
		messageVariable + "ATTEMPT=" + strconv.FormatUint(uint64(d.Attempt), 10),
	}
	for _, h := range d.Headers {
		env = append(env, messageVariable+"HEADER_"+variableName(h.Name)+"="+h.Value)
	}
	return env
}

// variableName makes a name of a variable of that of a header.
func variableName(header string) string {
	return strings.Map(func(r rune) rune {
		if (r >= 'A' && r <= 'Z') || (r >= '0' && r <= '9') {
			return r
		}
		return '_'
	}, strings.ToUpper(header))
}

// lastLine passes on what is written, and keeps the last line that is not empty, or
// rather its beginning.
type lastLine struct {
	w             io.Writer
	current, last []byte
}

const maxLastLine = 4096

func (l *lastLine) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		l.current = append(l.current, line[:min(len(line), maxLastLine-len(l.current))]...)
		if whole && len(bytes.TrimSpace(l.current)) > 0 {
			l.last = append(l.last[:0], l.current...)
		}
		if whole {
			l.current = l.current[:0]
		}
		rest = after
	}
	return l.w.Write(b)
}

// text returns the last line, or what to say if there is none.
func (l *lastLine) text(otherwise string) string {
	for _, line := range [][]byte{l.current, l.last} {
		if text := strings.TrimSpace(strings.ToValidUTF8(string(line), "\uFFFD")); text != "" {
			return text
		}
	}
	return otherwise
}

// locked is a writer that many may use.
type locked struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// shared makes a writer that many commands may use. A file they use themselves.
func shared(w io.Writer) io.Writer {
	if f, ok := w.(*os.File); ok {
		return f
	}
	return &locked{w: w}
}
