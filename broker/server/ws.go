package server

import (
	"bufio"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lxzan/gws"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/protocol"
)

// codecs are the subprotocols that are spoken, the preferred one first.
var codecs = []protocol.Codec{protocol.Proto{}, protocol.JSON{}}

// readBuffer is the size of a connection's read buffer. Frames longer than that
// are read straight into their own buffer.
const readBuffer = 512

// serveWebSocket is GET /v1/ws: it decides, upgrades, and leaves the connection
// to a reader goroutine of its own, so that what net/http holds for a request
// is freed.
func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	if !isUpgrade(r) {
		writeProblem(w, protocol.Errorf(protocol.CodeBadRequest, "this is a WebSocket address: connect with a WebSocket client and the subprotocol %s or %s", protocol.SubprotocolProto, protocol.SubprotocolJSON))
		return
	}
	rules := s.rules.Load()
	var identity *broker.Identity
	refusal := noRoom(r)
	if refusal == nil {
		identity, refusal = s.admit(r)
	}
	codec, offered := chooseCodec(r)
	if refusal == nil && codec == nil {
		refusal = protocol.Errorf(protocol.CodeBadSubprotocol, "ask for the subprotocol %s or %s", protocol.SubprotocolProto, protocol.SubprotocolJSON)
	}
	if refusal == nil && s.draining.Load() {
		refusal = protocol.Errorf(protocol.CodeGoingAway, "the broker is shutting down: connect again")
	}
	if refusal != nil {
		s.metrics.upgradesRefused.WithLabelValues(string(refusal.Code)).Inc()
		s.metrics.limits.Refused(refusal)
		s.refuseUpgrade(w, r, offered, refusal)
		return
	}
	c := &conn{server: s, rules: rules, codec: codec, identity: identity}
	if socket := c.upgrade(w, r, codec.Subprotocol()); socket != nil {
		c.open()
		go c.read(socket)
	}
}

// isUpgrade reports whether the request asks for a WebSocket.
func isUpgrade(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket") &&
		strings.Contains(strings.ToLower(r.Header.Get("Connection")), "upgrade")
}

// chooseCodec returns the codec for the subprotocols that a request offers, and
// the first of them that is not a token: what a refused browser gets echoed, so
// that it can read the close code.
func chooseCodec(r *http.Request) (codec protocol.Codec, offered string) {
	names := subprotocols(r)
	for _, name := range names {
		if offered == "" && !strings.HasPrefix(name, bearerSubprotocol) {
			offered = name
		}
	}
	for _, c := range codecs {
		if slices.Contains(names, c.Subprotocol()) {
			return c, c.Subprotocol()
		}
	}
	return nil, offered
}

// subprotocols lists what a request offers.
func subprotocols(r *http.Request) []string {
	var names []string
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for name := range strings.SplitSeq(line, ",") {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return names
}

// bearerSubprotocol begins the subprotocol in which a token is sent by who cannot
// set headers.
const bearerSubprotocol = "bearer."

// readsNoStatus reports whether the client is one that cannot read the status of
// a refused upgrade: it speaks through the WebSocket of the web. In a browser that
// sends an Origin; in Node.js, Deno and Bun it does not, but who has a token can
// offer it as a subprotocol alone.
func readsNoStatus(r *http.Request) bool {
	isToken := func(name string) bool { return strings.HasPrefix(name, bearerSubprotocol) }
	return r.Header.Get("Origin") != "" || slices.ContainsFunc(subprotocols(r), isToken)
}

// refuseUpgrade tells a client that it may not connect: by the status of the
// answer. Who cannot read that is upgraded, gets a close code and is closed, and
// never has a session.
func (s *Server) refuseUpgrade(w http.ResponseWriter, r *http.Request, offered string, refusal *protocol.Error) {
	info := refusal.Code.Info()
	if info.Close == 0 || !readsNoStatus(r) {
		if noRoom(r) != nil {
			w.Header().Set("Connection", "close")
		}
		writeProblem(w, refusal)
		return
	}
	c := &conn{server: s}
	if socket := c.upgrade(w, r, offered); socket != nil {
		c.wire.goodbye(closeFrame(info.Close, refusal.Message))
		go c.read(socket)
	}
}

// upgrade takes the connection over from net/http and answers the handshake.
// It returns nil if that failed; the client knows then.
func (c *conn) upgrade(w http.ResponseWriter, r *http.Request, subprotocol string) *gws.Conn {
	netConn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		writeProblem(w, protocol.Errorf(protocol.CodeBadRequest, "WebSocket needs HTTP/1.1"))
		return nil
	}
	_ = netConn.SetDeadline(time.Time{})
	c.wire = &wire{Conn: netConn, out: direct(netConn), timeout: c.server.limits().WriteTimeout, opcode: opcodeOf(c.codec), take: c.take}
	socket, err := c.server.rules.Load().upgrader(subprotocol).UpgradeFromConn(c.wire, smallReader(buffered.Reader, c.wire), r)
	if err != nil {
		_ = netConn.Close()
		return nil
	}
	c.wire.start(c)
	return socket
}

// opcodeOf returns the opcode of a codec's frames.
func opcodeOf(codec protocol.Codec) byte {
	if _, binary := codec.(protocol.Proto); binary {
		return opBinary
	}
	return opText
}

// smallReader replaces the reader of net/http, which is large, by a small one
// that begins with what the large one has read already.
func smallReader(large *bufio.Reader, source net.Conn) *bufio.Reader {
	if large.Buffered() == 0 {
		return bufio.NewReaderSize(source, readBuffer)
	}
	ahead, _ := large.Peek(large.Buffered())
	return bufio.NewReaderSize(&prefixed{rest: slices.Clone(ahead), source: source}, readBuffer)
}

// prefixed reads some bytes and then its source.
type prefixed struct {
	rest   []byte
	source net.Conn
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return p.source.Read(b)
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	if len(p.rest) == 0 {
		p.rest = nil
	}
	return n, nil
}

// upgrader returns what answers a handshake with a subprotocol, which may be
// none. Those of the two codecs are made once.
func (r *rules) upgrader(subprotocol string) *gws.Upgrader {
	if u := r.upgraders[subprotocol]; u != nil {
		return u
	}
	return r.newUpgrader(subprotocol)
}

func (r *rules) newUpgrader(subprotocol string) *gws.Upgrader {
	options := &gws.ServerOption{
		ReadMaxPayloadSize: r.limits.FrameBytes,
		ReadBufferSize:     readBuffer,
		CheckUtf8Enabled:   true,
		HandshakeTimeout:   r.limits.ConnectTimeout,
	}
	if subprotocol != "" {
		options.SubProtocols = []string{subprotocol}
	}
	return gws.NewUpgrader(events{}, options)
}
