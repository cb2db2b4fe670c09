//go:build unix

package supervisor

import (
	"context"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestObey(t *testing.T) {
	for said, want := range map[string]string{
		"":   "exit",     // the supervisor is dead
		"e":  "end exit", // asked to end, and dead before it has
		"ee": "end exit",
	} {
		var did []string
		obey(strings.NewReader(said), func() { did = append(did, "end") }, func(status int) {
			if status != 1 {
				t.Errorf("exit with %d", status)
			}
			did = append(did, "exit")
		})
		if got := strings.Join(did, " "); got != want {
			t.Errorf("%q: %s, want %s", said, got, want)
		}
	}
}

// A broker that is asked to end has its time.
func TestObeyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		ended, exited := false, false
		go obey(r, func() { ended = true }, func(int) { exited = true })
		time.Sleep(time.Hour)
		synctest.Wait()
		if ended || exited {
			t.Errorf("ended %v, exited %v before it was asked", ended, exited)
		}
		_, _ = w.Write([]byte("e"))
		time.Sleep(time.Hour)
		synctest.Wait()
		if !ended || exited {
			t.Errorf("asked once: ended %v, exited %v", ended, exited)
		}
		_ = w.Close()
		synctest.Wait()
		if !exited {
			t.Error("it lives on without its supervisor")
		}
	})
}

func TestCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		var reports strings.Builder
		l := &Link{reports: &reports}
		var audience atomic.Int64
		go l.Count(ctx, func() int { return int(audience.Load()) })
		for _, n := range []int64{0, 0, 2, 2, 1, 0} {
			audience.Store(n)
			time.Sleep(time.Second)
			synctest.Wait()
		}
		stop()
		synctest.Wait()
		if want := `{"audience":0}|{"audience":2}|{"audience":1}|{"audience":0}|`; strings.ReplaceAll(reports.String(), "\n", "|") != want {
			t.Errorf("it reports %q", reports.String())
		}
	})
}
