package tidewire

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/lxzan/gws"

	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// Over TLS and TCP, with a broker whose certificate the client knows or does not.
func TestTLS(t *testing.T) {
	b := newFake(t)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := &peer{t: t, frames: make(chan any, 100), gone: make(chan struct{})}
		ws, err := gws.NewUpgrader(p, &gws.ServerOption{SubProtocols: []string{protocol.SubprotocolProto}}).Upgrade(w, r)
		if err != nil {
			t.Error(err)
			return
		}
		p.ws, p.conn = ws, ws.NetConn()
		b.peers <- p
		go func() { ws.ReadLoop(); close(p.gone) }()
	}))
	defer server.Close()
	known := x509.NewCertPool()
	known.AddCert(server.Certificate())
	go b.welcome()
	c, err := Connect(t.Context(), Options{URLs: []string{server.URL}, TLS: &tls.Config{RootCAs: known}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	o := Options{URLs: []string{server.URL}}.withDefaults()
	target, err := parseTarget(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = o.dial(t.Context(), target, "", gws.BuiltinEventHandler{})
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok {
		t.Fatal(err)
	}
}

// WebSocket pings of something in between are answered; what is not of the
// protocol ends the connection, not the client.
func TestStrangeFrames(t *testing.T) {
	bubble(t, func(t *testing.T, b *fakeBroker) {
		_, p := open(t, b, Options{})
		pong := make(chan string, 1)
		p.onPong = func(payload string) { pong <- payload }
		if err := p.ws.WritePing([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if got := <-pong; got != "hello" {
			t.Fatal(got)
		}
		p.send(&tidewirev1.Unsubscribed{Sub: 99}, &tidewirev1.CaughtUp{Sub: 99}, &tidewirev1.Gap{Sub: 99}, progress(5, 99), &tidewirev1.Refreshed{})
		_ = p.ws.WriteMessage(gws.OpcodeBinary, []byte{0xFA, 0x01, 0x00}) // a frame of a later version
		_ = p.ws.WriteMessage(gws.OpcodeText, []byte("{}"))
		p, _ = b.welcome()
		_ = p.ws.WriteMessage(gws.OpcodeBinary, []byte("nonsense"))
		b.welcome()
	})
}
