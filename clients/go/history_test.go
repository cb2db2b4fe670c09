package tidewire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lxzan/gws"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// webBroker serves HTTP too: each request for history takes the next answer of
// the script.
type webBroker struct {
	*fakeBroker
	pipes  chan net.Conn
	script []answer
	asked  []string // path and query of each request for history, and its token
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (w *webBroker) Accept() (net.Conn, error) {
	if c, ok := <-w.pipes; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (w *webBroker) Close() error { return nil }

func (w *webBroker) Addr() net.Addr { return &net.TCPAddr{} }

func (w *webBroker) dial(_ context.Context, _, addr string) (net.Conn, error) {
	if strings.HasPrefix(addr, "dead") {
		return nil, errors.New("nobody is there")
	}
	near, far := net.Pipe()
	w.pipes <- far
	return near, nil
}

func (w *webBroker) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, webSocketPath) {
		p := &peer{t: w.t, frames: make(chan any, 100), gone: make(chan struct{})}
		ws, err := gws.NewUpgrader(p, &gws.ServerOption{SubProtocols: []string{protocol.SubprotocolProto}}).Upgrade(out, r)
		if err != nil {
			w.t.Error(err)
			return
		}
		p.ws, p.conn = ws, ws.NetConn()
		w.peers <- p
		go func() { ws.ReadLoop(); close(p.gone) }()
		return
	}
	w.asked = append(w.asked, strings.TrimSpace(r.URL.RequestURI()+" "+r.Header.Get("Authorization")))
	if len(w.script) == 0 {
		w.t.Errorf("nobody expects %s", r.URL)
		return
	}
	a := w.script[0]
	w.script = w.script[1:]
	maps.Copy(out.Header(), a.header)
	out.WriteHeader(a.status)
	_, _ = io.WriteString(out, a.body)
}

// withWeb runs a test with a client that is connected to a broker with HTTP.
func withWeb(t *testing.T, o Options, f func(t *testing.T, c *Client, w *webBroker)) {
	t.Helper()
	bubble(t, func(t *testing.T, b *fakeBroker) {
		w := &webBroker{fakeBroker: b, pipes: make(chan net.Conn, 10)}
		var connections atomic.Int32
		server := &http.Server{Handler: w, ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				connections.Add(1)
			case http.StateClosed, http.StateHijacked:
				connections.Add(-1)
			}
		}}
		served := make(chan struct{})
		go func() { _ = server.Serve(w); close(served) }()
		go func() {
			p, _ := b.welcome()
			<-p.gone
		}()
		o.Dial = w.dial
		c, err := Connect(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		f(t, c, w)
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := connections.Load(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
		if len(w.script) > 0 {
			t.Errorf("nobody asked for %v", w.script)
		}
		close(w.pipes)
		<-served
		_ = server.Close()
	})
}

func page(next, gap string, payloads ...string) answer {
	var list []string
	for i, p := range payloads {
		list = append(list, fmt.Sprintf(`{"id":"i%s","topic":"a/b.c","position":"p25-%d","time":"2026-01-02T15:04:05.000006Z","publisher":"me","key":"k","content_type":"text/plain","headers":{"h":"v"},"payload":%q}`, p, i+1, p))
	}
	if gap != "" {
		gap = `,"gap":` + gap
	}
	return answer{status: 200, body: fmt.Sprintf(`{"messages":[%s],"next":%q%s}`, strings.Join(list, ","), next, gap)}
}

func problem(status int, code Code, retryable bool) answer {
	return answer{status: status, body: fmt.Sprintf(`{"title":"x","status":%d,"detail":"because","code":%q,"retryable":%v}`, status, code, retryable)}
}

// A page has everything that the broker says, and asks for what the options say.
func TestHistory(t *testing.T) {
	const topic = "a/b.c"
	withWeb(t, Options{URLs: []string{"http://broker/below/v1/ws"}}, func(t *testing.T, c *Client, w *webBroker) {
		w.script = []answer{
			page("p25-2", `{"reason":"rolled_back","term":"25","after":3,"through":9,"position":"p25-9"}`, "x"),
			{status: 200, body: `{"messages":[{"topic":"a/b.c","position":"p25-7","payload_base64":"/wA="}],"next":"p25-7"}`},
			page("p25-1", ""),
		}
		p, err := c.History(t.Context(), topic, HistoryOptions{})
		if err != nil || len(p.Messages) != 1 || p.Next != "p25-2" {
			t.Fatal(p, err)
		}
		m := p.Messages[0]
		if m.ID != "ix" || m.Topic != topic || string(m.Payload) != "x" || m.Publisher != "me" || m.Key != "k" || m.ContentType != "text/plain" ||
			!slices.Equal(m.Headers, []Header{{Name: "h", Value: "v"}}) || m.Position.String() != "p25-1" ||
			!m.Time.Equal(time.Date(2026, 1, 2, 15, 4, 5, 6000, time.UTC)) {
			t.Errorf("%+v", m)
		}
		if *p.Gap != (GapError{Filter: topic, Reason: "rolled_back", Term: "25", After: 3, Through: 9, Position: "p25-9"}) {
			t.Errorf("%+v", p.Gap)
		}
		if p, err = c.History(t.Context(), topic, HistoryOptions{From: "-10m", Limit: 7, Stream: "s"}); err != nil || string(p.Messages[0].Payload) != "\xff\x00" {
			t.Error(p, err)
		}
		if p, err = c.History(t.Context(), topic, HistoryOptions{Before: "2026-01-02T15:04:05+01:00"}); err != nil || len(p.Messages) != 0 || p.Next != "p25-1" {
			t.Error(p, err)
		}
		const at = "/below/v1/topics/a%2Fb.c/messages?"
		if want := []string{at, at + "from=-10m&limit=7&stream=s", at + "before=2026-01-02T15%3A04%3A05%2B01%3A00"}; !slices.Equal(w.asked, want) {
			t.Errorf("asked for %q, want %q", w.asked, want)
		}
	})
}

// Pages follow each other in the direction that was asked for, until one has
// neither messages nor a gap: a gap alone is not the end.
func TestHistoryPages(t *testing.T) {
	for _, c := range []struct {
		options HistoryOptions
		name    string
	}{
		{HistoryOptions{From: "earliest"}, "from"},
		{HistoryOptions{}, "from"},
		{HistoryOptions{Before: "new"}, "before"},
	} {
		withWeb(t, Options{}, func(t *testing.T, client *Client, w *webBroker) {
			w.script = []answer{
				page("p25-2", "", "1", "2"), page("p25-5", `{"reason":"retention","term":"25","after":2,"through":5,"position":"p25-5"}`),
				page("p25-6", "", "6"), page("p25-6", ""),
			}
			got := ""
			for p, err := range client.HistoryPages(t.Context(), "a", c.options) {
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range p.Messages {
					got += string(m.Payload) + " "
				}
				if p.Gap != nil {
					got += p.Gap.Reason + " "
				}
			}
			if got != "1 2 retention 6 " {
				t.Error(got)
			}
			for i, next := range []string{"p25-2", "p25-5", "p25-6"} {
				if want := "/v1/topics/a/messages?" + c.name + "=" + next; w.asked[i+1] != want {
					t.Errorf("asked for %s, want %s", w.asked[i+1], want)
				}
			}
			w.script = []answer{page("p25-2", "", "1"), problem(403, CodeForbidden, false)}
			var last error
			for _, err := range client.HistoryPages(t.Context(), "a", c.options) {
				last = err
			}
			if e, ok := errors.AsType[*Error](last); !ok || e.Code != CodeForbidden || e.Message != "because" {
				t.Error(last)
			}
		})
	}
}

// Retryable refusals and brokers that are away are asked again, another one at
// once; others are returned with their type.
func TestHistoryRefusals(t *testing.T) {
	withWeb(t, Options{URLs: []string{"http://broker", "http://dead"}}, func(t *testing.T, c *Client, w *webBroker) {
		busy := problem(503, protocol.CodeOverloaded, true)
		busy.header = http.Header{"Retry-After": {"7"}}
		w.script = []answer{busy, page("p25-1", "", "1")}
		begin := time.Now()
		p, err := c.History(t.Context(), "a", HistoryOptions{})
		if err != nil || len(p.Messages) != 1 || time.Since(begin) < 7*time.Second || time.Since(begin) > 9*time.Second {
			t.Error(p, err, time.Since(begin))
		}
		w.script = []answer{problem(400, CodeInvalidPosition, false)}
		_, err = c.History(t.Context(), "a", HistoryOptions{From: "p25-1"})
		if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeInvalidPosition {
			t.Error(err)
		}
		w.script = []answer{{status: 404, body: "not here"}}
		_, err = c.History(t.Context(), "a", HistoryOptions{})
		if e, ok := errors.AsType[*HandshakeError](err); !ok || e.Status != 404 {
			t.Error(err)
		}
		for _, nonsense := range []string{"", "hello", "{}", `{"messages":[{"topic":"a"}],"next":"p25-1"}`, `{"messages":[{"topic":"a","payload":"","position":"here"}],"next":"p25-1"}`} {
			w.script = []answer{{status: 200, body: nonsense}}
			if _, err = c.History(t.Context(), "a", HistoryOptions{}); !errors.Is(err, errNotHistory) {
				t.Errorf("%s: %v", nonsense, err)
			}
		}
		for range 100 {
			w.script = append(w.script, busy)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = c.History(short, "a", HistoryOptions{})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "the last attempt") {
			t.Error(err)
		}
		if n := 100 - len(w.script); n < 2 || n > 9 {
			t.Errorf("%d attempts in a minute", n)
		}
		w.script = nil
		asked := len(w.asked)
		for _, o := range []HistoryOptions{{From: "new", Before: "new"}, {From: "?"}, {Limit: -1}} {
			if _, err := c.History(t.Context(), "a", o); err == nil {
				t.Errorf("%+v is taken", o)
			}
		}
		if _, err := c.History(t.Context(), "a..b", HistoryOptions{}); err == nil {
			t.Error("a..b is taken")
		}
		if len(w.asked) != asked {
			t.Error("nonsense was sent")
		}
	})
}

// The token in force is shown; one that has expired is replaced once, and a source
// of bad ones is not asked for ever.
func TestHistoryToken(t *testing.T) {
	n := 0
	token := func(context.Context) (string, error) { n++; return fmt.Sprint("t", n), nil }
	withWeb(t, Options{Token: token}, func(t *testing.T, c *Client, w *webBroker) {
		w.script = []answer{page("p25-1", ""), problem(401, CodeTokenExpired, false), page("p25-1", "")}
		for range 2 {
			if _, err := c.History(t.Context(), "a", HistoryOptions{}); err != nil {
				t.Error(err)
			}
		}
		w.script = []answer{problem(401, CodeUnauthorized, false), problem(401, CodeUnauthorized, false)}
		_, err := c.History(t.Context(), "a", HistoryOptions{})
		if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeUnauthorized {
			t.Error(err)
		}
		const at = "/v1/topics/a/messages? Bearer "
		if want := []string{at + "t1", at + "t1", at + "t2", at + "t1", at + "t3"}; !slices.Equal(w.asked, want) {
			t.Errorf("%q", w.asked)
		}
	})
}

// A client that is closed reads nothing any more, also where it is waiting; an
// address that is none of a broker's is said.
func TestHistoryClosed(t *testing.T) {
	withWeb(t, Options{}, func(t *testing.T, c *Client, w *webBroker) {
		for range 100 {
			w.script = append(w.script, problem(503, protocol.CodeOverloaded, true))
		}
		go func() {
			<-time.After(10 * time.Second)
			_ = c.Close(context.Background())
		}()
		if _, err := c.History(t.Context(), "a", HistoryOptions{}); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		if _, err := c.History(t.Context(), "a", HistoryOptions{}); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		w.script = nil
	})
	bubble(t, func(t *testing.T, b *fakeBroker) {
		c, p := open(t, b, Options{URLs: []string{"ws://broker/elsewhere"}})
		if _, err := c.History(t.Context(), "a", HistoryOptions{}); err == nil || !strings.Contains(err.Error(), "does not end in /v1/ws") {
			t.Error(err)
		}
		p.send(&tidewirev1.Ping{Seq: 1})
	})
}
