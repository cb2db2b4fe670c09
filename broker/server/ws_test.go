package server_test

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
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

// cursor follows one subscription by the client's rules.
type cursor struct {
	offset   map[uint32]uint64 // by partition
	position string
	got      []string // "topic payload" in the order of arrival
	caughtUp bool
	gaps     []*tidewirev1.Gap
}

// reader is a client of several subscriptions that survives its connections.
type reader struct {
	t       testing.TB
	filters []string
	subs    map[uint32]*cursor
	wish    func(*tidewirev1.Subscribe) // changes a request; may be nil
	answer  func(c *client, frame any)  // after a frame was taken; may be nil
}

func newReader(t testing.TB, from string, filters ...string) *reader {
	r := &reader{t: t, filters: filters, subs: map[uint32]*cursor{}}
	for i := range filters {
		r.subs[uint32(i+1)] = &cursor{position: from}
	}
	return r
}

// requests are the subscriptions to restore.
func (r *reader) requests() []*tidewirev1.Subscribe {
	var subs []*tidewirev1.Subscribe
	for i, f := range r.filters {
		number := uint32(i + 1)
		r.subs[number].caughtUp = false
		request := &tidewirev1.Subscribe{Sub: number, Filter: f, From: r.subs[number].position}
		if r.wish != nil {
			r.wish(request)
		}
		subs = append(subs, request)
	}
	return subs
}

func (r *reader) takeFrom(c *client, frame any) {
	r.take(frame)
	if r.answer != nil {
		r.answer(c, frame)
	}
}

// take handles a frame.
func (r *reader) take(frame any) {
	switch f := frame.(type) {
	case *tidewirev1.Subscribed:
		s := r.subs[f.Sub]
		s.offset, s.position, s.caughtUp = map[uint32]uint64{}, f.Position, false
		for _, c := range f.Cursors {
			s.offset[c.Partition] = c.Offset
		}
	case *protocol.Deliver:
		r.deliver(f)
	case *tidewirev1.CaughtUp:
		r.subs[f.Sub].caughtUp = true
	case *tidewirev1.Gap:
		s := r.subs[f.Sub]
		s.gaps = append(s.gaps, f)
		s.offset[f.Partition], s.position = f.Offset, f.Position
	case *tidewirev1.Progress:
		term, _ := protocol.ParseTerm(f.Term)
		for _, n := range f.Subs {
			r.subs[n].move(protocol.Position{Term: term, Partition: f.Partition, Offset: f.Through}, nil)
		}
	case *protocol.Progress:
		for _, n := range f.Subs {
			r.subs[n].move(f.At, f.Others)
		}
	case *tidewirev1.Error:
		r.t.Errorf("error frame: %s: %s", f.Code, f.Message)
	}
}

func (r *reader) deliver(f *protocol.Deliver) {
	s := r.subs[f.Sub]
	offset, known := s.offset[f.Partition]
	if f.Term == 0 { // ephemeral
		offset = 0
	} else if f.After > offset || !known {
		r.t.Errorf("subscription %d: hole: cursor %d of partition %d, frame begins after %d", f.Sub, offset, f.Partition, f.After)
	}
	for m, err := range f.Messages() {
		if err != nil {
			r.t.Error(err)
			return
		}
		if m.Position.Offset <= offset && f.Term != 0 {
			continue
		}
		s.got = append(s.got, m.Topic+" "+string(m.Payload))
	}
	if f.Term != 0 {
		s.move(f.End(), f.Others)
	}
}

// move moves the cursor. others is what a frame in JSON says of the other
// partitions; a binary client knows by itself where it is.
func (s *cursor) move(at protocol.Position, others []protocol.Place) {
	if at.Offset <= s.offset[at.Partition] {
		return
	}
	s.offset[at.Partition] = at.Offset
	if others == nil {
		for _, n := range slices.Sorted(maps.Keys(s.offset)) {
			if n != at.Partition {
				others = append(others, protocol.Place{Partition: n, Offset: s.offset[n]})
			}
		}
	}
	s.position = at.With(others).String()
}

// byTopic puts messages into the order of their topics: only messages of one topic
// have an order in a stream of several partitions.
func byTopic(e *edge, messages []string) []string {
	messages = slices.Clone(messages)
	if len(e.logs) > 1 {
		slices.SortStableFunc(messages, func(a, b string) int {
			return cmp.Compare(a[:strings.Index(a, " ")], b[:strings.Index(b, " ")])
		})
	}
	return messages
}

// until takes frames until done says so.
func (r *reader) until(c *client, done func() bool) {
	r.t.Helper()
	deadline := time.After(20 * time.Second)
	for !done() {
		select {
		case f := <-c.frames:
			r.takeFrom(c, f)
		case <-c.closed:
			r.t.Fatalf("closed: %v", c.err)
		case <-deadline:
			r.t.Fatal("nothing more arrives")
		}
	}
}

// drain takes what has arrived on a connection that has ended.
func (r *reader) drain(c *client) {
	<-c.closed
	for {
		select {
		case f := <-c.frames:
			r.take(f)
		default:
			return
		}
	}
}

// script is what the cut test publishes, commit by commit.
var script = [][]protocol.Message{
	{msg("a.x", "1"), msg("b.x", "2"), msg("a.y", "3"), msg("a.x", "4")},
	{msg("c", "5"), msg("b.y", "6")},
	{msg("a.y", "7"), msg("a.x", "8"), msg("b.x", "9"), msg("c", "10")},
	{msg("a.x", "11"), msg("a.x", "12"), msg("b.y", "13")},
}

func expect(t testing.TB, filter string) []string {
	f, err := protocol.ParseFilter(filter)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, commit := range script {
		for _, m := range commit {
			if f.Match(m.Topic) {
				want = append(want, m.Topic+" "+string(m.Payload))
			}
		}
	}
	return want
}

// cutWay is how a cut test is played.
type cutWay struct {
	codec      protocol.Codec
	partitions int
}

func cutWays() map[string]cutWay {
	ways := map[string]cutWay{}
	for _, codec := range []protocol.Codec{protocol.Proto{}, protocol.JSON{}} {
		for _, n := range []int{1, 3} {
			ways[fmt.Sprintf("%s partitions=%d", codec.Subprotocol(), n)] = cutWay{codec, n}
		}
	}
	return ways
}

// TestCutAtEveryByte cuts a connection after its first, second, third ... byte,
// while commits of several topics are replayed and delivered live to exact and
// wildcard subscriptions. Whatever the cut, the client that resumes has every
// message once, in order, and sees no hole.
func TestCutAtEveryByte(t *testing.T) {
	for name, way := range cutWays() {
		t.Run(name, func(t *testing.T) {
			codec := way.codec
			step, first := 1, 0
			if _, text := codec.(protocol.JSON); text && os.Getenv("TIDEWIRE_SOAK") == "" {
				step, first = 11, int(time.Now().UnixNano()%11) // its frames are four times as long
			}
			if testing.Short() {
				step = 37
			}
			e := newParted(t, way.partitions, server.Options{}, broker.Options{})
			e.publish(msg("first", "so that the log has a position"))
			t.Logf("every %d bytes from %d", step, first)
			for cut := first; ; cut += step {
				if cutOnce(t, e, codec, cut) {
					t.Logf("%d cuts", cut/step)
					return
				}
			}
		})
	}
}

// cutOnce plays the script with a cut and reports whether the cut lay behind
// the end.
func cutOnce(t *testing.T, e *edge, codec protocol.Codec, cut int) bool {
	at, head := e.end()
	r := newReader(t, at.String(), "a.x", "a.*", ">", "b.>", "c")
	done := func() bool {
		_, end := e.end()
		for i, f := range r.filters {
			if len(r.subs[uint32(i+1)].got) < len(expect(t, f)) || !r.subs[uint32(i+1)].caughtUp {
				return false
			}
		}
		return end == head+13
	}
	e.publish(script[0]...)
	e.publish(script[1]...)
	limited := &cutConn{left: cut}
	c, err := e.dial(codec, func(conn net.Conn) net.Conn { limited.Conn = conn; return limited })
	if err == nil {
		c.send(&tidewirev1.Connect{Ref: 1, Subscriptions: r.requests()})
	}
	e.publish(script[2]...)
	e.publish(script[3]...)
	whole := false
	if err == nil {
		whole = r.untilCut(c, done)
		_ = limited.Close()
		r.drain(c)
	}
	c = e.connect(codec, r.requests()...)
	r.until(c, done)
	_ = c.socket.NetConn().Close()
	for i, f := range r.filters {
		s := r.subs[uint32(i+1)]
		if !slices.Equal(byTopic(e, s.got), byTopic(e, expect(t, f))) {
			t.Fatalf("cut after %d bytes, filter %s:\n got %q\nwant %q", cut, f, s.got, expect(t, f))
		}
		if len(s.gaps) > 0 {
			t.Fatalf("cut after %d bytes, filter %s: false gap %v", cut, f, s.gaps)
		}
	}
	return whole
}

// untilCut takes frames until done or the end of the connection, and reports
// whether it was done.
func (r *reader) untilCut(c *client, done func() bool) bool {
	for !done() {
		select {
		case f := <-c.frames:
			r.takeFrom(c, f)
		case <-c.closed:
			r.drain(c)
			return done()
		}
	}
	return true
}

// TestSeam publishes while subscriptions of all kinds come, catch up, join and
// go, and while clients are slow: nobody misses anything or gets it twice.
func TestSeam(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	e := newEdge(t, server.Options{}, broker.Options{SoftOutbound: 2000})
	const messages = 3000
	topics := []string{"a.x", "a.y", "b.x", "c"}
	var want []string
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		for i := 0; i < messages; {
			var batch []protocol.Message
			for range 1 + rng.IntN(5) {
				m := msg(topics[rng.IntN(len(topics))], fmt.Sprint(i))
				want = append(want, m.Topic+" "+string(m.Payload))
				batch = append(batch, m)
				i++
			}
			e.publish(batch...)
		}
	}()
	readers := make(chan *reader)
	for n := range 8 {
		go func() {
			r := newReader(t, "earliest", "a.*", ">", "c")
			rng := rand.New(rand.NewPCG(seed, uint64(n)))
			for {
				c := e.connect(protocol.Proto{}, r.requests()...)
				r.some(c, rng, stop)
				_ = c.socket.NetConn().Close()
				r.drain(c)
				select {
				case <-stop:
					c = e.connect(protocol.Proto{}, r.requests()...)
					_, head := e.log.Bounds()
					r.until(c, func() bool {
						return r.subs[2].caughtUp && r.subs[1].caughtUp && r.subs[3].caughtUp && r.subs[2].offset[0] >= head
					})
					readers <- r
					return
				default:
				}
			}
		}()
	}
	for range 8 {
		r := <-readers
		for i, text := range r.filters {
			f, _ := protocol.ParseFilter(text)
			var all []string
			for _, w := range want {
				var topic, payload string
				_, _ = fmt.Sscan(w, &topic, &payload)
				if f.Match(topic) {
					all = append(all, w)
				}
			}
			if got := r.subs[uint32(i+1)].got; !slices.Equal(got, all) {
				t.Errorf("filter %s: got %d messages, want %d", text, len(got), len(all))
			}
		}
	}
}

// some takes a random number of frames.
func (r *reader) some(c *client, rng *rand.Rand, stop <-chan struct{}) {
	for range rng.IntN(60) {
		select {
		case f := <-c.frames:
			r.take(f)
		case <-c.closed:
			return
		case <-stop:
			return
		}
	}
}
