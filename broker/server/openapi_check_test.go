package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/tidewire/tidewire/docs"
	"github.com/tidewire/tidewire/protocol"
)

// The listeners, as the document names them.
const (
	publicListener = "http://localhost:7070"
	adminListener  = "http://localhost:7071"
)

const problemType = "application/problem+json"

func init() {
	text := func(r io.Reader, _ http.Header, _ *openapi3.SchemaRef, _ openapi3filter.EncodingFn) (any, error) {
		b, err := io.ReadAll(r)
		return string(b), err
	}
	openapi3filter.RegisterBodyDecoder(ndjsonType, text)
	openapi3filter.RegisterBodyDecoder("text/event-stream", text)
}

// apiDocument is a document that describes an API, with which what was really
// said can be compared.
type apiDocument struct{ *openapi3.T }

func parseAPI(text []byte) (apiDocument, error) {
	doc, err := openapi3.NewLoader().LoadFromData(text)
	return apiDocument{doc}, err
}

// theAPI is docs/openapi.yaml.
var theAPI = sync.OnceValues(func() (apiDocument, error) { return parseAPI(docs.OpenAPI) })

// exchange is a request and its answer.
type exchange struct {
	listener string
	request  *http.Request // its body was read
	sent     []byte
	status   int
	header   http.Header
	answer   []byte // nil if it goes on
}

func (x *exchange) String() string {
	return fmt.Sprintf("%s %s: %d", x.request.Method, x.request.URL, x.status)
}

// noteExchange compares an exchange with the document, in any test.
func noteExchange(t testing.TB, x *exchange) {
	t.Helper()
	api, err := theAPI()
	if err != nil {
		t.Fatal(err)
	}
	for _, complaint := range api.check(x) {
		t.Errorf("%s: docs/openapi.yaml: %s", x, complaint)
	}
}

// notingTransport compares what goes on with the document, but for bodies, which
// may be streams.
type notingTransport struct {
	http.RoundTripper
	t testing.TB
}

// RoundTrip sends a request.
func (n notingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := n.RoundTripper.RoundTrip(r)
	if err == nil {
		noteExchange(n.t, &exchange{listener: publicListener, request: r, status: answer.StatusCode, header: answer.Header})
	}
	return answer, err
}

// find returns the operation of a request, nil if there is none.
func (a apiDocument) find(listener, method string, at *url.URL) (route *routers.Route, params map[string]string) {
	parts, bad := splitPath(at.EscapedPath())
	if bad != nil {
		return nil, nil
	}
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for _, path := range slices.Sorted(maps.Keys(a.Paths.Map())) {
		item := a.Paths.Value(path)
		op := item.GetOperation(method)
		names := strings.Split(strings.TrimPrefix(path, "/"), "/")
		if path == "/" {
			names = nil
		}
		if op == nil || len(names) != len(parts) || !slices.Contains(a.listeners(item), listener) {
			continue
		}
		params = map[string]string{}
		for i, name := range names {
			if isParam(name) {
				params[strings.Trim(name, "{}")] = parts[i]
			} else if name != parts[i] {
				params = nil
				break
			}
		}
		if params != nil {
			return &routers.Route{Spec: a.T, Path: path, PathItem: item, Method: method, Operation: op}, params
		}
	}
	return nil, nil
}

// listeners returns where the operations of a path are.
func (a apiDocument) listeners(item *openapi3.PathItem) (all []string) {
	servers := item.Servers
	if len(servers) == 0 {
		servers = a.Servers
	}
	for _, s := range servers {
		all = append(all, s.URL)
	}
	return all
}

// check compares an exchange with the document, and returns what differs.
func (a apiDocument) check(x *exchange) (complaints []string) {
	route, params := a.find(x.listener, x.request.Method, x.request.URL)
	if route == nil {
		return a.checkElsewhere(x)
	}
	ctx := context.Background()
	request := x.request.Clone(ctx)
	request.Body = io.NopCloser(bytes.NewReader(x.sent))
	in := &openapi3filter.RequestValidationInput{
		Request: request, PathParams: params, Route: route, QueryParams: x.request.URL.Query(),
		Options: &openapi3filter.Options{
			AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, SkipSettingDefaults: true, IncludeResponseStatus: true,
			// A message of a batch may be wrong by itself.
			ExcludeRequestBody:  route.Operation.OperationID == "publishBatch" && bytes.Contains(x.answer, []byte(`"error"`)),
			ExcludeResponseBody: x.answer == nil,
		},
	}
	if x.status < 400 {
		if err := openapi3filter.ValidateRequest(ctx, in); err != nil {
			complaints = append(complaints, fmt.Sprintf("the request was taken, but: %v", err))
		}
		complaints = append(complaints, a.checkGiven(x, route)...)
	}
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: x.status, Header: x.header, Options: in.Options}
	out.SetBodyBytes(x.answer)
	if err := openapi3filter.ValidateResponse(ctx, out); err != nil {
		complaints = append(complaints, fmt.Sprintf("the answer: %v: %s", err, cut(x.answer)))
	}
	if response := route.Operation.Responses.Status(x.status); response != nil {
		complaints = append(complaints, checkHeaders(x.header, response.Value)...)
		if given := x.header.Get("Content-Type"); given != "" && response.Value.Content.Get(given) == nil {
			complaints = append(complaints, "the answer has the content type "+given)
		}
	}
	return append(complaints, a.checkParts(x)...)
}

func cut(b []byte) []byte { return b[:min(len(b), 500)] }

// profiles are Go's own; the document leaves them out.
const profiles = "/debug/pprof/"

// checkElsewhere is about requests that no operation takes: none may be served.
func (a apiDocument) checkElsewhere(x *exchange) []string {
	switch {
	case x.request.Method == http.MethodOptions && x.status == http.StatusNoContent:
	case x.listener == adminListener && strings.HasPrefix(x.request.URL.Path, profiles):
	case x.status < 400 || (x.listener == publicListener && x.header.Get("Content-Type") != problemType):
		return []string{"there is no such operation, but it is answered"}
	}
	return nil
}

// checkGiven says which parameters of a request that was taken are not in the
// document.
func (a apiDocument) checkGiven(x *exchange, route *routers.Route) (complaints []string) {
	lax := x.listener == adminListener && !strings.HasPrefix(route.Path, "/v1/")
	for name := range x.request.URL.Query() {
		if lax {
			break
		}
		if a.param(route, "query", name) == nil {
			complaints = append(complaints, "it took the parameter "+name)
		}
	}
	for name := range x.request.Header {
		ours := strings.HasPrefix(name, headerPrefix) || name == headerID || name == "Last-Event-Id"
		if ours && a.param(route, "header", name) == nil {
			complaints = append(complaints, "it took the header "+name)
		}
	}
	return complaints
}

// param finds a parameter, nil if it is not there.
func (a apiDocument) param(route *routers.Route, in, name string) *openapi3.Parameter {
	if strings.HasPrefix(name, headerApp) {
		name = headerApp + "NAME"
	}
	for _, p := range paramsOf(route.PathItem, route.Operation) {
		if p.In == in && (p.Name == name || (in == "header" && strings.EqualFold(p.Name, name))) {
			return p
		}
	}
	return nil
}

func paramsOf(item *openapi3.PathItem, op *openapi3.Operation) (all []*openapi3.Parameter) {
	for _, p := range slices.Concat(item.Parameters, op.Parameters) {
		all = append(all, p.Value)
	}
	return all
}

// What every answer may have; info.description speaks of some.
var commonHeaders = []string{"Content-Type", "Content-Length", "Content-Encoding", "Transfer-Encoding", "Date", "Connection", "Vary", "Allow"}

func checkHeaders(header http.Header, response *openapi3.Response) (complaints []string) {
	for name := range header {
		if slices.Contains(commonHeaders, name) || strings.HasPrefix(name, "Access-Control-") ||
			strings.HasPrefix(name, http.TrailerPrefix) { // which the recorder does not tell from headers
			continue
		}
		described := func(as string) bool { return strings.EqualFold(as, name) }
		if !slices.ContainsFunc(slices.Collect(maps.Keys(response.Headers)), described) {
			complaints = append(complaints, "the answer has the header "+name)
		}
	}
	return complaints
}

// manyLines at the start and at the end of an answer are looked at.
const manyLines = 10

// checkParts looks at what is JSON within an answer that is none: lines and
// events.
func (a apiDocument) checkParts(x *exchange) (complaints []string) {
	part := func(schema string, text []byte) {
		var value any
		err := json.Unmarshal(text, &value)
		if s := a.Components.Schemas[schema]; err == nil && s == nil {
			err = errors.New("there is no such schema")
		} else if err == nil {
			err = s.Value.VisitJSON(value, openapi3.EnableJSONSchema2020())
		}
		if err != nil {
			complaints = append(complaints, fmt.Sprintf("%s is no %s: %v", cut(text), schema, err))
		}
	}
	switch x.header.Get("Content-Type") {
	case ndjsonType:
		lines := slices.Collect(bytes.Lines(x.answer))
		if n := len(lines); n > 2*manyLines { // a schema is compiled anew for each
			lines = slices.Concat(lines[:manyLines], lines[n-manyLines:])
		}
		for _, line := range lines {
			part("BatchResult", line)
		}
	case "text/event-stream":
		schema := "Message"
		for line := range bytes.Lines(x.answer) {
			if name, ok := bytes.CutPrefix(line, []byte("event: ")); ok {
				schema = map[string]string{"gap": "Gap", "error": "Problem"}[string(bytes.TrimSpace(name))]
			} else if data, ok := bytes.CutPrefix(line, []byte("data: ")); ok {
				part(schema, data)
			} else if len(bytes.TrimSpace(line)) == 0 {
				schema = "Message"
			}
		}
	}
	return complaints
}

// limitsOf says where the document states limits, and what they are.
func limitsOf(a apiDocument) map[string][2]int {
	schema := func(name string) *openapi3.Schema {
		if s := a.Components.Schemas[name]; s != nil {
			return s.Value
		}
		return &openapi3.Schema{Properties: openapi3.Schemas{}}
	}
	most := func(s *openapi3.Schema) int {
		switch {
		case s == nil:
		case s.MaxLength != nil:
			return int(*s.MaxLength)
		case s.MaxItems != nil:
			return int(*s.MaxItems)
		case s.MaxProps != nil:
			return int(*s.MaxProps)
		case s.Max != nil:
			return int(*s.Max)
		}
		return -1
	}
	property := func(of, name string) int {
		if p := schema(of).Properties[name]; p != nil {
			return most(p.Value)
		}
		return -1
	}
	param := func(method, path, name string) int {
		item := a.Paths.Value(path)
		for _, p := range paramsOf(item, item.GetOperation(method)) {
			if p.Name == name {
				return most(p.Schema.Value)
			}
		}
		return -1
	}
	const messages = "/v1/topics/{topic}/messages"
	headers := schema("Headers")
	value := -1
	if s := headers.AdditionalProperties.Schema; s != nil {
		value = most(s.Value)
	}
	return map[string][2]int{
		"Topic":                   {most(schema("Topic")), protocol.MaxTopicBytes},
		"Filter":                  {most(schema("Filter")), protocol.MaxTopicBytes},
		"NewMessage.id":           {property("NewMessage", "id"), protocol.MaxIDBytes},
		"NewMessage.key":          {property("NewMessage", "key"), protocol.MaxKeyBytes},
		"NewMessage.content_type": {property("NewMessage", "content_type"), protocol.MaxContentTypeBytes},
		"Message.id":              {property("Message", "id"), protocol.MaxIDBytes},
		"Message.key":             {property("Message", "key"), protocol.MaxKeyBytes},
		"Message.content_type":    {property("Message", "content_type"), protocol.MaxContentTypeBytes},
		"Message.publisher":       {property("Message", "publisher"), protocol.MaxPublisherBytes},
		"Headers":                 {most(headers), protocol.MaxHeaders},
		"value of Headers":        {value, protocol.MaxHeaderValueBytes},
		"Tidewire-Key":            {param("POST", messages, headerKey), protocol.MaxKeyBytes},
		"Tidewire-Header-NAME":    {param("POST", messages, headerApp+"NAME"), protocol.MaxHeaderValueBytes},
		"limit of history":        {param("GET", messages, "limit"), protocol.LimitHistory.Default()},
		"limit of topics":         {param("GET", "/v1/topics", "limit"), maxTopics},
		"name of a consumer":      {param("POST", "/v1/consumers/{name}/fetch", "name"), protocol.MaxConsumerBytes},
		"max of a fetch":          {param("POST", "/v1/consumers/{name}/fetch", "max"), maxFetch},
		"limit of dead letters":   {param("GET", "/v1/consumers/{name}/dead", "limit"), maxDead},
		"ids of dead letters":     {property("DeadSelection", "ids"), maxDeadIDs},
		"ids to redrive":          {property("Redrive", "ids"), maxDeadIDs},
		"conflate_ms":             {param("GET", "/v1/events", "conflate_ms"), 60_000},
	}
}
