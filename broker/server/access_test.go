package server

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/tidewire/tidewire/protocol"
)

const (
	testSecret = "0123456789abcdef0123456789abcdef"
	testKey    = "twk_test-key"
)

// sign makes a token of claims.
func sign(t testing.TB, claims jwt.MapClaims, secret string) string {
	t.Helper()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// rawToken makes a token of a head as it is, signed rightly.
func rawToken(t testing.TB, head string) string {
	t.Helper()
	const claims = `{"sub":"ada","iss":"us","aud":"tidewire"}`
	text := base64.RawURLEncoding.EncodeToString([]byte(head)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	signature, err := jwt.SigningMethodHS256.Sign(text, []byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func mustAccess(t testing.TB, a Access, dev bool) *access {
	t.Helper()
	out, err := newAccess(a, dev)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func guarded() Access {
	return Access{
		APIKeys: []APIKey{{Name: "billing", Key: testKey, Publish: []string{"orders.>", "by.{sub}"}, Subscribe: []string{">"}}},
		JWT:     JWT{Secret: []byte(testSecret), Issuer: "us", Audience: "tidewire"},
		Cookie:  "session", AllowedOrigins: []string{"https://app.example.com"},
	}
}

func future() int64 { return time.Now().Add(time.Hour).Unix() }

func good(more jwt.MapClaims) jwt.MapClaims {
	c := jwt.MapClaims{"sub": "ada", "iss": "us", "aud": "tidewire", "exp": future()}
	for k, v := range more {
		if v == nil {
			delete(c, k)
			continue
		}
		c[k] = v
	}
	return c
}

func TestTokens(t *testing.T) {
	a := mustAccess(t, guarded(), false)
	past := time.Now().Add(-time.Hour).Unix()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rs256, err := jwt.NewWithClaims(jwt.SigningMethodRS256, good(nil)).SignedString(rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	none, err := jwt.NewWithClaims(jwt.SigningMethodNone, good(nil)).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	hs512, err := jwt.NewWithClaims(jwt.SigningMethodHS512, good(nil)).SignedString([]byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	whole := sign(t, good(nil), testSecret)
	for _, c := range []struct {
		name, token string
		code        protocol.Code // empty: it holds
		sentence    string
	}{
		{"good", whole, "", ""},
		{"without exp", sign(t, good(jwt.MapClaims{"exp": nil}), testSecret), "", ""},
		{"exp in milliseconds", sign(t, good(jwt.MapClaims{"exp": future() * 1000}), testSecret), "", ""},
		{"several audiences", sign(t, good(jwt.MapClaims{"aud": []string{"x", "tidewire"}}), testSecret), "", ""},
		{"key", testKey, "", ""},

		{"empty", "", protocol.CodeUnauthorized, "empty"},
		{"no JWT", "hello", protocol.CodeUnauthorized, "not a JWT"},
		{"two parts", "a.b", protocol.CodeUnauthorized, "not a JWT"},
		{"dots", "...", protocol.CodeUnauthorized, "not a JWT"},
		{"alg none", none, protocol.CodeUnauthorized, "HS256"},
		{"alg none, signed", rawToken(t, `{"alg":"none"}`), protocol.CodeUnauthorized, "HS256"},
		{"alg in capitals", rawToken(t, `{"alg":"hs256"}`), protocol.CodeUnauthorized, "HS256"},
		{"alg missing", rawToken(t, `{}`), protocol.CodeUnauthorized, "HS256"},
		{"RS256", rs256, protocol.CodeUnauthorized, "HS256"},
		{"RS256 head on an HMAC", rawToken(t, `{"alg":"RS256"}`), protocol.CodeUnauthorized, "HS256"},
		{"HS512", hs512, protocol.CodeUnauthorized, "HS256"},
		{"wrong secret", sign(t, good(nil), testSecret+"x"), protocol.CodeUnauthorized, "signature"},
		{"signature cut off", whole[:strings.LastIndexByte(whole, '.')+1], protocol.CodeUnauthorized, "signature"},
		{"changed", strings.Replace(whole, ".e", ".f", 1), protocol.CodeUnauthorized, ""},
		{"expired", sign(t, good(jwt.MapClaims{"exp": past}), testSecret), protocol.CodeTokenExpired, "expired"},
		{"expired and forged", sign(t, good(jwt.MapClaims{"exp": past}), "x"), protocol.CodeUnauthorized, "signature"},
		{"nbf", sign(t, good(jwt.MapClaims{"nbf": future()}), testSecret), protocol.CodeUnauthorized, "nbf"},
		{"exp is a text", sign(t, good(jwt.MapClaims{"exp": "tomorrow"}), testSecret), protocol.CodeUnauthorized, "seconds"},
		{"exp is a number as a text", sign(t, good(jwt.MapClaims{"exp": strconv.FormatInt(future(), 10)}), testSecret), protocol.CodeUnauthorized, "must be numbers"},
		{"exp is null", sign(t, good(jwt.MapClaims{"exp": json.RawMessage("null")}), testSecret), protocol.CodeUnauthorized, "must be numbers"},
		{"nbf is a text", sign(t, good(jwt.MapClaims{"nbf": "1"}), testSecret), protocol.CodeUnauthorized, "must be numbers"},
		{"iat is a list", sign(t, good(jwt.MapClaims{"iat": []int{1}}), testSecret), protocol.CodeUnauthorized, "must be numbers"},
		{"exp below a second", sign(t, good(jwt.MapClaims{"exp": float64(future()) + 0.5}), testSecret), "", ""},
		{"exp negative", sign(t, good(jwt.MapClaims{"exp": -1}), testSecret), protocol.CodeTokenExpired, "expired"},
		{"crit", rawToken(t, `{"alg":"HS256","crit":["b64"],"b64":false}`), protocol.CodeUnauthorized, "crit"},
		{"crit empty", rawToken(t, `{"alg":"HS256","crit":[]}`), protocol.CodeUnauthorized, "crit"},
		{"wrong issuer", sign(t, good(jwt.MapClaims{"iss": "them"}), testSecret), protocol.CodeUnauthorized, "issuer"},
		{"no issuer", sign(t, good(jwt.MapClaims{"iss": nil}), testSecret), protocol.CodeUnauthorized, "iss"},
		{"wrong audience", sign(t, good(jwt.MapClaims{"aud": "them"}), testSecret), protocol.CodeUnauthorized, "audience"},
		{"huge", strings.Repeat("a", maxTokenBytes+1), protocol.CodeUnauthorized, "8193 bytes"},
		{"filters of numbers", sign(t, good(jwt.MapClaims{"publish": []int{1}}), testSecret), protocol.CodeUnauthorized, "filters"},
		{"bad filter", sign(t, good(jwt.MapClaims{"publish": []string{"a..b"}}), testSecret), protocol.CodeUnauthorized, "empty token"},
		{"unknown template", sign(t, good(jwt.MapClaims{"publish": []string{"a.{user}"}}), testSecret), protocol.CodeUnauthorized, "only {sub} is"},
		{"long subject", sign(t, good(jwt.MapClaims{"sub": strings.Repeat("a", 256)}), testSecret), protocol.CodeUnauthorized, "subject"},
		{"control character", sign(t, good(jwt.MapClaims{"sub": "a\nb"}), testSecret), protocol.CodeUnauthorized, "subject"},
		{"unknown key", testKey + "x", protocol.CodeUnauthorized, "API key is not known"},
		{"prefix of a key", keyPrefix, protocol.CodeUnauthorized, "API key is not known"},
	} {
		t.Run(c.name, func(t *testing.T) {
			id, err := a.identifyToken(c.token)
			wantRefusal(t, err, c.code, c.sentence)
			if (id == nil) != (err != nil) {
				t.Errorf("identity %v with %v", id, err)
			}
			if err != nil && len(c.token) > 20 && strings.Contains(err.Error(), c.token[:20]) {
				t.Errorf("the sentence has a part of the token: %s", err.Message)
			}
		})
	}
}

func wantRefusal(t testing.TB, err *protocol.Error, code protocol.Code, sentence string) {
	t.Helper()
	switch {
	case err == nil && code == "":
	case err == nil:
		t.Errorf("no error, want %s", code)
	case err.Code != code || !strings.Contains(err.Message, sentence):
		t.Errorf("%v, want %s with %q", err, code, sentence)
	}
}

func TestTokenExpiry(t *testing.T) {
	a := mustAccess(t, Access{JWT: JWT{Secret: []byte(testSecret), Leeway: time.Minute}}, false)
	at := time.Now().Add(-30 * time.Second).Unix()
	id, err := a.identifyToken(sign(t, jwt.MapClaims{"exp": at}, testSecret))
	if err != nil {
		t.Fatal(err)
	}
	if want := time.Unix(at, 0).Add(time.Minute); !id.Expires.Equal(want) {
		t.Errorf("expires %v, want %v", id.Expires, want)
	}
	id, err = a.identifyToken(sign(t, jwt.MapClaims{"exp": future() * 1000}, testSecret))
	if err != nil || id.Expires.After(farFuture) || id.Expires.UnixNano() < time.Now().UnixNano() {
		t.Errorf("expires %v, %v: it must fit into nanoseconds", id.Expires, err)
	}
}

func texts(filters []protocol.Filter) string {
	var all []string
	for _, f := range filters {
		all = append(all, f.String())
	}
	return strings.Join(all, " ")
}

func TestClaimsBecomePermissions(t *testing.T) {
	a := mustAccess(t, guarded(), false)
	id, err := a.identifyToken(sign(t, good(jwt.MapClaims{
		"publish": []string{"user.{sub}.>", "to-{sub}"}, "subscribe": "room.*", "consume": []string{"jobs"},
	}), testSecret))
	if err != nil {
		t.Fatal(err)
	}
	if got := texts(id.Publish) + " | " + texts(id.Subscribe) + " | " + texts(id.Consume); got != "user.ada.> to-ada | room.* | jobs" {
		t.Error(got)
	}
	if id, err = a.identifyToken(sign(t, good(nil), testSecret)); err != nil {
		t.Fatal(err)
	}
	if len(id.Publish)+len(id.Subscribe)+len(id.Consume) != 0 {
		t.Errorf("a token that allows nothing allows %+v", id)
	}
	if id, err = a.identifyToken(testKey); err != nil || id.Subject != "billing" || texts(id.Publish) != "orders.> by.billing" {
		t.Errorf("key: %+v %v", id, err)
	}
}

// TestSubjectsDoNotWiden: whatever the subject is, a filter with {sub} selects
// nothing that the filter with '*' in its place would not, and never a topic of
// the broker.
func TestSubjectsDoNotWiden(t *testing.T) {
	a := mustAccess(t, Access{JWT: JWT{Secret: []byte(testSecret)}}, false)
	filters := []string{"{sub}", "{sub}.>", "user.{sub}", "user.{sub}.>", "user-{sub}.x", "{sub}.{sub}"}
	for _, sub := range []string{
		"", "*", ">", "a.b", ".", "a.", ".a", "a.*", "a.>", "*a", "a>", "a b", "a\tb", "a\u00a0b", "a\u2028b", "a\u0000b",
		"$dead", "$", "{sub}", "{", "}", "a{sub}", "\xff", strings.Repeat("a", 250),
	} {
		for _, filter := range filters {
			id, err := grants{subscribe: []string{filter}}.identity(sub)
			if err != nil {
				if err.Code != protocol.CodeUnauthorized {
					t.Errorf("%q in %q: %v", sub, filter, err)
				}
				continue
			}
			wide, perr := protocol.ParseFilter(strings.NewReplacer("user-{sub}", "*", "{sub}", "*").Replace(filter))
			if perr != nil {
				t.Fatal(perr)
			}
			if !wide.Covers(id.Subscribe[0]) {
				t.Errorf("%q in %q allows %s", sub, filter, id.Subscribe[0])
			}
		}
		token := sign(t, jwt.MapClaims{"sub": sub, "subscribe": []string{"user.{sub}.>"}}, testSecret)
		if id, err := a.identifyToken(token); err == nil && strings.ContainsAny(sub, "*>. {}") {
			t.Errorf("the subject %q was taken: %s", sub, texts(id.Subscribe))
		}
	}
	// Without a template a subject may look like an address.
	if _, err := a.identifyToken(sign(t, jwt.MapClaims{"sub": "ada@example.com", "subscribe": []string{"a"}}, testSecret)); err != nil {
		t.Error(err)
	}
}

func FuzzSubjects(f *testing.F) {
	f.Add("ada", "user.{sub}.>")
	f.Add("a.>", "{sub}")
	f.Add("$x", "{sub}.*")
	f.Fuzz(func(t *testing.T, sub, filter string) {
		got, err := expand(filter, sub)
		if err != nil || !strings.Contains(filter, subTemplate) {
			return
		}
		// Token by token: where the filter has the template, any one token may
		// stand; elsewhere what was written.
		written := strings.Split(filter, ".")
		result := strings.Split(got.String(), ".")
		if len(written) != len(result) || protocol.IsReserved(got.String()) && !strings.HasPrefix(filter, "$") {
			t.Fatalf("%q in %q became %s", sub, filter, got)
		}
		for i, token := range written {
			if strings.Contains(token, subTemplate) && (result[i] == "*" || result[i] == ">") {
				t.Fatalf("%q in %q became %s", sub, filter, got)
			}
		}
	})
}

func TestIdentify(t *testing.T) {
	a := mustAccess(t, guarded(), false)
	token := sign(t, good(nil), testSecret)
	expired := sign(t, good(jwt.MapClaims{"exp": 1}), testSecret)
	const ws, origin = "Upgrade: websocket|Connection: Upgrade|", "Origin: https://app.example.com|"
	for _, c := range []struct {
		name, headers string
		subject       string
		code          protocol.Code
		sentence      string
	}{
		{"header", "Authorization: Bearer " + token, "ada", "", ""},
		{"scheme in small letters", "Authorization: bearer " + token, "ada", "", ""},
		{"key", "Authorization: Bearer " + testKey, "billing", "", ""},
		{"subprotocol", ws + "Sec-WebSocket-Protocol: tidewire.v1.json, bearer." + token, "ada", "", ""},
		{"subprotocol in a line of its own", ws + "Sec-WebSocket-Protocol: tidewire.v1.json|Sec-WebSocket-Protocol: bearer." + token, "ada", "", ""},
		{"cookie of an allowed page", origin + "Cookie: session=" + token, "ada", "", ""},
		{"cookie of our own page", "Sec-Fetch-Site: same-origin|Cookie: session=" + token, "ada", "", ""},
		{"header before subprotocol", ws + "Authorization: Bearer " + testKey + "|Sec-WebSocket-Protocol: bearer." + token, "billing", "", ""},
		{"header before cookie", origin + "Authorization: Bearer " + testKey + "|Cookie: session=" + token, "billing", "", ""},

		{"nothing", "", "", protocol.CodeUnauthorized, "a token is needed"},
		{"other scheme", "Authorization: Basic YTpi", "", protocol.CodeUnauthorized, "Bearer TOKEN"},
		{"no token", "Authorization: Bearer ", "", protocol.CodeUnauthorized, "Bearer TOKEN"},
		{"twice", "Authorization: Bearer " + token + "|Authorization: Bearer " + token, "", protocol.CodeUnauthorized, "2 times"},
		{"bad header, good cookie", origin + "Authorization: Bearer x|Cookie: session=" + token, "", protocol.CodeUnauthorized, "JWT"},
		{"expired", "Authorization: Bearer " + expired, "", protocol.CodeTokenExpired, "expired"},
		{"subprotocol without an upgrade", "Sec-WebSocket-Protocol: bearer." + token, "", protocol.CodeUnauthorized, "a token is needed"},
		{"two subprotocols", ws + "Sec-WebSocket-Protocol: bearer." + token + ", bearer.x", "", protocol.CodeUnauthorized, "several"},
		{"empty subprotocol", ws + "Sec-WebSocket-Protocol: bearer.", "", protocol.CodeUnauthorized, "empty"},
		{"key in a subprotocol", ws + "Sec-WebSocket-Protocol: bearer." + testKey, "", protocol.CodeUnauthorized, "backends"},
		{"key in a cookie", origin + "Cookie: session=" + testKey, "", protocol.CodeUnauthorized, "backends"},
		{"cookie without an origin", "Cookie: session=" + token, "", protocol.CodeUnauthorized, "a token is needed"},
		{"cookie of another page", "Origin: https://evil.example.com|Cookie: session=" + token, "", protocol.CodeUnauthorized, "a token is needed"},
		{"cookie of a page without origin", "Origin: null|Cookie: session=" + token, "", protocol.CodeUnauthorized, "a token is needed"},
		{"cookie of another site's image", "Sec-Fetch-Site: cross-site|Cookie: session=" + token, "", protocol.CodeUnauthorized, "a token is needed"},
		{"cookie twice", origin + "Cookie: session=" + token + "; session=x", "", protocol.CodeUnauthorized, "2 times"},
		{"expired cookie", origin + "Cookie: session=" + expired, "", protocol.CodeTokenExpired, "expired"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/v1/ws", nil)
			if c.headers != "" {
				setHeaders(r, strings.Split(strings.TrimSuffix(c.headers, "|"), "|"))
			}
			id, err := a.identify(r)
			wantRefusal(t, err, c.code, c.sentence)
			if err == nil && id.Subject != c.subject {
				t.Errorf("subject %q, want %q", id.Subject, c.subject)
			}
		})
	}
}

func TestAnonymous(t *testing.T) {
	r := httptest.NewRequest("GET", "/", nil)
	all, err := mustAccess(t, Access{}, false).identify(r)
	if err != nil || texts(all.Publish) != ">" || texts(all.Subscribe) != texts(all.Consume) {
		t.Errorf("without configuration: %+v, %v", all, err)
	}
	for filter, may := range map[string]bool{">": true, "orders.*": true, "$dead.x": true, "$redrive.x": false} {
		if err := all.MayConsume(mustFilter(t, filter)); (err == nil) != may {
			t.Errorf("to consume %s: %v", filter, err)
		}
	}
	if err := all.MaySubscribe(mustFilter(t, "$other.x")); err == nil {
		t.Error("everybody may read topics of the broker's own that are no dead letters")
	}
	some := Access{JWT: JWT{Secret: []byte(testSecret)}, Anonymous: Anonymous{Subscribe: []string{"public.>"}}}
	id, err := mustAccess(t, some, false).identify(r)
	if err != nil || texts(id.Publish) != "" || texts(id.Subscribe) != "public.>" {
		t.Errorf("configured: %+v, %v", id, err)
	}
	r.Header.Set("Authorization", "Bearer x")
	if _, err := mustAccess(t, some, false).identify(r); err == nil {
		t.Error("a bad token became anonymous")
	}
	if _, err := mustAccess(t, Access{}, false).identify(r); err == nil || !strings.Contains(err.Message, "takes no JWT") {
		t.Errorf("a token where none is configured: %v", err)
	}
}

func mustFilter(t testing.TB, s string) protocol.Filter {
	t.Helper()
	f, err := protocol.ParseFilter(s)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestAccessOptions(t *testing.T) {
	hash := sha256.Sum256([]byte(testKey))
	hashed := APIKey{Name: "a", SHA256: hex.EncodeToString(hash[:])}
	if id, err := mustAccess(t, Access{APIKeys: []APIKey{hashed}}, false).identifyToken(testKey); err != nil || id.Subject != "a" {
		t.Errorf("key by its hash: %+v %v", id, err)
	}
	secret := JWT{Secret: []byte(testSecret)}
	for _, c := range []struct {
		access Access
		want   string
	}{
		{Access{APIKeys: []APIKey{{Name: "a"}}}, "give either key or sha256"},
		{Access{APIKeys: []APIKey{{Name: "a", Key: testKey, SHA256: "x"}}}, "give either key or sha256"},
		{Access{APIKeys: []APIKey{{Name: "a", Key: "secret"}}}, "begins with twk_"},
		{Access{APIKeys: []APIKey{{Name: "a", Key: "twk_"}}}, "begins with twk_"},
		{Access{APIKeys: []APIKey{{Name: "a", SHA256: "abc"}}}, "64 hex digits"},
		{Access{APIKeys: []APIKey{{Key: testKey}}}, "name is missing"},
		{Access{APIKeys: []APIKey{{Name: "a", Key: testKey}, hashed}}, "listed before"},
		{Access{APIKeys: []APIKey{{Name: "a.b", Key: testKey, Publish: []string{"x.{sub}"}}}}, "cannot stand for {sub}"},
		{Access{APIKeys: []APIKey{{Name: "a", Key: testKey, Subscribe: []string{"a."}}}}, "subscribe: "},
		{Access{JWT: JWT{Secret: []byte("short")}}, "5 bytes"},
		{Access{JWT: JWT{Issuer: "us"}}, "secret is missing"},
		{Access{Cookie: "a"}, "secret is missing"},
		{Access{JWT: secret, Cookie: "a", AllowedOrigins: []string{"*"}}, "every page"},
		{Access{Anonymous: Anonymous{Publish: []string{"{sub}"}}}, "no subject"},
		{Access{AllowedOrigins: []string{"app.example.com"}}, "is no origin"},
		{Access{AllowedOrigins: []string{"https://app.example.com/"}}, "write https://app.example.com"},
		{Access{AllowedOrigins: []string{"https://*.example.com"}}, "is no origin"},
		{Access{AllowedHosts: []string{"http://a"}}, "is no host"},
		{Access{AllowedHosts: []string{""}}, "is no host"},
	} {
		_, err := newAccess(c.access, false)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		} else if strings.Contains(err.Error(), testKey) {
			t.Errorf("the error has the key: %v", err)
		}
	}
}

// What may be consumed is said apart from what may be subscribed to: who may read
// a topic may not settle it for others.
func TestMayConsume(t *testing.T) {
	a := guarded()
	a.APIKeys = []APIKey{{Name: "worker", Key: "twk_worker", Subscribe: []string{">"}, Consume: []string{"orders.>", "mail.{sub}"}}}
	a.Anonymous = Anonymous{Consume: []string{"open.*"}}
	rules, err := newAccess(a, false)
	if err != nil {
		t.Fatal(err)
	}
	worker, refused := rules.identifyToken("twk_worker")
	if refused != nil {
		t.Fatal(refused)
	}
	for filter, may := range map[string]bool{"orders.new": true, "orders.>": true, ">": false, "mail.worker": true, "mail.*": false, "open.a": false} {
		err := worker.MayConsume(mustFilter(t, filter))
		if (err == nil) != may || err != nil && (err.Code != protocol.CodeForbidden || !strings.Contains(err.Message, "allows consuming orders.>, mail.worker")) {
			t.Errorf("%s: %v", filter, err)
		}
	}
	if rules.anonymous == nil || rules.anonymous.MayConsume(mustFilter(t, "open.a")) != nil || rules.anonymous.MaySubscribe(mustFilter(t, "open.a")) == nil {
		t.Errorf("anonymous may %+v", rules.anonymous)
	}
}
