package server_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/brokertest"
	"github.com/tidewire/tidewire/broker/server"
	"github.com/tidewire/tidewire/protocol"
)

// TestCompressionIsDeclined: whatever a client offers, the broker names no
// extension; the connection works without, and a frame that claims to be
// compressed is an error. See docs/adr/0009.
func TestCompressionIsDeclined(t *testing.T) {
	e := newEdgeOn(t, brokertest.NewLog(), server.Options{}, broker.Options{})
	for _, offer := range []string{
		"permessage-deflate",
		"permessage-deflate; client_max_window_bits",
		"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
		"permessage-deflate; server_max_window_bits=8, permessage-deflate",
		"x-webkit-deflate-frame",
	} {
		t.Run(offer, func(t *testing.T) {
			r, resp := e.handshake("Sec-WebSocket-Protocol: "+protocol.JSON{}.Subprotocol(), "Sec-WebSocket-Extensions: "+offer)
			if named := resp.Header.Values("Sec-WebSocket-Extensions"); resp.StatusCode != http.StatusSwitchingProtocols || len(named) > 0 {
				t.Fatalf("%s, extensions %q", resp.Status, named)
			}
			r.write(frame(0x81, []byte(`{"type":"connect","ref":1}`)))
			first, err := r.br.Peek(1)
			if err != nil || first[0] != 0x81 {
				t.Fatalf("the answer begins with %x, %v", first, err)
			}
			if _, text, err := r.read(); err != nil || !strings.HasPrefix(string(text), `{"type":"welcome"`) {
				t.Fatalf("%s, %v", text, err)
			}
			r.write(frame(0xC1, []byte{0xAA, 0x56, 0x2A, 0xA9, 0x2C, 0x48, 0x55, 0x02, 0x00}))
			if code, reason := r.closing(); code != 1002 {
				t.Errorf("a compressed frame: closed with %d %s", code, reason)
			}
		})
	}
}
