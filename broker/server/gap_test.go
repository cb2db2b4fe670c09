package server_test

import (
	"net"
	"slices"
	"testing"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/brokertest"
	"github.com/tidewire/tidewire/broker/server"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// TestGapSurvivesCuts resumes from before what retention has kept, and cuts the
// connection after its first, second, third ... byte. The gap is told, whatever
// the cut: a client that was told of it once may be told again, never not at
// all.
func TestGapSurvivesCuts(t *testing.T) {
	for _, codec := range []protocol.Codec{protocol.Proto{}, protocol.JSON{}} {
		t.Run(codec.Subprotocol(), func(t *testing.T) {
			log := brokertest.NewLog()
			e := newEdgeOn(t, log, server.Options{}, broker.Options{})
			for _, commit := range script {
				e.publish(commit...)
			}
			old := log.PositionOf(1).String()
			log.Trim(5)
			for cut := 0; ; cut++ {
				if gapOnce(t, e, codec, old, cut) {
					return
				}
			}
		})
	}
}

// gapOnce resumes with a cut, and reports whether that lay behind the end.
func gapOnce(t *testing.T, e *edge, codec protocol.Codec, from string, cut int) bool {
	r := newReader(t, from, ">")
	s := r.subs[1]
	done := func() bool { return s.caughtUp && len(s.got) >= 8 }
	limited := &cutConn{left: cut}
	c, err := e.dial(codec, func(conn net.Conn) net.Conn { limited.Conn = conn; return limited })
	whole := false
	if err == nil {
		c.send(&tidewirev1.Connect{Ref: 1, Subscriptions: r.requests()})
		whole = r.untilCut(c, done)
		_ = limited.Close()
		r.drain(c)
	}
	c = e.connect(codec, r.requests()...)
	r.until(c, done)
	_ = c.socket.NetConn().Close()
	if len(s.gaps) == 0 {
		t.Fatalf("cut after %d bytes: nobody told of the gap", cut)
	}
	if g := s.gaps[0]; g.Reason != "retention" || g.After != 1 || g.Through != 5 || g.Offset != 5 {
		t.Fatalf("cut after %d bytes: gap %v", cut, g)
	}
	if want := expect(t, ">")[5:]; !slices.Equal(s.got, want) {
		t.Fatalf("cut after %d bytes:\n got %q\nwant %q", cut, s.got, want)
	}
	return whole
}
