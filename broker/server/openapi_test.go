package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/docs"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

func TestOpenAPI(t *testing.T) {
	api, err := theAPI()
	if err != nil {
		t.Fatal(err)
	}
	said := exchanges(t)
	registered := registeredRoutes(t)
	for name, complaints := range map[string][]string{
		"lint": api.lint(string(docs.OpenAPI)), "codes": api.checkCodes(), "limits": api.checkLimits(),
		"routes": api.checkRoutes(registered), "exchanges": api.checkAll(said), "coverage": api.checkCoverage(said),
	} {
		for _, c := range complaints {
			t.Errorf("%s: %s", name, c)
		}
	}
}

// Each kind of mistake in the document is noticed.
func TestOpenAPIWrong(t *testing.T) {
	said := exchanges(t)
	registered := registeredRoutes(t)
	for _, c := range []struct{ name, old, new, want string }{
		{"unknown reference", "schemas/Published\"}\n              examples", "schemas/Publisht\"}\n              examples", "Publisht"},
		{"an example that is wrong", "position: p1z141z3-2, duplicate: false", "position: 2, duplicate: false", "invalid example"},
		{"an operation without a summary", "      summary: Store a message\n", "", "has no summary"},
		{"an unused component", "    Topic:\n", "    Unused: {type: string}\n    Topic:\n", "Unused is not used"},
		{"an unknown tag", "tags: [about]", "tags: [abuot]", "abuot"},

		{"a code is missing", "        - repeat_too_old\n", "", "the codes"},
		{"a code too many", "        - repeat_too_old\n", "        - repeat_too_old\n        - nope\n", "the codes"},
		{"a code at another status", "code: {enum: [storage_full]}", "code: {enum: [storage_full, overloaded]}", "overloaded has the status 503"},
		{"a refusal without codes", "                      code: {enum: [storage_full]}\n", "", "does not list its codes"},
		{"a refusal with another status", "status: {const: 507}", "status: {const: 503}", "its status"},
		{"a code that is not listed anywhere", "code: {enum: [id_conflict, repeat_too_old]}", "code: {enum: [repeat_too_old]}", "id_conflict is in no answer"},

		{"another limit", "name: Tidewire-Key\n          in: header\n          description: Ordering key.\n          schema: {type: string, minLength: 1, maxLength: 255}", "name: Tidewire-Key\n          in: header\n          description: Ordering key.\n          schema: {type: string, minLength: 1, maxLength: 256}", "Tidewire-Key"},

		{"an operation without a route", "  /healthz:\n", "  /healthy:\n    get: {responses: {\"200\": {description: It lives.}}}\n\n  /healthz:\n", "GET /healthy is no route"},
		{"a route without an operation", "  /v1/streams:\n", "  /v1/strems:\n", "GET /v1/streams is not described"},
		{"on the wrong listener", "  /v1/topics:\n    servers:\n      - url: http://localhost:7071", "  /v1/topics:\n    servers:\n      - url: http://localhost:7070", "GET /v1/topics is not described"},

		{"an answer that is not there", "        \"507\":\n          description: The broker has no room", "        \"508\":\n          description: The broker has no room", "status is not supported"},
		{"a field that must be there", "required: [topic, duplicate, stored]", "required: [topic, duplicate, stored, time]", "time"},
		{"a field of another type", "duplicate: {type: boolean", "duplicate: {type: string", "duplicate"},
		{"a content type", "            text/event-stream:\n", "            text/events:\n", "text/event-stream"},
		{"a line of a batch", "required: [index]", "required: [index, number]", "is no BatchResult"},
		{"an event", "required: [topic, time]", "required: [topic, time, sender]", "is no Message"},
		{"a code of an answer", "code: {enum: [id_conflict, repeat_too_old]}", "code: {enum: [repeat_too_old, out_of_order]}", "/code"},
		{"a header of an answer", "            X-Accel-Buffering: {$ref: \"#/components/headers/NoBuffering\"}\n          content:\n            text/event-stream", "          content:\n            text/event-stream", "X-Accel-Buffering"},
		{"a header that is not sent", "            Retry-After: {$ref: \"#/components/headers/RetryAfter\"}\n          content:\n            application/problem+json:\n              schema:\n                allOf:\n                  - $ref: \"#/components/schemas/Problem\"\n                  - properties:\n                      status: {const: 507}", "            Retry-Afterwards: {$ref: \"#/components/headers/RetryAfter\"}\n          content:\n            application/problem+json:\n              schema:\n                allOf:\n                  - $ref: \"#/components/schemas/Problem\"\n                  - properties:\n                      status: {const: 507}", "Retry-Afterwards"},
		{"a parameter", "        - name: before\n", "        - name: behind\n", "it took the parameter before"},
		{"a header of a request", "        - name: Tidewire-Expires-At\n", "        - name: Tidewire-Expires\n", "it took the header Tidewire-Expires-At"},
		{"a parameter that nobody sent", "        - name: before\n", "        - {name: around, in: query, schema: {type: string}}\n        - name: before\n", "no request with the query parameter around"},
		{"a parameter that is too narrow", "enum: [catch_up, conflate, disconnect]", "enum: [catch_up, disconnect]", "slow"},
		{"a request that is too narrow", "confirm: {type: string, description", "confirm: {type: integer, description", "confirm"},
		{"an answer that never comes", "        \"304\":\n", "        \"410\": {description: Gone.}\n        \"304\":\n", "GET /v1/openapi.yaml: no answer 410"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := string(docs.OpenAPI)
			if !strings.Contains(text, c.old) {
				t.Fatalf("the document lacks %q", c.old)
			}
			text = strings.Replace(text, c.old, c.new, 1)
			api, err := parseAPI([]byte(text))
			if err != nil {
				if !strings.Contains(err.Error(), c.want) {
					t.Errorf("it cannot be read: %v", err)
				}
				return
			}
			var all []string
			for _, look := range []func() []string{ // the slow one last
				func() []string { return api.lint(text) }, api.checkCodes, api.checkLimits,
				func() []string { return api.checkRoutes(registered) }, func() []string { return api.checkCoverage(said) },
				func() []string { return api.checkAll(said) },
			} {
				all = append(all, look()...)
				if slices.ContainsFunc(all, func(s string) bool { return strings.Contains(s, c.want) }) {
					return
				}
			}
			t.Errorf("it is not noticed, only %q", all)
		})
	}
}

// operations calls f for each operation of the document.
func (a apiDocument) operations(f func(name, path, method string, item *openapi3.PathItem, op *openapi3.Operation)) {
	for _, path := range slices.Sorted(maps.Keys(a.Paths.Map())) {
		item := a.Paths.Value(path)
		for _, method := range slices.Sorted(maps.Keys(item.Operations())) {
			f(method+" "+path, path, method, item, item.GetOperation(method))
		}
	}
}

var componentPattern = regexp.MustCompile(`#/components/[a-z]+/([A-Za-z]+)`)

// lint holds the document against OpenAPI 3.1, its examples against their
// schemas, and against some habits.
func (a apiDocument) lint(text string) (complaints []string) {
	complain := func(format string, args ...any) { complaints = append(complaints, fmt.Sprintf(format, args...)) }
	if err := a.Validate(context.Background(), openapi3.EnableExamplesValidation(), openapi3.EnableSchemaFormatValidation()); err != nil {
		complain("%v", err)
	}
	if !strings.HasPrefix(a.OpenAPI, "3.1.") {
		complain("it is OpenAPI %s", a.OpenAPI)
	}
	ids := map[string]string{}
	a.operations(func(name, _, _ string, _ *openapi3.PathItem, op *openapi3.Operation) {
		if op.Summary == "" {
			complain("%s has no summary", name)
		}
		if other := ids[op.OperationID]; op.OperationID == "" || other != "" {
			complain("%s has the id %q, as has %q", name, op.OperationID, other)
		}
		ids[op.OperationID] = name
		if len(op.Tags) == 0 {
			complain("%s has no tag", name)
		}
		for _, tag := range op.Tags {
			if a.Tags.Get(tag) == nil {
				complain("%s: there is no tag %s", name, tag)
			}
		}
	})
	used := map[string]bool{}
	for _, m := range componentPattern.FindAllStringSubmatch(text, -1) {
		used[m[1]] = true
	}
	c := a.Components
	names := slices.Concat(slices.Collect(maps.Keys(c.Schemas)), slices.Collect(maps.Keys(c.Responses)), slices.Collect(maps.Keys(c.Headers)), slices.Collect(maps.Keys(c.Parameters)))
	for _, name := range names {
		if !used[name] {
			complain("the component %s is not used", name)
		}
	}
	return complaints
}

// wireCodes are never the code of an answer: they are said over a WebSocket, of
// a message of a batch, or of a path or method that is not described.
var wireCodes = []protocol.Code{
	protocol.CodeOutOfOrder, protocol.CodeTooManySubscriptions,
	protocol.CodeSubscriptionInUse, protocol.CodeUnknownSubscription, protocol.CodeMethodNotAllowed,
	protocol.CodePingTimeout, protocol.CodeBadFrame, protocol.CodeWrongFrameType, protocol.CodeConnectFirst,
	protocol.CodeConnectTwice, protocol.CodeConnectTimeout,
	protocol.CodeTakenOver, protocol.CodeFenced, protocol.CodeNotPending, protocol.CodeNeverDelivered,
}

// checkCodes compares the codes with the table of the protocol.
func (a apiDocument) checkCodes() (complaints []string) {
	complain := func(format string, args ...any) { complaints = append(complaints, fmt.Sprintf(format, args...)) }
	var want []any
	for _, info := range protocol.Codes() {
		want = append(want, string(info.Code))
	}
	if got := a.Components.Schemas["Code"].Value.Enum; !slices.Equal(got, want) {
		complain("the codes are %v, those of the protocol %v", got, want)
	}
	used := map[protocol.Code]bool{}
	a.operations(func(name, _, _ string, _ *openapi3.PathItem, op *openapi3.Operation) {
		for status, response := range op.Responses.Map() {
			content := response.Value.Content[problemType]
			if content == nil {
				continue
			}
			where := name + " " + status
			codes, said := problemsOf(content.Schema.Value)
			if said != status {
				complain("%s: its status is %q", where, said)
			}
			if len(codes) == 0 {
				complain("%s does not list its codes", where)
			}
			for _, code := range codes {
				used[code] = true
				if is := code.Info().Status; strconv.Itoa(is) != status {
					complain("%s: %s has the status %d", where, code, is)
				}
			}
		}
	})
	for _, info := range protocol.Codes() {
		if wire := slices.Contains(wireCodes, info.Code); wire == used[info.Code] {
			complain("%s is in no answer, and not among those that are no answers; or it is both", info.Code)
		}
	}
	return complaints
}

// problemsOf reads which refusals a schema allows.
func problemsOf(schema *openapi3.Schema) (codes []protocol.Code, status string) {
	for _, part := range schema.AllOf {
		if part.Ref != "" {
			continue
		}
		if s := part.Value.Properties["status"]; s != nil {
			status = fmt.Sprint(s.Value.Const)
		}
		if c := part.Value.Properties["code"]; c != nil {
			for _, code := range c.Value.Enum {
				codes = append(codes, protocol.Code(fmt.Sprint(code)))
			}
		}
	}
	return codes, status
}

func (a apiDocument) checkLimits() (complaints []string) {
	for name, limit := range limitsOf(a) {
		if limit[0] != limit[1] {
			complaints = append(complaints, fmt.Sprintf("%s: the limit is %d, the code has %d", name, limit[0], limit[1]))
		}
	}
	return complaints
}

// checkRoutes compares the operations with the routes, "listener METHOD /path".
func (a apiDocument) checkRoutes(registered []string) (complaints []string) {
	var described []string
	a.operations(func(_, path, method string, item *openapi3.PathItem, _ *openapi3.Operation) {
		for _, listener := range a.listeners(item) {
			described = append(described, listener+" "+method+" "+path)
		}
	})
	for _, r := range registered {
		if !slices.Contains(described, r) {
			complaints = append(complaints, r+" is not described")
		}
	}
	for _, d := range described {
		if !slices.Contains(registered, d) {
			complaints = append(complaints, d+" is no route")
		}
	}
	return complaints
}

// registeredRoutes reads from the source of this package which routes there are:
// http.ServeMux does not say.
func registeredRoutes(t *testing.T) (all []string) {
	t.Helper()
	files, err := fs.Glob(os.DirFS("."), "*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			selector, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			switch selector.Sel.Name {
			case "handle":
				if len(call.Args) != 3 {
					return true // of something else
				}
				all = append(all, publicListener+" "+literal(t, call.Args[0])+" "+literal(t, call.Args[1]))
			case "Handle", "HandleFunc":
				pattern := strings.TrimSuffix(literal(t, call.Args[0]), "{$}")
				if !strings.Contains(pattern, profiles) {
					all = append(all, adminListener+" "+pattern)
				}
			}
			return true
		})
	}
	if len(all) < 10 {
		t.Fatalf("only %d routes were found", len(all))
	}
	return all
}

func literal(t *testing.T, e ast.Expr) string {
	t.Helper()
	l, ok := e.(*ast.BasicLit)
	if !ok {
		t.Fatal("a route is registered with something that is no literal: this test cannot read it")
	}
	text, err := strconv.Unquote(l.Value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (a apiDocument) checkAll(said []*exchange) (complaints []string) {
	for _, x := range said {
		for _, c := range a.check(x) {
			complaints = append(complaints, x.String()+": "+c)
		}
	}
	return complaints
}

// unprovoked are described answers that no test gets, with the reason.
var unprovoked = map[string]string{
	"GET /healthz 500":         "nothing in it can fail",
	"GET /v1/openapi.yaml 500": "nothing in it can fail",
	"POST /v1/messages 500":    "what fails there is an error in a result, or cuts the connection",
	"GET / 500":                "nothing in it can fail",
	"GET /v1/ws 500":           "nothing before the upgrade can fail",
}

// checkCoverage says which described answers and parameters did not occur.
func (a apiDocument) checkCoverage(said []*exchange) (complaints []string) {
	seen := map[string]bool{}
	for _, x := range said {
		route, _ := a.find(x.listener, x.request.Method, x.request.URL)
		if route == nil {
			continue
		}
		name := route.Method + " " + route.Path
		seen[fmt.Sprintf("%s %d", name, x.status)] = true
		if x.status >= 400 {
			continue
		}
		for key := range x.request.URL.Query() {
			seen[name+" query "+key] = true
		}
		for key := range x.request.Header {
			if strings.HasPrefix(key, headerApp) {
				key = headerApp + "NAME"
			}
			seen[name+" header "+strings.ToLower(key)] = true
		}
	}
	a.operations(func(name, _, _ string, item *openapi3.PathItem, op *openapi3.Operation) {
		for status := range op.Responses.Map() {
			if _, excused := unprovoked[name+" "+status]; excused == seen[name+" "+status] {
				complaints = append(complaints, fmt.Sprintf("%s: no answer %s, and it is not excused; or it is both", name, status))
			}
		}
		for _, p := range paramsOf(item, op) {
			key := p.Name
			if p.In == "header" {
				key = strings.ToLower(key)
				if strings.HasPrefix(p.Name, headerApp) {
					key = strings.ToLower(headerApp) + "name"
				}
			}
			if p.In != "path" && !seen[name+" "+p.In+" "+key] {
				complaints = append(complaints, fmt.Sprintf("%s: no request with the %s parameter %s was taken", name, p.In, p.Name))
			}
		}
	})
	return complaints
}

// asker asks a server everything, and keeps what was said.
type asker struct {
	t        *testing.T
	listener string
	handler  http.Handler
	said     []*exchange
	refusal  *protocol.Error // why the connection of the next requests has no room
}

func (a *asker) ask(method, target, body string, headers ...string) *exchange {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = strings.TrimPrefix(a.listener, "http://")
	setHeaders(r, headers)
	if a.refusal != nil {
		r = r.WithContext(context.WithValue(r.Context(), guestKey{}, &guest{refusal: a.refusal}))
	}
	w := httptest.NewRecorder()
	a.handler.ServeHTTP(w, r)
	x := &exchange{a.listener, r, []byte(body), w.Code, w.Header(), w.Body.Bytes()}
	a.said = append(a.said, x)
	return x
}

// want asks, and expects a status.
func (a *asker) want(status int, method, target, body string, headers ...string) []byte {
	a.t.Helper()
	x := a.ask(method, target, body, headers...)
	if x.status != status {
		a.t.Errorf("%s, want %d: %s", x, status, cut(x.answer))
	}
	return x.answer
}

// exchanges asks servers until everything that the document knows was said.
func exchanges(t *testing.T) []*exchange {
	t.Helper()
	pub := &asker{t: t, listener: publicListener}
	publicExchanges(pub)
	refusedExchanges(pub)
	streamedExchanges(pub)
	consumerExchanges(pub)
	admin := &asker{t: t, listener: adminListener}
	adminExchanges(admin)
	consumerAdminExchanges(admin)
	return append(pub.said, admin.said...)
}

const (
	ofA       = "/v1/topics/a.b/messages"
	atBatches = "/v1/messages"
	atEvents  = "/v1/events?filter=a.b"
)

// publicExchanges asks a broker that takes everybody.
func publicExchanges(a *asker) {
	e := newTestEdge(a.t, anyone())
	a.handler = e.handler
	a.want(200, "POST", ofA, "1", "Idempotency-Key: one", "Tidewire-Key: k", "Tidewire-Header-Trace-Id: 7", "Tidewire-Expires-At: 2136-01-02T15:04:05Z", "Tidewire-Repeat-Age: 3s", "Content-Type: text/plain")
	a.want(200, "POST", ofA, "1", "Idempotency-Key: one")
	a.want(409, "POST", ofA, "2", "Idempotency-Key: one")
	a.want(200, "POST", ofA, "\xff")
	a.want(200, "POST", ofA, "typing", "Tidewire-Ephemeral: true")
	a.want(400, "POST", "/v1/topics/a..b/messages", "1")
	a.want(400, "POST", ofA, "1", "Tidewire-Nope: 1")
	a.want(403, "POST", "/v1/topics/$x/messages", "1")
	a.want(413, "POST", ofA, strings.Repeat("x", 256<<10+1))

	lines := `{"topic":"a.b","id":"two","json":{"n":1},"key":"k","content_type":"application/json","headers":{"x":"y"},"expires_at":"2136-01-02T15:04:05Z"}` + "\n" + `{"topic":"c","payload":"p"}` + "\n" + `{"topic":"c","payload_base64":"/w=="}`
	a.want(200, "POST", atBatches, lines, "Content-Type: application/x-ndjson", "Tidewire-Repeat-Age: 1")
	a.want(200, "POST", atBatches, lines+"\n"+`{"topic":"c..d","payload":""}`, "Content-Type: application/x-ndjson")
	a.want(200, "POST", atBatches, `[{"topic":"a","payload":"x","ephemeral":true},{"topic":"a","payload":""}]`, "Content-Type: application/json")
	a.want(200, "POST", atBatches, `[{"topic":"a","payload":"x"},`, "Content-Type: application/json") // has a rest
	a.want(400, "POST", atBatches, `{}`, "Content-Type: application/json")
	a.want(400, "POST", atBatches, lines, "Content-Type: text/plain")
	a.want(413, "POST", atBatches, strings.Repeat("\n", batchBytes+1), "Content-Type: application/x-ndjson")

	a.want(200, "GET", ofA, "")
	a.want(200, "GET", ofA+"?from=last:2&limit=1&stream=main", "")
	a.want(200, "GET", ofA+"?before=new", "")
	e.log.Trim(2)
	if !bytes.Contains(a.want(200, "GET", ofA+"?from=earliest", ""), []byte("messages")) {
		a.t.Error("no page")
	}
	a.want(200, "GET", ofA+"?from=p1zzzzz-1", "") // a gap
	a.want(400, "GET", ofA+"?from=7", "")
	a.want(400, "GET", ofA+"?nope=1", "")
	a.want(404, "GET", ofA+"?stream=nope", "")
	a.want(400, "GET", "/v1/events?filter=a..b", "")
	a.want(404, "GET", atEvents+"&stream=nope", "")
	a.want(400, "GET", "/v1/ws", "")
	tag := a.ask("GET", "/v1/openapi.yaml", "")
	if tag.status != 200 || !bytes.Equal(tag.answer, docs.OpenAPI) {
		a.t.Errorf("the document: %d", tag.status)
	}
	a.want(304, "GET", "/v1/openapi.yaml", "", "If-None-Match: "+tag.header.Get("ETag"))
	a.want(200, "GET", "/v1/openapi.yaml", "", `If-None-Match: "other"`)
	for _, path := range []string{"/v1/openapi.yaml", "/healthz", "/readyz"} {
		a.want(200, "GET", path, "")
		a.want(400, "GET", path+"?nope", "")
	}
	for _, code := range []protocol.Code{protocol.CodeStorageFull, protocol.CodeOverloaded, protocol.CodeUnknown, protocol.CodeInternal} {
		e.log.Refuse(protocol.Errorf(code, "not now"))
		a.want(code.Info().Status, "POST", ofA, "x")
	}
	e.log.Refuse(nil)
	e.draining.begin(errDraining)
	a.want(503, "GET", "/readyz", "")
	a.want(503, "POST", atBatches, lines, "Content-Type: application/x-ndjson")
}

// everything is one good request for each operation of the public listener.
var everything = [][]string{
	{"POST", ofA, "x"},
	{"POST", atBatches, `{"topic":"a","payload":""}`, "Content-Type: application/x-ndjson"},
	{"GET", ofA, ""},
	{"GET", atEvents, ""},
	{"GET", "/v1/ws", "", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol: tidewire.v1.json"},
	{"GET", "/v1/openapi.yaml", ""},
	{"GET", "/healthz", ""},
	{"GET", "/readyz", ""},
}

func (a *asker) each(status int, requests [][]string, headers ...string) {
	a.t.Helper()
	for _, r := range requests {
		a.want(status, r[0], r[1], r[2], slices.Concat(r[3:], headers)...)
	}
}

// refusedExchanges asks brokers that refuse whoever asks.
func refusedExchanges(a *asker) {
	e := newTestEdge(a.t, Options{Access: guarded()})
	a.handler = e.handler
	expired := sign(a.t, good(jwt.MapClaims{"exp": time.Now().Add(-time.Hour).Unix()}), string(guarded().JWT.Secret))
	a.each(401, everything[:5])
	a.each(401, everything[:5], "Authorization: Bearer nope")
	a.each(401, everything[:5], "Authorization: Bearer "+expired)

	local := anyone()
	local.Access.Anonymous = Anonymous{Publish: []string{"x"}, Subscribe: []string{"x"}}
	a.handler = newTestEdge(a.t, local).handler
	a.each(403, [][]string{everything[0], everything[2], everything[3]})
	a.each(403, everything[:4], "Origin: https://evil.example")
	a.each(421, everything, "Host: evil.example")

	a.refusal = protocol.Exceeded(protocol.LimitConnections, "no room")
	a.each(503, everything[:6])
	a.refusal = protocol.Exceeded(protocol.LimitConnectionRate, "too fast")
	a.refusal.RetryAfter = time.Second
	a.each(429, everything[:6])
	a.refusal = nil

	o := anyone()
	o.Ready = func() error { panic("broken") }
	broken := newTestEdge(a.t, o)
	broken.broker = nil
	a.handler = broken.handler
	a.each(500, [][]string{everything[0], everything[2], everything[3], everything[7]})
}

// streamedExchanges opens what goes on: events, and a WebSocket.
func streamedExchanges(a *asker) {
	e := newTestEdge(a.t, anyone())
	_, client := e.serve()
	client.Transport = &noting{client.Transport, a}
	position := e.publishText("a.b", "one").Position
	e.store(protocol.Message{Topic: "a.b", Payload: []byte("two")})
	for _, target := range []string{
		atEvents + "&from=earliest", atEvents + "&stream=main&slow=conflate&conflate_ms=60000", atEvents + "&slow=disconnect", atEvents + "&from=p1zzzzz-1",
	} {
		_ = e.get(client, target).Body.Close()
	}
	_ = e.get(client, atEvents, "Last-Event-ID: "+position).Body.Close()
	if x := e.get(client, atEvents+"&slow=conflate&conflate_ms=60001"); x.StatusCode != http.StatusBadRequest {
		a.t.Errorf("conflate_ms beyond what is described: %s", x.Status)
	}
	ws := everything[4]
	_ = e.get(client, ws[1], ws[3:]...).Body.Close()

	// The events of a stream that has ended can be looked at.
	ended := e.get(client, atEvents+"&from=p1zzzzz-1")
	e.streams.end(0)
	text, _ := io.ReadAll(ended.Body)
	for _, want := range []string{"event: gap\n", "event: error\n", `"payload":"two"`} {
		if !strings.Contains(string(text), want) {
			a.t.Errorf("the stream has no %q: %s", want, text)
		}
	}
	a.said = append(a.said, &exchange{publicListener, ended.Request, nil, ended.StatusCode, ended.Header, text})
}

// noting is a transport that notes what goes on.
type noting struct {
	http.RoundTripper
	to *asker
}

func (k *noting) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := k.RoundTripper.RoundTrip(r)
	if err == nil {
		k.to.said = append(k.to.said, &exchange{listener: publicListener, request: r, status: answer.StatusCode, header: answer.Header})
	}
	return answer, err
}

// adminExchanges asks the listener of operators.
func adminExchanges(a *asker) {
	var reasons []string
	var notReady error
	o := anyone()
	o.Registry = prometheus.NewRegistry()
	o.Degraded = func() []string { return reasons }
	o.Ready = func() error { return notReady }
	s, b := newStoredServer(a.t, o)
	a.handler = s.Admin()
	a.want(200, "GET", "/v1/streams", "")
	for _, topic := range []string{"a", "b"} {
		if _, err := b.Publish(a.t.Context(), &broker.Identity{Publish: []protocol.Filter{mustFilter(a.t, ">")}}, &protocol.Message{Topic: topic}, 0); err != nil {
			a.t.Fatal(err)
		}
	}
	for _, path := range []string{"/", "/healthz", "/readyz", "/metrics", "/metrics?name[]=go_goroutines", "/v1/streams", "/v1/topics", "/v1/topics?filter=*&limit=1&after=a&stream=main"} {
		a.want(200, "GET", path, "")
	}
	for _, path := range []string{"/v1/streams", "/v1/topics", "/healthz"} {
		a.want(400, "GET", path+"?nope", "")
	}
	// The public listener answers this one with 400.
	a.want(200, "GET", "/readyz?nope", "")
	a.want(400, "GET", "/v1/topics?filter=a..b", "")
	a.want(404, "GET", "/v1/topics?stream=nope", "")
	purge := []string{"POST", "/v1/streams/main/purge", `{"confirm":"main"}`, "Content-Type: application/json"}
	a.each(200, [][]string{purge})
	a.each(403, [][]string{purge}, "Origin: https://evil.example")
	a.want(400, "POST", "/v1/streams/main/purge", "")
	a.want(413, "POST", "/v1/streams/main/purge", strings.Repeat(" ", adminBodyBytes+1), "Content-Type: application/json")
	a.want(404, "POST", "/v1/streams/nope/purge", `{"confirm":"nope"}`, "Content-Type: application/json")
	backup := []string{"POST", "/v1/backup", ""}
	a.want(400, "POST", "/v1/backup", "")
	outcome := error(nil)
	s.options.Backup = func(_ context.Context, w io.Writer) (m storage.Manifest, err error) {
		if outcome == nil {
			_, err = io.WriteString(w, "an archive")
			return m, err
		}
		return m, outcome
	}
	a.each(200, [][]string{backup})
	a.each(403, [][]string{backup}, "Origin: https://evil.example")
	outcome = storage.ErrBackupRuns
	a.each(503, [][]string{backup})
	outcome = errors.New("the disk is gone")
	a.each(500, [][]string{backup})
	reasons = []string{"a file is damaged"}
	a.want(200, "GET", "/readyz", "")
	notReady = errors.New("the disk is full")
	a.want(503, "GET", "/readyz", "")

	all := [][]string{{"GET", "/v1/streams", ""}, {"GET", "/v1/topics", ""}, purge, backup, {"GET", "/metrics", ""}, {"GET", "/", ""}}
	a.each(421, slices.Concat(all, [][]string{{"GET", "/healthz", ""}, {"GET", "/readyz", ""}}), "Host: evil.example")
	a.refusal = protocol.Exceeded(protocol.LimitAdminConnections, "no room")
	a.each(503, all)
	a.refusal = nil
	s.broker = nil
	a.each(500, all[:3])
	o.Registry.MustRegister(brokenCollector{})
	a.want(500, "GET", "/metrics", "")
}

type brokenCollector struct{}

func (brokenCollector) Describe(c chan<- *prometheus.Desc) {
	c <- prometheus.NewDesc("broken", "Is broken.", nil, nil)
}

func (brokenCollector) Collect(c chan<- prometheus.Metric) {
	c <- prometheus.NewInvalidMetric(prometheus.NewDesc("broken", "Is broken.", nil, nil), errors.New("broken"))
}

// newStoredServer returns a server on a log on disk, into which operators can
// look.
func newStoredServer(t *testing.T, o Options) (*Server, *broker.Broker) {
	t.Helper()
	store, err := storage.Open(t.TempDir(), storage.Options{ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	log, err := store.OpenLog("main", storage.LogOptions{SegmentBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	b := broker.New(log, broker.Options{})
	s, err := New(b, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = b.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		_ = log.Close()
		_ = store.Close()
	})
	return s, b
}

var (
	takesPattern  = regexp.MustCompile(`this path takes (.*)$`)
	headerPattern = regexp.MustCompile(`Tidewire-[A-Za-z-]+`)
)

// A refusal of a parameter or header that is not known lists those that are: they
// are those of the document.
func TestOpenAPIParameters(t *testing.T) {
	api, err := theAPI()
	if err != nil {
		t.Fatal(err)
	}
	public := &asker{t: t, listener: publicListener, handler: newTestEdge(t, anyone()).handler}
	s, _ := newStoredServer(t, anyone())
	admin := &asker{t: t, listener: adminListener, handler: s.Admin()}
	// Paths of which the query is not looked at.
	free := []string{"GET /v1/ws", "POST /v1/streams/{name}/purge", "POST /v1/backup", "GET /metrics", "GET /"}
	api.operations(func(name, path, method string, item *openapi3.PathItem, op *openapi3.Operation) {
		if slices.Contains(free, name) {
			return
		}
		var described []string
		for _, p := range paramsOf(item, op) {
			if p.In == "query" {
				described = append(described, p.Name)
			}
		}
		a := public
		if !slices.Contains(api.listeners(item), publicListener) {
			a = admin
		}
		var p problem
		decode(t, bytes.NewReader(a.want(400, method, strings.NewReplacer("{topic}", "a", "{name}", "a", "{id}", "a").Replace(path)+"?_=1", "")), &p)
		takes := takesPattern.FindStringSubmatch(p.Detail)
		if takes == nil {
			t.Fatalf("%s: %s", name, p.Detail)
		}
		var taken []string
		if takes[1] != "none" {
			taken = strings.Split(takes[1], ", ")
		}
		if !sameWords(described, taken) {
			t.Errorf("%s: docs/openapi.yaml has the parameters %q, the broker takes %q", name, described, taken)
		}
	})

	var p problem
	decode(t, bytes.NewReader(public.want(400, "POST", ofA, "x", "Tidewire-Nope: 1")), &p)
	_, known, _ := strings.Cut(p.Detail, "there are")
	var described []string
	for _, p := range api.Paths.Value("/v1/topics/{topic}/messages").Post.Parameters {
		if strings.HasPrefix(p.Value.Name, headerPrefix) {
			described = append(described, p.Value.Name)
		}
	}
	if taken := headerPattern.FindAllString(known, -1); !sameWords(described, taken) {
		t.Errorf("docs/openapi.yaml has the headers %q, the broker takes %q", described, taken)
	}
}

func sameWords(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}
