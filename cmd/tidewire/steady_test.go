package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestSteady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text := strings.Repeat("x", 10<<20)
		ctx, cancel := context.WithCancel(t.Context())
		for rate, want := range map[int64]time.Duration{1 << 20: 10 * time.Second, 0: 0} {
			begun := time.Now()
			n, err := io.Copy(io.Discard, struct{ io.Reader }{&steady{ctx: ctx, r: strings.NewReader(text), rate: rate}})
			took := time.Since(begun)
			if n != int64(len(text)) || err != nil || took < want-100*time.Millisecond || took > want+100*time.Millisecond {
				t.Errorf("rate %d: %d bytes in %v, %v", rate, n, took, err)
			}
		}
		cancel()
		if _, err := io.Copy(io.Discard, &steady{ctx: ctx, r: strings.NewReader(text), rate: 1}); !errors.Is(err, context.Canceled) {
			t.Errorf("interrupted: %v", err)
		}
	})
}
