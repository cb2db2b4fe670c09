package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	tidewire "github.com/tidewire/tidewire/clients/go"
	"github.com/tidewire/tidewire/config"
)

const (
	askTime       = 5 * time.Second // for each answer of the broker
	maxHealth     = 64 << 10        // bytes of it that are read
	clockJump     = 100 * time.Millisecond
	clockDistance = time.Second // beyond it times in logs mislead; tokens have a leeway besides
)

// localURL is where a listener is reached from its own machine.
func localURL(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "http://" + address
	}
	if ip, err := netip.ParseAddr(host); host == "" || (err == nil && ip.IsUnspecified()) {
		host = "127.0.0.1"
		if err == nil && ip.Is6() {
			host = "::1"
		}
	}
	return "http://" + net.JoinHostPort(host, port)
}

// baseURL reads a URL as people give it to pub and sub: the first of several,
// http or ws, with or without a path.
func baseURL(text string) (*url.URL, error) {
	text, _, _ = strings.Cut(text, ",")
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("%q is not a URL such as %s", text, tidewire.DefaultURL)
	}
	switch u.Scheme {
	case "ws":
		u.Scheme = "http"
	case "wss":
		u.Scheme = "https"
	case "http", "https":
	default:
		return nil, fmt.Errorf("%q does not begin with http:// or https://", text)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// health asks a listener how it is.
func health(ctx context.Context, base, path string) (status int, reasons []string, err error) {
	u, err := baseURL(base)
	if err != nil {
		return 0, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String()+path, nil)
	if err != nil {
		return 0, nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		if ctx.Err() != nil {
			err = errors.New("no answer in time")
		}
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	var body struct {
		Reasons []string `json:"reasons"`
	}
	text, _ := io.ReadAll(io.LimitReader(response.Body, maxHealth))
	_ = json.Unmarshal(text, &body) // what is not ours has no reasons
	return response.StatusCode, body.Reasons, nil
}

// listener says whether clients can reach the broker.
func (d *doctor) listener(ctx context.Context) finding {
	status, _, err := health(ctx, d.server, "/healthz")
	switch {
	case err == nil && status == http.StatusOK:
		d.answers = true
		return fine("a broker answers at %s", d.server)
	case err == nil:
		return failing("give the URL of a broker with --server", "%s answers with HTTP %d: it is no broker, or does not serve this name (allowed_hosts)", d.server, status)
	case d.asked:
		return failing("is the broker running, and is this its address?", "nobody answers at %s (%s)", d.server, reason(err))
	case d.inUse:
		return failing("give its address with --server, or its configuration with --config; if that is right it hangs: look at its log", "a process has the data directory, but nobody answers at %s (%s)", d.server, reason(err))
	}
	return skipped("no broker runs at %s; `tidewire serve` starts one", d.server)
}

// readiness asks the broker what is wrong with it.
func (d *doctor) readiness(ctx context.Context) finding {
	if d.admin == "" {
		return skipped("which listener is for operators is not known: give its URL with --admin")
	}
	status, reasons, err := health(ctx, d.admin, "/readyz")
	switch {
	case err != nil && !d.answers:
		return skipped("no broker runs")
	case err != nil:
		return warning("give its URL with --admin; it is often open to the broker's own machine only", "the admin listener at %s does not answer (%s)", d.admin, reason(err))
	case status == http.StatusOK:
		return fine("the broker is ready")
	case len(reasons) > 0:
		return failing("the broker's log says more", "the broker is not ready: %s", strings.Join(reasons, "; "))
	}
	return warning("give the URL of the admin listener with --admin", "%s answers with HTTP %d: it is no admin listener", d.admin, status)
}

// exposure says who can listen in, and who can reach the operators' listener.
func (d *doctor) exposure(context.Context) finding {
	const proxy = "put a proxy with TLS in front of it, and let only that one reach the broker"
	if d.asked {
		u, err := baseURL(d.server)
		if err == nil && u.Scheme == "http" && !config.Loopback(hostPort(u)) {
			return warning(proxy+"; then use https", "%s is not encrypted: tokens and messages can be read on the way", d.server)
		}
		if err != nil || u.Scheme == "https" {
			return fine("connections to %s are encrypted", d.server)
		}
	}
	switch {
	case !config.Loopback(d.settings.Admin):
		return warning("set admin to an address of this machine or of a network of operators", "the admin listener %s asks nobody for a key, and other machines may reach it", d.settings.Admin)
	case !config.Loopback(d.settings.Listen):
		return warning(proxy, "%s can be reached from other machines and is not encrypted: tokens and messages can be read on the way", d.settings.Listen)
	}
	return fine("the listeners can be reached from this machine alone")
}

// hostPort is the address of a URL, as a listener would write it.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// clock notices that the machine's clock is set while it runs.
type clock struct{ begun time.Time }

func startClock() clock { return clock{begun: time.Now()} }

// jumped is by how much the clock was set since then: how far the time of day has
// gone, less the time that has passed.
func (c clock) jumped(now time.Time) time.Duration {
	return now.Round(0).Sub(c.begun.Round(0)) - now.Sub(c.begun)
}

// session opens a session with the broker, which tells its version and its time.
func (d *doctor) session(ctx context.Context, c clock) []finding {
	version, distance, known := d.greet(ctx)
	version.Name = "version"
	now := d.judgeClock(c.jumped(time.Now()), distance, known)
	now.Name = "clock"
	return []finding{version, now}
}

// greet returns what is to be said of the broker's version, and how far its clock
// is ahead, if that is known.
func (d *doctor) greet(ctx context.Context) (f finding, ahead time.Duration, known bool) {
	if !d.answers {
		return skipped("no broker answers"), 0, false
	}
	u, err := baseURL(d.server)
	if err != nil {
		return skipped("no broker answers"), 0, false
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	client, err := tidewire.Connect(ctx, tidewire.Options{
		URLs: []string{u.String()}, Name: "tidewire-doctor/" + programVersion(),
		Token: func(context.Context) (string, error) { return d.token, nil },
	})
	if e, ok := errors.AsType[*tidewire.HandshakeError](err); ok && e.Status == http.StatusUnauthorized {
		if d.token == "" {
			return skipped("the broker tells it to whoever has a token; give one with --token or TIDEWIRE_TOKEN"), 0, false
		}
		return warning("give a good one with --token or TIDEWIRE_TOKEN", "the broker does not take this token: %s", plain(err)), 0, false
	}
	if err != nil {
		return failing("does a proxy before the broker pass WebSocket connections?", "HTTP is answered, but no session can be opened: %v", err), 0, false
	}
	defer func() { _ = client.Close(ctx) }()
	g := client.Greeting()
	ours := "tidewire/" + programVersion()
	if g.Server != ours {
		return warning("use the same version for both", "the broker is %s, this command is %s", g.Server, ours), g.Clock, true
	}
	return fine("the broker and this command are both %s", ours), g.Clock, true
}

// judgeClock says whether the clocks can be trusted.
func (d *doctor) judgeClock(jumped, ahead time.Duration, known bool) finding {
	const advice = "let a time service keep the clocks of both machines, such as chrony or systemd-timesyncd"
	leeway := time.Duration(d.settings.Auth.JWT.Leeway)
	switch {
	case jumped.Abs() > clockJump:
		return warning(advice, "the clock of this machine was set by %v while it was looked at", jumped.Round(time.Millisecond))
	case known && ahead.Abs() > max(leeway, clockDistance):
		return warning(advice, "the broker's clock differs by %v from the one here, more than auth.jwt.leeway (%v): tokens begin and expire at the wrong time", ahead.Round(time.Millisecond), leeway)
	case known && ahead.Abs() > clockDistance:
		return warning(advice, "the broker's clock differs by %v from the one here", ahead.Round(time.Millisecond))
	case known:
		return fine("it runs evenly, and the broker's differs by %v", ahead.Round(time.Millisecond))
	}
	return fine("it runs evenly")
}
