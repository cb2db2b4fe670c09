package server_test

import (
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/server"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// gone is a message that has expired before it is stored.
func gone(topic string) protocol.Message {
	return protocol.Message{Topic: topic, Payload: []byte("gone"), ExpiresAt: time.UnixMicro(1)}
}

// wishScript is script with expired messages: alone, first, last, and as the
// newest of a topic.
func wishScript() [][]protocol.Message {
	return [][]protocol.Message{
		append([]protocol.Message{gone("a.x")}, script[0]...),
		{gone("c"), gone("b.y")},
		append(slices.Clone(script[1]), gone("d")),
		append(slices.Clone(script[2]), gone("a.y")), // from here on most are live
		{gone("b.y"), gone("b.y")},
		script[3],
	}
}

// The subscriptions of the test. What they wish depends on their number.
const (
	creditAll   = 1 // starts with no credit, gets a little for each frame
	conflated   = 2
	rated       = 3 // conflated, with a rate
	withoutEcho = 4
	creditExact = 5
)

var wishFilters = []string{">", "a.*", ">", "b.>", "a.x"}

// wishes are put into the requests.
func wishes(s *tidewirev1.Subscribe) {
	switch s.Sub {
	case creditAll, creditExact:
		s.Credit = new(uint32(0))
	case conflated:
		s.Slow = "conflate"
	case rated:
		s.Slow, s.ConflateMs = "conflate", 1
	case withoutEcho:
		s.Echo = new(false)
	}
}

// feed gives one byte of credit at first, which is worth a frame, and then what
// each frame has cost, so that there always is one more.
func feed(c *client, frame any) {
	var sub uint32
	cost := 1
	switch f := frame.(type) {
	case *tidewirev1.Subscribed:
		sub = f.Sub
	case *protocol.Deliver:
		sub = f.Sub
		tail := protocol.Proto{}.AppendDeliverTail(nil, &f.Chunk)
		cost = len(protocol.Proto{}.AppendDeliverHead(nil, f.Sub, len(tail))) + len(tail)
		if _, text := c.codec.(protocol.JSON); text {
			cost = 4000 // more than any frame
		}
	}
	if sub == creditAll || sub == creditExact {
		c.send(&tidewirev1.Flow{Sub: sub, Credit: uint32(cost)})
	}
}

// TestCutWithWishes is TestCutAtEveryByte with expired messages, conflation,
// credit that begins with nothing, and no echo. Who wants everything has it once
// and in order; who is conflated has the newest of each topic; nobody has what
// has expired; and nobody sees a hole.
func TestCutWithWishes(t *testing.T) {
	for name, way := range cutWays() {
		t.Run(name, func(t *testing.T) {
			codec := way.codec
			step, first := 1, 0
			if _, text := codec.(protocol.JSON); text && os.Getenv("TIDEWIRE_SOAK") == "" {
				step, first = 11, int(time.Now().UnixNano()%11)
			}
			if testing.Short() {
				step = 37
			}
			e := newParted(t, way.partitions, server.Options{}, broker.Options{})
			e.publish(msg("first", "so that the log has a position"))
			t.Logf("every %d bytes from %d", step, first)
			for cut := first; ; cut += step {
				if cutWithWishes(t, e, codec, cut) {
					return
				}
			}
		})
	}
}

func cutWithWishes(t *testing.T, e *edge, codec protocol.Codec, cut int) (whole bool) {
	at, _ := e.end()
	r := newReader(t, at.String(), wishFilters...)
	r.wish, r.answer = wishes, feed
	commits := wishScript()
	done := func() bool {
		for n, f := range wishFilters {
			if got := r.subs[uint32(n+1)].got; missing(t, uint32(n+1), f, byTopic(e, got)) != "" {
				return false
			}
		}
		return true
	}
	for _, c := range commits[:3] {
		e.publish(c...)
	}
	limited := &cutConn{left: cut}
	c, err := e.dial(codec, func(conn net.Conn) net.Conn { limited.Conn = conn; return limited })
	if err == nil {
		c.send(&tidewirev1.Connect{Ref: 1, Subscriptions: r.requests()})
		r.untilCut(c, func() bool {
			for _, s := range r.subs {
				if !s.caughtUp {
					return false
				}
			}
			return true
		})
	}
	for _, c := range commits[3:] {
		e.publish(c...)
	}
	if err == nil {
		whole = r.untilCut(c, done)
		_ = limited.Close()
		r.drain(c)
	}
	c = e.connect(codec, r.requests()...)
	r.until(c, done)
	_ = c.socket.NetConn().Close()
	for n, f := range wishFilters {
		s := r.subs[uint32(n+1)]
		if why := wrong(t, e, uint32(n+1), f, s.got); why != "" || len(s.gaps) > 0 {
			t.Fatalf("cut after %d bytes, subscription %d to %s: %s, gaps %v\n got %q\nfrom %q", cut, n+1, f, why, s.gaps, s.got, expect(t, f))
		}
	}
	return whole
}

func isConflated(sub uint32) bool { return sub == conflated || sub == rated }

// missing says what has not come yet: the last message of who wants everything,
// the newest of each topic of who is conflated, but where that has expired.
func missing(t *testing.T, sub uint32, filter string, got []string) string {
	all := expect(t, filter)
	if !isConflated(sub) {
		if len(got) < len(all) {
			return all[len(got)]
		}
		return ""
	}
	newest := map[string]string{}
	for _, text := range all {
		topic, _, _ := strings.Cut(text, " ")
		newest[topic] = text
	}
	delete(newest, "a.y") // its newest has expired
	for _, text := range newest {
		if !slices.Contains(got, text) {
			return text
		}
	}
	return ""
}

// wrong says what came that may not have come.
func wrong(t *testing.T, e *edge, sub uint32, filter string, got []string) string {
	all := byTopic(e, expect(t, filter))
	got = byTopic(e, got)
	if !isConflated(sub) {
		if !slices.Equal(got, all) {
			return "not what was published"
		}
		return ""
	}
	place := -1
	for _, text := range got {
		i := slices.Index(all, text)
		if i <= place {
			return text + " came out of order, twice or from nowhere"
		}
		place = i
	}
	return ""
}
