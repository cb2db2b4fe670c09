package server

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/tidewire/tidewire/protocol"
)

func (a *access) setOrigins(origins []string) error {
	a.origins = make(map[string]bool, len(origins))
	for _, text := range origins {
		if text == "*" || text == "null" {
			a.origins[text] = true
			continue
		}
		u, err := url.Parse(text)
		if err != nil || u.Scheme == "" || u.Host == "" || strings.Contains(u.Host, "*") {
			return fmt.Errorf("allowed_origins: %q is no origin, one looks like https://app.example.com or http://localhost:5173", text)
		}
		if u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			return fmt.Errorf("allowed_origins: %q has more than scheme, host and port: write %s://%s", text, u.Scheme, u.Host)
		}
		a.origins[strings.ToLower(u.Scheme)+"://"+hostPort(u.Host, u.Scheme)] = true
	}
	return nil
}

func (a *access) setHosts(hosts []string) error {
	a.hosts = make(map[string]bool, len(hosts))
	for _, text := range hosts {
		if text == "" || strings.ContainsAny(text, "/* @") {
			return fmt.Errorf("allowed_hosts: %q is no host, one looks like broker.example.com or broker.example.com:7070", text)
		}
		a.hosts[strings.ToLower(strings.TrimSuffix(text, "."))] = true
	}
	return nil
}

// checkHost refuses a request that calls the broker by a name that is not its
// own: a page whose name was rebound to a local address. Such a page would pass
// every Origin check.
func (a *access) checkHost(r *http.Request) *protocol.Error {
	if !a.local {
		return nil
	}
	return a.checkLocalHost(r)
}

func (a *access) checkLocalHost(r *http.Request) *protocol.Error {
	whole := strings.ToLower(r.Host)
	name := hostName(whole)
	if isLoopbackName(name) || a.hosts[whole] || a.hosts[name] {
		return nil
	}
	if r.Host == "" {
		return protocol.Errorf(protocol.CodeBadHost, "the Host header is missing")
	}
	return protocol.Errorf(protocol.CodeBadHost, "this broker is not called %.80q: use localhost, or add the name to allowed_hosts", r.Host)
}

// checkOrigin refuses requests of pages that may not use the broker. Requests
// without an Origin are of programs, or of pages of our own.
func (a *access) checkOrigin(r *http.Request) *protocol.Error {
	if len(r.Header.Values("Origin")) == 0 || a.originAllowed(r) {
		return nil
	}
	return protocol.Errorf(protocol.CodeBadOrigin, "pages of the origin %.80q may not use this broker: add it to allowed_origins", r.Header.Get("Origin"))
}

func (a *access) originAllowed(r *http.Request) bool {
	values := r.Header.Values("Origin")
	if len(values) != 1 {
		return false
	}
	origin := values[0]
	if a.origins["*"] {
		return true
	}
	if origin == "null" {
		return a.dev || a.origins["null"]
	}
	scheme, host, ok := splitOrigin(origin)
	return ok && (a.origins[scheme+"://"+host] || (a.dev && isDevOrigin(scheme, host)) || sameOrigin(r, scheme, host))
}

// originLocal reports whether the page was served by this machine.
func (a *access) originLocal(r *http.Request) bool {
	values := r.Header.Values("Origin")
	if len(values) != 1 {
		return false
	}
	scheme, host, ok := splitOrigin(values[0])
	return ok && (isDevOrigin(scheme, host) || sameOrigin(r, scheme, host))
}

// splitOrigin writes both parts of an origin as they are compared.
func splitOrigin(origin string) (scheme, host string, ok bool) {
	scheme, rest, ok := strings.Cut(strings.ToLower(origin), "://")
	if !ok || rest == "" || strings.ContainsAny(rest, "/?#@\\ ") {
		return "", "", false
	}
	return scheme, hostPort(rest, scheme), true
}

// sameOrigin reports whether the page is one that this listener served. Behind
// a proxy that ends TLS only the names can be compared.
func sameOrigin(r *http.Request, scheme, host string) bool {
	if scheme != "https" && (scheme != "http" || r.TLS != nil) {
		return false
	}
	return r.Host != "" && host == hostPort(strings.ToLower(r.Host), scheme)
}

func isDevOrigin(scheme, host string) bool {
	if scheme != "http" && scheme != "https" {
		return false
	}
	switch hostName(host) {
	case "localhost", "127.0.0.1", "::1":
		return true
	}
	return false
}

// fromAllowedPage reports whether the browser vouches for the page that sends
// the request: by Origin, or, where it sends none (GET of the same origin), by
// Sec-Fetch-Site, which no page can set. "null" vouches for nothing: any page
// can make a frame of that origin.
func (a *access) fromAllowedPage(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		return origin != "null" && a.originAllowed(r)
	}
	return r.Header.Get("Sec-Fetch-Site") == "same-origin"
}

// hostName returns the host of "host", "host:port", "[::1]" or "[::1]:port".
func hostName(s string) string {
	if host, _, err := net.SplitHostPort(s); err == nil {
		s = host
	} else if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		s = s[1 : len(s)-1]
	}
	return strings.TrimSuffix(s, ".")
}

// hostPort writes a host without the port that its scheme implies.
func hostPort(s, scheme string) string {
	switch s = strings.ToLower(s); strings.ToLower(scheme) {
	case "http":
		return strings.TrimSuffix(s, ":80")
	case "https":
		return strings.TrimSuffix(s, ":443")
	}
	return s
}

// isLoopbackName reports whether a host name can only mean this machine.
func isLoopbackName(name string) bool {
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Zone() == "" && addr.Unmap().IsLoopback()
}
