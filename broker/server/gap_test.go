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
	"github.com/tidewire/tidewire/storage"
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
			want := &tidewirev1.Gap{Reason: "retention", After: 1, Through: 5, Offset: 5}
			for cut := 0; ; cut++ {
				if gapOnce(t, e, codec, old, cut, want, expect(t, ">")[5:]) {
					return
				}
			}
		})
	}
}

// TestCountedGapSurvivesCuts is the same where retention keeps the newest two of
// each topic: their number is told, right before what passes them.
func TestCountedGapSurvivesCuts(t *testing.T) {
	for _, codec := range []protocol.Codec{protocol.Proto{}, protocol.JSON{}} {
		t.Run(codec.Subprotocol(), func(t *testing.T) {
			log := storage.NewMemoryLog("main", storage.MemoryOptions{PerTopic: 2})
			e := newEdgeOn(t, log, server.Options{}, broker.Options{})
			for _, commit := range script {
				e.publish(commit...)
			}
			given := slices.DeleteFunc(expect(t, ">")[1:], func(m string) bool { return m == "a.x 4" || m == "a.x 8" })
			want := &tidewirev1.Gap{Reason: "retention", After: 1, Through: 1, Offset: 1, Missed: 2}
			for cut := 0; ; cut++ {
				if gapOnce(t, e, codec, log.PositionOf(1).String(), cut, want, given) {
					return
				}
			}
		})
	}
}

// gapOnce resumes with a cut, and reports whether that lay behind the end.
func gapOnce(t *testing.T, e *edge, codec protocol.Codec, from string, cut int, gap *tidewirev1.Gap, want []string) bool {
	r := newReader(t, from, ">")
	s := r.subs[1]
	done := func() bool { return s.caughtUp && len(s.got) >= len(want) }
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
	for _, g := range s.gaps {
		if g.Reason != gap.Reason || g.After != gap.After || g.Through != gap.Through || g.Offset != gap.Offset || g.Missed != gap.Missed {
			t.Fatalf("cut after %d bytes: gap %v", cut, g)
		}
	}
	if !slices.Equal(s.got, want) {
		t.Fatalf("cut after %d bytes:\n got %q\nwant %q", cut, s.got, want)
	}
	return whole
}
