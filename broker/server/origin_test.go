package server

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/tidewire/tidewire/protocol"
)

func TestHosts(t *testing.T) {
	loopback := Access{Loopback: true}
	named := Access{AllowedHosts: []string{"broker.example.com", "Other.example.com:7070"}}
	for _, c := range []struct {
		name   string
		access Access
		dev    bool
		good   string
		bad    string
	}{
		{
			"loopback", loopback, false,
			"localhost localhost:7070 LOCALHOST localhost. a.localhost 127.0.0.1 127.0.0.1:7070 127.8.9.1 [::1] [::1]:7070 [::ffff:127.0.0.1]:1",
			"evil.example.com evil.example.com:7070 localhost.evil.com notlocalhost 127.0.0.1.evil.com 10.0.0.1 [::2] 0.0.0.0 2130706433 localhost@evil.com",
		},
		{"dev", Access{}, true, "localhost:7070 127.0.0.1", "broker.example.com 192.168.0.7:7070"},
		{
			"named", named, false,
			"broker.example.com broker.example.com:443 BROKER.example.com other.example.com:7070 localhost:7070 127.0.0.1",
			"example.com other.example.com other.example.com:1 a.broker.example.com",
		},
		{"anywhere", Access{}, false, "evil.example.com 10.0.0.1:7070", ""},
	} {
		a := mustAccess(t, c.access, c.dev)
		for host := range strings.FieldsSeq(c.good) {
			if err := a.checkHost(&http.Request{Host: host}); err != nil {
				t.Errorf("%s: %q: %v", c.name, host, err)
			}
		}
		for host := range strings.FieldsSeq(c.bad) {
			wantRefusal(t, a.checkHost(&http.Request{Host: host}), protocol.CodeBadHost, "allowed_hosts")
		}
	}
	wantRefusal(t, mustAccess(t, loopback, false).checkHost(&http.Request{}), protocol.CodeBadHost, "missing")
}

func TestOrigins(t *testing.T) {
	listed := Access{AllowedOrigins: []string{"https://app.example.com", "http://other.example.com:8080", "capacitor://localhost"}}
	for _, c := range []struct {
		name   string
		access Access
		dev    bool
		good   string
		bad    string
	}{
		{
			"same origin",
			Access{},
			false,
			"http://broker.example.com:7070 https://broker.example.com:7070 HTTP://BROKER.example.com:7070",
			"http://broker.example.com http://broker.example.com:7071 http://example.com:7070 http://localhost:7070 null ftp://broker.example.com:7070 http://broker.example.com:7070@evil.com http://broker.example.com:7070/",
		},
		{
			"listed", listed, false,
			"https://app.example.com https://APP.example.com https://app.example.com:443 http://other.example.com:8080 capacitor://localhost",
			"http://app.example.com https://app.example.com:444 https://app.example.com.evil.com https://evil.com null https://other.example.com:8080 app.example.com //app.example.com",
		},
		{
			"dev",
			Access{},
			true,
			"http://localhost http://localhost:5173 https://localhost:5173 http://127.0.0.1:3000 http://[::1]:3000 null",
			"http://localhost.evil.com http://evil.com http://127.0.0.2 http://a.localhost x://localhost",
		},
		{"null", Access{AllowedOrigins: []string{"null"}}, false, "null", "http://localhost"},
		{"all", Access{AllowedOrigins: []string{"*"}}, false, "http://evil.com null", ""},
	} {
		a := mustAccess(t, c.access, c.dev)
		check := func(origins ...string) *protocol.Error {
			r := httptest.NewRequest("POST", "/", nil)
			r.Host = "broker.example.com:7070"
			r.Header["Origin"] = origins
			return a.checkOrigin(r)
		}
		if err := check(); err != nil {
			t.Errorf("%s: without Origin: %v", c.name, err)
		}
		for origin := range strings.FieldsSeq(c.good) {
			if err := check(origin); err != nil {
				t.Errorf("%s: %q: %v", c.name, origin, err)
			}
		}
		for origin := range strings.FieldsSeq(c.bad) {
			wantRefusal(t, check(origin), protocol.CodeBadOrigin, "allowed_origins")
		}
		wantRefusal(t, check(""), map[bool]protocol.Code{true: "", false: protocol.CodeBadOrigin}[c.name == "all"], "")
		wantRefusal(t, check("http://localhost", "https://app.example.com"), protocol.CodeBadOrigin, "")
	}
}

func TestSameOriginPorts(t *testing.T) {
	a := mustAccess(t, Access{}, false)
	for _, c := range []struct {
		host, origin string
		tls, want    bool
	}{
		{"a.example.com", "https://a.example.com", false, true}, // behind a proxy
		{"a.example.com", "http://a.example.com", false, true},
		{"a.example.com:443", "https://a.example.com", true, true},
		{"a.example.com", "http://a.example.com", true, false},
		{"a.example.com:80", "https://a.example.com", false, false},
		{"", "http://", false, false},
	} {
		r := httptest.NewRequest("POST", "/", nil)
		r.Host = c.host
		r.Header.Set("Origin", c.origin)
		if c.tls {
			r.TLS = &tls.ConnectionState{}
		}
		if got := a.checkOrigin(r) == nil; got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestCORS(t *testing.T) {
	o := anyone()
	o.Access.AllowedOrigins = []string{"https://app.example.com"}
	e := newTestEdge(t, o)
	const path, origin = "/v1/topics/a/messages", "Origin: https://app.example.com"
	const wanted = "Access-Control-Request-Headers: content-type,idempotency-key, Tidewire-Header-Trace.Id,authorization,last-event-id,cookie,x-other,tidewire-a b"

	w := e.do("OPTIONS", path, "", origin, "Access-Control-Request-Method: POST", wanted)
	h := w.Header()
	if w.Code != http.StatusNoContent || h.Get("Access-Control-Allow-Origin") != "https://app.example.com" ||
		h.Get("Access-Control-Allow-Methods") != "GET, HEAD, POST" ||
		h.Get("Access-Control-Allow-Headers") != "content-type, idempotency-key, tidewire-header-trace.id, authorization, last-event-id" ||
		h.Get("Access-Control-Allow-Credentials") != "" || h.Get("Access-Control-Max-Age") == "" {
		t.Errorf("preflight: %d %v", w.Code, h)
	}
	if vary := strings.Join(h.Values("Vary"), ", "); vary != "Origin, Access-Control-Request-Headers" {
		t.Errorf("Vary: %s", vary)
	}

	w = e.do("POST", path, "x", origin)
	if w.Code != http.StatusOK || w.Header().Get("Access-Control-Allow-Origin") == "" || w.Header().Get("Access-Control-Expose-Headers") == "" {
		t.Errorf("publish: %d %v", w.Code, w.Header())
	}
	w = e.do("POST", "/v1/topics/a%20b/messages", "x", origin)
	wantProblem(t, w, protocol.CodeInvalidTopic, "")
	if w.Header().Get("Access-Control-Allow-Origin") == "" {
		t.Error("the page cannot read its error")
	}

	for _, headers := range [][]string{{"Origin: https://evil.com"}, {"Origin: null"}, {"Origin: https://evil.com", "Access-Control-Request-Method: POST"}} {
		for _, method := range []string{"OPTIONS", "POST", "GET"} {
			if method == "OPTIONS" && len(headers) == 1 {
				continue // no preflight
			}
			w = e.do(method, path, "x", headers...)
			wantProblem(t, w, protocol.CodeBadOrigin, "allowed_origins")
			for name := range w.Header() {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s %v: %s for a foreign page", method, headers, name)
				}
			}
			if w.Header().Get("Vary") != "Origin" {
				t.Errorf("Vary: %v", w.Header())
			}
		}
	}
	wantProblem(t, e.do("POST", "/nothing", "", "Origin: https://evil.com"), protocol.CodeBadOrigin, "")
	if w = e.do("GET", "/healthz", "", "Origin: https://evil.com"); w.Code != http.StatusOK || w.Header().Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("health for a foreign page: %d %v", w.Code, w.Header())
	}
	if w = e.do("GET", path, ""); w.Header().Get("Vary") != "Origin" {
		t.Errorf("without Origin: %v", w.Header())
	}
}

func TestCORSWithCookie(t *testing.T) {
	e := newTestEdge(t, Options{Access: guarded()})
	token := sign(t, good(jwt.MapClaims{"publish": []string{">"}}), testSecret)
	w := e.do("POST", "/v1/topics/a/messages", "x", "Origin: https://app.example.com", "Cookie: session="+token)
	if w.Code != http.StatusOK || w.Header().Get("Access-Control-Allow-Credentials") != "true" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	w = e.do("POST", "/v1/topics/a/messages", "x", "Cookie: session="+token)
	wantProblem(t, w, protocol.CodeUnauthorized, "a token is needed")
}

// A page of another origin reads history with a token, as the SDK does.
func TestCORSForHistory(t *testing.T) {
	o := Options{Access: guarded()}
	o.Access.Cookie = ""
	e := newTestEdge(t, o)
	const path, origin = "/v1/topics/a/messages?from=earliest&limit=10", "Origin: https://app.example.com"
	for _, target := range []string{path, "/v1/messages", "/v1/events?filter=a", "/v1/consumers/c/fetch", "/v1/consumers/c/ack"} {
		w := e.do("OPTIONS", target, "", origin, "Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization,content-type")
		if h := w.Header(); w.Code != http.StatusNoContent || h.Get("Access-Control-Allow-Origin") != "https://app.example.com" || h.Get("Access-Control-Allow-Headers") != "authorization, content-type" {
			t.Errorf("preflight of %s: %d %v", target, w.Code, h)
		}
	}
	token := sign(t, good(jwt.MapClaims{"subscribe": []string{">"}}), testSecret)
	w := e.do("GET", path, "", origin, "Authorization: Bearer "+token)
	if h := w.Header(); w.Code != http.StatusOK || h.Get("Access-Control-Allow-Origin") != "https://app.example.com" || h.Get("Access-Control-Allow-Credentials") != "" || h.Get("Vary") != "Origin" {
		t.Errorf("history: %d %v %s", w.Code, h, w.Body)
	}
	w = e.do("GET", path, "", origin)
	wantProblem(t, w, protocol.CodeUnauthorized, "a token is needed")
	if h := w.Header(); h.Get("Access-Control-Allow-Origin") == "" || h.Get("Access-Control-Expose-Headers") == "" {
		t.Errorf("the page cannot read its error: %v", h)
	}
	w = e.do("GET", path, "", "Origin: https://evil.com", "Authorization: Bearer "+token)
	if h := w.Header(); h.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("history for a foreign page: %v", h)
	}
}

// TestCookieOfNoOrigin: any page can make a frame of the origin null, so that
// may connect but not act with the cookie of whoever looks at it.
func TestCookieOfNoOrigin(t *testing.T) {
	o := Options{Access: guarded()}
	o.Access.AllowedOrigins = []string{"null"}
	e := newTestEdge(t, o)
	token := sign(t, good(jwt.MapClaims{"publish": []string{">"}}), testSecret)
	w := e.do("POST", "/v1/topics/a/messages", "x", "Origin: null", "Cookie: session="+token)
	wantProblem(t, w, protocol.CodeUnauthorized, "a token is needed")
	if w.Header().Get("Access-Control-Allow-Credentials") != "" {
		t.Error("credentials for null")
	}
	if w = e.do("POST", "/v1/topics/a/messages", "x", "Origin: null", "Authorization: Bearer "+token); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestHostIsCheckedFirst(t *testing.T) {
	o := anyone()
	o.Dev = true
	e := newTestEdge(t, o)
	for _, target := range []string{"/v1/topics/a/messages", "/healthz", "/readyz", "/nothing", "/v1/ws"} {
		// A page whose name was rebound: Origin and Host agree.
		w := e.do("GET", target, "", "Host: evil.com:7070", "Origin: http://evil.com:7070")
		wantProblem(t, w, protocol.CodeBadHost, "evil.com")
		if w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Error("CORS for a rebound page")
		}
	}
	if w := e.do("POST", "/v1/topics/a/messages", "x", "Origin: null"); w.Code != http.StatusOK {
		t.Errorf("a local page with --dev: %d %s", w.Code, w.Body)
	}
}

func TestAdminHost(t *testing.T) {
	e := newTestEdge(t, Options{Access: Access{AllowedHosts: []string{"broker.example.com"}}})
	admin := e.Admin()
	ask := func(host string, local net.Addr) int {
		r := httptest.NewRequest("GET", "/healthz", nil)
		r.Host = host
		if local != nil {
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, local))
		}
		w := httptest.NewRecorder()
		admin.ServeHTTP(w, r)
		return w.Code
	}
	loopback, outside := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 5)}
	for _, c := range []struct {
		host  string
		local net.Addr
		want  int
	}{
		{"localhost:7071", loopback, 200},
		{"broker.example.com", loopback, 200},
		{"evil.com", loopback, http.StatusMisdirectedRequest},
		{"evil.com", nil, http.StatusMisdirectedRequest},
		{"10.0.0.5:7071", outside, 200},
	} {
		if got := ask(c.host, c.local); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}
