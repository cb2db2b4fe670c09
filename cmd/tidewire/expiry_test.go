package main

import (
	"context"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	tidewire "github.com/tidewire/tidewire/clients/go"
	"github.com/tidewire/tidewire/config"
)

// tokenFor signs a token for a broker of guardedProgram.
func tokenFor(t *testing.T, subject string, ttl time.Duration) string {
	t.Helper()
	r := tokenRequest{subject: subject, publish: []string{">"}, subscribe: []string{">"}, ttl: "1h"}
	token, err := r.sign(&config.JWT{Secret: secret}, time.Now().Add(ttl-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func guardedProgram(t *testing.T) *started {
	return start(t, func(c *config.Config) { c.Auth.JWT.Secret, c.Auth.JWT.Leeway = secret, 0 })
}

// TestExpiredTokenEndsCommands: pub and sub have one token. When it has expired
// they end with status 1 and a sentence, and do not come back for ever.
func TestExpiredTokenEndsCommands(t *testing.T) {
	s := guardedProgram(t)
	const want = "the token has expired, and the broker lets nobody in with it; give a new one with --token or TIDEWIRE_TOKEN"
	old := tokenFor(t, "ann", -time.Minute)
	for _, args := range [][]string{{"sub", "a"}, {"pub", "a", "x"}, {"pub", "a", "--lines"}} {
		if _, _, err := s.client(t.Context(), strings.NewReader(""), append(args, "--token", old)...); err == nil || err.Error() != want {
			t.Errorf("%q: %v", args, err)
		}
	}
	token := tokenFor(t, "ann", 3*time.Second) // exp is in whole seconds
	input, hold := io.Pipe()
	defer func() { _ = hold.Close() }()
	piped := make(chan error, 1)
	go func() {
		_, _, err := s.client(t.Context(), input, "pub", "a", "--lines", "--token", token)
		piped <- err
	}()
	sub := program(t, "sub", "a", "--server", s.public, "--token", token)
	said := new(strings.Builder)
	sub.Stderr = said
	begun := time.Now()
	_ = sub.Run()
	if status := sub.ProcessState.ExitCode(); status != 1 || said.String() != "tidewire: "+want+"\n" {
		t.Errorf("sub ends with %d: %s", status, said)
	}
	if d := time.Since(begun); d < time.Second {
		t.Errorf("sub ended after %v", d)
	}
	// pub ends although its input does not, and nothing comes.
	if err := <-piped; err == nil || err.Error() != "0 lines were stored, then: "+want {
		t.Errorf("pub: %v", err)
	}
}

// TestSessionOutlivesItsToken: with a source of tokens a session goes on over the
// end of several of them, on one connection, against the real broker.
func TestSessionOutlivesItsToken(t *testing.T) {
	s := guardedProgram(t)
	var asked, opened atomic.Int32
	c, err := tidewire.Connect(t.Context(), tidewire.Options{
		URLs:  []string{s.public},
		Token: func(context.Context) (string, error) { asked.Add(1); return tokenFor(t, "ann", 4*time.Second), nil },
		OnState: func(state tidewire.State, _ error) {
			if state == tidewire.StateOpen {
				opened.Add(1)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.WithoutCancel(t.Context())) }()
	for tick := time.NewTicker(50 * time.Millisecond); asked.Load() < 4; <-tick.C {
		if _, err := c.Publish(t.Context(), tidewire.Message{Topic: "a", Payload: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections for %d tokens", n, asked.Load())
	}
}
