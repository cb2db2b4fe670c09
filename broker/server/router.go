package server

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/tidewire/tidewire/protocol"
)

// router finds the handler of a request. It is not http.ServeMux, which would
// redirect an unclean path: POST /v1/topics//messages must not end up at
// another address.
type router struct {
	routes []route
}

type route struct {
	method  string
	pattern string   // as it was registered; the label of metrics
	parts   []string // {name} stands for any one segment
	handler http.HandlerFunc
}

func newRouter() *router { return &router{} }

// handle registers a handler of the API, which docs/openapi.yaml describes. A
// segment {name} of the pattern matches any one segment, which the handler finds,
// decoded, in [http.Request.PathValue].
func (rt *router) handle(method, pattern string, handler http.HandlerFunc) {
	rt.add(method, pattern, handler)
}

// add registers a handler of something else.
func (rt *router) add(method, pattern string, handler http.HandlerFunc) {
	var parts []string // of "/" there are none
	if pattern != "/" {
		parts = strings.Split(pattern[1:], "/")
	}
	rt.routes = append(rt.routes, route{method: method, pattern: pattern, handler: handler, parts: parts})
}

// ServeHTTP answers a request.
func (rt *router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts, err := splitPath(r.URL.EscapedPath())
	if err != nil {
		writeProblem(w, err)
		return
	}
	var methods []string
	for i := range rt.routes {
		route := &rt.routes[i]
		if !route.match(parts) {
			continue
		}
		if route.method == r.Method || (route.method == http.MethodGet && r.Method == http.MethodHead) {
			route.serve(w, r, parts)
			return
		}
		methods = append(methods, route.method)
	}
	if len(methods) == 0 {
		writeProblem(w, protocol.Errorf(protocol.CodeNotFound, "there is nothing at %.80q: docs/http.md lists the paths", r.URL.Path))
		return
	}
	refuseMethod(w, r, methods)
}

func refuseMethod(w http.ResponseWriter, r *http.Request, methods []string) {
	if slices.Contains(methods, http.MethodGet) {
		methods = append(methods, http.MethodHead)
	}
	methods = append(methods, http.MethodOptions)
	slices.Sort(methods)
	allow := strings.Join(methods, ", ")
	w.Header().Set("Allow", allow)
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	writeProblem(w, protocol.Errorf(protocol.CodeMethodNotAllowed, "this path takes %s, not %.20q", allow, r.Method))
}

func (rt *route) match(parts []string) bool {
	if len(parts) != len(rt.parts) {
		return false
	}
	for i, part := range rt.parts {
		if part != parts[i] && !isParam(part) {
			return false
		}
	}
	return true
}

func (rt *route) serve(w http.ResponseWriter, r *http.Request, parts []string) {
	for i, part := range rt.parts {
		if isParam(part) {
			r.SetPathValue(part[1:len(part)-1], parts[i])
		}
	}
	if out, ok := w.(*response); ok {
		out.route = rt.pattern
	}
	rt.handler(w, r)
}

func isParam(part string) bool { return part[0] == '{' }

// splitPath splits a path into its segments and decodes each once, so that an
// encoded slash is a part of its segment. It refuses what others would clean.
func splitPath(escaped string) ([]string, *protocol.Error) {
	if escaped == "" || escaped[0] != '/' {
		return nil, badPath("the path %.80q does not begin with '/'", escaped)
	}
	if escaped == "/" {
		return nil, nil
	}
	parts := strings.Split(escaped[1:], "/")
	for i, part := range parts {
		text, err := url.PathUnescape(part)
		switch {
		case err != nil:
			return nil, badPath("the path %.80q is badly encoded: write '%%' as %%25", escaped)
		case text == "" && i == len(parts)-1:
			return nil, badPath("the path %.80q ends in '/': leave that out", escaped)
		case text == "":
			return nil, badPath("the path %.80q has nothing between two '/': is the topic empty?", escaped)
		case text == "." || text == "..":
			return nil, badPath("the path %.80q has a %q: paths are taken as they are, write the one that you mean", escaped, text)
		}
		parts[i] = text
	}
	return parts, nil
}

func badPath(format string, args ...any) *protocol.Error {
	return protocol.Errorf(protocol.CodeBadRequest, format, args...)
}

// parseQuery reads the query. A parameter that the path does not know is
// refused, so that a misspelt one is not without effect; and so is one given
// twice.
func parseQuery(r *http.Request, allowed ...string) (url.Values, *protocol.Error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, protocol.Errorf(protocol.CodeBadRequest, "the query is badly encoded: write '%%' as %%25, ';' as %%3B, '+' as %%2B")
	}
	for name, values := range q {
		switch {
		case !slices.Contains(allowed, name) && len(allowed) == 0:
			return nil, protocol.Errorf(protocol.CodeBadRequest, "the parameter %.80q is not known: this path takes none", name)
		case !slices.Contains(allowed, name):
			return nil, protocol.Errorf(protocol.CodeBadRequest, "the parameter %.80q is not known: this path takes %s", name, strings.Join(allowed, ", "))
		case len(values) > 1:
			return nil, protocol.Errorf(protocol.CodeBadRequest, "the parameter %s is given %d times, give it once", name, len(values))
		}
	}
	return q, nil
}
