package server_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/server"
	"github.com/tidewire/tidewire/storage"
)

// backupEdge is the admin listener of a broker whose backups are what the test
// says.
func backupEdge(t *testing.T, produce func(context.Context, io.Writer) error) (*edge, *pipeListener) {
	t.Helper()
	e := newEdge(t, server.Options{Backup: func(ctx context.Context, w io.Writer) (storage.Manifest, error) {
		return storage.Manifest{}, produce(ctx, w)
	}}, broker.Options{})
	l := newPipeListener()
	h := e.server.HTTP(e.server.Admin())
	ended := runAside(func() { _ = h.Serve(l) })
	t.Cleanup(func() {
		_ = h.Close()
		<-ended
	})
	return e, l
}

func runAside(fn func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	return done
}

// ask asks for a backup, and leaves the answer to the caller.
func askBackup(t *testing.T, l *pipeListener, method string) *http.Response {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return l.dial() }}}
	request, err := http.NewRequestWithContext(t.Context(), method, "http://localhost/v1/backup", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

// TestBackupIsForOperators: the public listener knows no backup, and what a page
// could cause makes none.
func TestBackupIsForOperators(t *testing.T) {
	e, l := backupEdge(t, func(context.Context, io.Writer) error {
		t.Error("a backup is made")
		return nil
	})
	out := httptest.NewRecorder()
	e.server.Public().ServeHTTP(out, httptest.NewRequest(http.MethodPost, "http://localhost/v1/backup", nil))
	if out.Code != http.StatusNotFound {
		t.Errorf("public: %d", out.Code)
	}
	page := httptest.NewRequest(http.MethodPost, "http://localhost/v1/backup", nil)
	page.Header.Set("Origin", "http://localhost:3000")
	out = httptest.NewRecorder()
	e.server.Admin().ServeHTTP(out, page)
	if out.Code != http.StatusForbidden {
		t.Errorf("from a page: %d", out.Code)
	}
	if r := askBackup(t, l, http.MethodGet); r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %s", r.Status)
	}
}

// TestBackupThatFails: before its first byte it is a refusal, after it the reason
// follows behind.
func TestBackupThatFails(t *testing.T) {
	for _, c := range []struct {
		before string
		err    error
		status int
		body   string
	}{
		{"", storage.ErrBackupRuns, 503, `"code":"overloaded"`},
		{"", io.ErrNoProgress, 500, `"detail":"multiple Read calls`},
		{"half", io.ErrNoProgress, 200, "half"},
	} {
		_, l := backupEdge(t, func(_ context.Context, w io.Writer) error {
			if c.before != "" {
				_, _ = io.WriteString(w, c.before)
			}
			return c.err
		})
		r := askBackup(t, l, http.MethodPost)
		body, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != c.status || !strings.Contains(string(body), c.body) {
			t.Errorf("%s %s, %v", r.Status, body, err)
		}
		if said := r.Trailer.Get("Tidewire-Error"); (said == c.err.Error()) != (c.before != "") {
			t.Errorf("the trailer says %q", said)
		}
	}
}

// TestBackupThatNobodyReads ends after the write timeout, and one that is read
// slowly does not.
func TestBackupThatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan time.Time, 1)
		_, l := backupEdge(t, func(_ context.Context, w io.Writer) error {
			for {
				if _, err := w.Write(make([]byte, 256<<10)); err != nil {
					ended <- time.Now()
					return err
				}
			}
		})
		r := askBackup(t, l, http.MethodPost)
		for range 100 {
			if _, err := io.CopyN(io.Discard, r.Body, 256<<10); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Second)
		}
		begun := time.Now()
		if took := (<-ended).Sub(begun); took > 31*time.Second {
			t.Errorf("it ended after %v", took)
		}
	})
}

// TestBackupEndsWithTheBroker: a broker that shuts down does not wait for it.
func TestBackupEndsWithTheBroker(t *testing.T) {
	e, l := backupEdge(t, func(ctx context.Context, w io.Writer) error {
		_, _ = io.WriteString(w, "begun")
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Second):
			return errors.New("nobody has ended it")
		}
	})
	r := askBackup(t, l, http.MethodPost)
	if _, err := io.CopyN(io.Discard, r.Body, 5); err != nil {
		t.Fatal(err)
	}
	gone, stop := context.WithCancel(t.Context())
	stop()
	e.server.Drain(gone, 0)
	_, _ = io.Copy(io.Discard, r.Body)
	if said := r.Trailer.Get("Tidewire-Error"); !strings.Contains(said, "shutting down") {
		t.Errorf("it says %q", said)
	}
}
