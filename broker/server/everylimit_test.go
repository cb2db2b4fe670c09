package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/brokertest"
	"github.com/tidewire/tidewire/broker/server"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// A hit is how a test meets a limit. meet returns what the client saw: the code
// of a refusal or of a close frame, or another word where no code is sent.
type hit struct {
	limits server.Limits
	broker broker.Options
	meet   func(t *testing.T, e *edge) string
	want   string // what meet returns for a limit without a code
}

// TestEveryLimit meets each limit of the table: the client sees what the table
// says, the metric counts it, and a neighbour goes on as if nothing were. A
// limit that is not met here fails the test.
func TestEveryLimit(t *testing.T) {
	all := hits()
	for _, info := range protocol.Limits() {
		h, ok := all[info.Limit]
		if !ok {
			t.Errorf("nothing meets the limit %s", info.Limit)
			continue
		}
		t.Run(string(info.Limit), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { h.run(t, info, false) })
		})
		if info.Key != "" {
			t.Run(string(info.Limit)+" after a reload", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { h.run(t, info, true) })
			})
		}
	}
}

// run meets a limit that holds from the start, or from a reload on.
func (h hit) run(t *testing.T, info protocol.LimitInfo, reload bool) {
	registry := prometheus.NewRegistry()
	so, bo := server.Options{Registry: registry}, broker.Options{Registerer: registry}
	if !reload {
		so.Limits, bo = h.limits, h.broker
		bo.Registerer = registry
	}
	e := newEdgeOn(t, stubbornLog{brokertest.NewLog()}, so, bo)
	e.listener.from = net.IPv4(192, 0, 2, 99)
	neighbour := e.connect(protocol.Proto{}, &tidewirev1.Subscribe{Sub: 1, Filter: "neighbour"})
	e.listener.from = nil
	follow := newReader(t, "", "neighbour")
	follow.until(neighbour, func() bool { return follow.subs[1].caughtUp })
	if reload {
		if err := e.server.Reload(server.Access{Loopback: true}, h.limits); err != nil {
			t.Fatal(err)
		}
		e.broker.SetLimits(h.broker)
	}
	if n := met(t, registry, info.Limit); n != 0 {
		t.Errorf("counted %v before anything", n)
	}

	want := h.want
	if info.Code != "" {
		want = string(info.Code)
	}
	if got := h.meet(t, e); got != want {
		t.Errorf("the client saw %q, want %q", got, want)
	}
	synctest.Wait()
	if n := met(t, registry, info.Limit); n < 1 {
		t.Errorf("counted %v", n)
	}
	start := time.Now()
	e.publish(msg("neighbour", "one"))
	follow.until(neighbour, func() bool { return len(follow.subs[1].got) == 1 })
	within(t, "the neighbour's message", start, 0, time.Second)
	if info.Code != "" && info.Code.Info().Status == 0 {
		t.Errorf("%s has no HTTP status", info.Code)
	}
}

// stubbornLog takes what is published to the topic "never" and does not store
// it, and has no room for the topic "full".
type stubbornLog struct{ broker.Log }

func (l stubbornLog) Append(ctx context.Context, entries ...*storage.Entry) error {
	switch entries[0].Topic {
	case "never":
		return nil
	case "full":
		return protocol.Errorf(protocol.CodeOverloaded, "full")
	}
	return l.Log.Append(ctx, entries...)
}

// publishing meets a limit with a message.
func publishing(m protocol.Message) func(*testing.T, *edge) string {
	return func(_ *testing.T, e *edge) string {
		c := e.connect(protocol.Proto{})
		c.send(&protocol.Publish{Ref: 5, Messages: []protocol.Message{m}})
		code, _ := c.refusal()
		return string(code)
	}
}

// subscribing meets a limit with a subscription.
func subscribing(filter, from string) func(*testing.T, *edge) string {
	return func(_ *testing.T, e *edge) string {
		c := e.connect(protocol.Proto{}, &tidewirev1.Subscribe{Sub: 9, Filter: "a"}, &tidewirev1.Subscribe{Sub: 1, Filter: filter, From: from})
		code, _ := c.refusal()
		return string(code)
	}
}

// settling meets a limit with a frame of a consumer's member.
func settling(s *protocol.Settle) func(*testing.T, *edge) string {
	return func(_ *testing.T, e *edge) string {
		c := e.connect(protocol.Proto{})
		c.send(s)
		code, _ := c.refusal()
		return string(code)
	}
}

func manyRanges(n int) []protocol.OffsetRange {
	all := make([]protocol.OffsetRange, n)
	for i := range all {
		all[i] = protocol.OffsetRange{From: 1, Through: 1}
	}
	return all
}

// asking meets a limit with a request.
func asking(lines ...string) func(*testing.T, *edge) string {
	return func(t *testing.T, e *edge) string { return string(codeOf(t, e.request(lines...))) }
}

// closed returns the code that a close frame stands for.
func (r *raw) closed() string {
	number, _ := r.closing()
	for _, info := range protocol.Codes() {
		if info.Close == number {
			return string(info.Code)
		}
	}
	return strconv.Itoa(int(number))
}

// idle opens connections that say nothing.
func (e *edge) idle(n int) {
	for range n {
		conn, err := e.listener.dial()
		if err != nil {
			e.t.Fatal(err)
		}
		e.t.Cleanup(func() { _ = conn.Close() })
	}
	synctest.Wait()
}

// session opens a raw session of the JSON codec and reads until a frame has the
// text.
func (e *edge) session(until string, frames ...string) *raw {
	r := e.open(protocol.JSON{})
	var all []byte
	for _, f := range frames {
		all = append(all, frame(0x81, []byte(f))...)
	}
	r.write(all)
	for until != "" {
		_, text, err := r.read()
		if err != nil {
			e.t.Fatal(err)
		}
		if strings.Contains(string(text), until) {
			break
		}
	}
	return r
}

const jsonConnect = `{"type":"connect","ref":1}`

func hits() map[protocol.Limit]hit {
	all := map[protocol.Limit]hit{
		protocol.LimitTopic:       {meet: publishing(msg(strings.Repeat("a", 256), ""))},
		protocol.LimitPattern:     {meet: subscribing(strings.Repeat("a.", 32)+">", "")},
		protocol.LimitStars:       {meet: subscribing(strings.Repeat("*.", 8)+"*", "")},
		protocol.LimitStart:       {meet: subscribing("a", "last:1000001")},
		protocol.LimitID:          {meet: publishing(protocol.Message{Topic: "a", ID: strings.Repeat("i", 129)})},
		protocol.LimitKey:         {meet: publishing(protocol.Message{Topic: "a", Key: strings.Repeat("k", 256)})},
		protocol.LimitContentType: {meet: publishing(protocol.Message{Topic: "a", ContentType: strings.Repeat("c", 256)})},
		protocol.LimitHeaders:     {meet: publishing(protocol.Message{Topic: "a", Headers: manyHeaders(33, 1)})},
		protocol.LimitHeaderName:  {meet: publishing(protocol.Message{Topic: "a", Headers: []protocol.Header{{Name: strings.Repeat("n", 65)}}})},
		protocol.LimitHeaderValue: {meet: publishing(protocol.Message{Topic: "a", Headers: manyHeaders(1, 4097)})},
		protocol.LimitHeaderTotal: {meet: publishing(protocol.Message{Topic: "a", Headers: manyHeaders(3, 4000)})},
		protocol.LimitCapabilities: {meet: func(_ *testing.T, e *edge) string {
			r := e.open(protocol.Proto{})
			r.write(frame(0x82, protocol.Proto{}.AppendClient(nil, &tidewirev1.Connect{Ref: 1, Capabilities: make([]string, 65)})))
			return r.closed()
		}},
		protocol.LimitSettle:      {meet: settling(&protocol.Settle{Term: 1, Ranges: manyRanges(protocol.MaxSettleRanges + 1)})},
		protocol.LimitConsumer:    {meet: asking("POST /v1/consumers/" + strings.Repeat("c", 129) + "/fetch HTTP/1.1")},
		protocol.LimitFetch:       {meet: asking("POST /v1/consumers/a/fetch?max=1001 HTTP/1.1")},
		protocol.LimitFetchWait:   {meet: asking("POST /v1/consumers/a/fetch?wait=31s HTTP/1.1")},
		protocol.LimitExtend:      {meet: settling(&protocol.Settle{Kind: protocol.SettleExtend, Term: 1, Ranges: manyRanges(1), Delay: new(13 * time.Hour)})},
		protocol.LimitReason:      {meet: settling(&protocol.Settle{Kind: protocol.SettleReject, Term: 1, Ranges: manyRanges(1), Reason: strings.Repeat("r", 1025)})},
		protocol.LimitToken:       {meet: asking("GET /v1/topics/a/messages HTTP/1.1", "Authorization: Bearer "+strings.Repeat("x", 9000))},
		protocol.LimitRequestHead: {want: "431", meet: meetRequestHead},

		protocol.LimitPayload:       {broker: broker.Options{MaxPayload: 10}, meet: publishing(msg("a", "12345678901"))},
		protocol.LimitFrame:         {limits: server.Limits{FrameBytes: 10_000}, want: "1009", meet: meetFrame},
		protocol.LimitMessages:      {limits: server.Limits{PublishMessages: 1}, meet: meetMessages},
		protocol.LimitBatchBytes:    {meet: meetBatchBytes},
		protocol.LimitBatchMessages: {meet: meetBatchMessages},
		protocol.LimitBatches:       {meet: meetBatches},
		protocol.LimitHistory:       {limits: server.Limits{HistoryMessages: 5}, meet: asking("GET /v1/topics/a/messages?limit=6 HTTP/1.1")},
		protocol.LimitHistoryHeld:   {meet: meetHistoryHeld},
		protocol.LimitInFlight:      {broker: broker.Options{MaxInFlight: 1}, want: "waits", meet: meetInFlight},
		protocol.LimitSubscriptions: {broker: broker.Options{MaxSubs: 1}, meet: subscribing("b", "")},
		protocol.LimitAllSubs:       {broker: broker.Options{MaxAllSubs: 2}, meet: subscribing("b", "")},
		protocol.LimitOutboundSoft:  {broker: broker.Options{SoftOutbound: 64 << 10}, want: "all came", meet: meetOutboundSoft},
		protocol.LimitOutboundHard:  {broker: broker.Options{HardOutbound: 64 << 10}, meet: meetOutboundHard},
		protocol.LimitReceiving:     {limits: server.Limits{ReceivingBytes: 256 << 10}, meet: meetReceiving},
		protocol.LimitQueue:         {meet: publishing(msg("full", "x"))},

		protocol.LimitConnections: {limits: server.Limits{Connections: 2}, meet: func(t *testing.T, e *edge) string {
			e.idle(1)
			return asking("GET /v1/topics/a/messages HTTP/1.1")(t, e)
		}},
		protocol.LimitAddress: {limits: server.Limits{ConnectionsPerAddress: 2}, meet: func(t *testing.T, e *edge) string {
			e.idle(2)
			return asking("GET /v1/topics/a/messages HTTP/1.1")(t, e)
		}},
		protocol.LimitConnectionRate: {limits: server.Limits{Rates: server.Rates{Connections: 2}}, meet: func(t *testing.T, e *edge) string {
			e.idle(2)
			return asking("GET /v1/topics/a/messages HTTP/1.1")(t, e)
		}},
		protocol.LimitAdminConnections: {meet: meetAdmin},

		protocol.LimitPublishRate: {broker: broker.Options{PublishRate: 2}, meet: meetPublishRate},
		protocol.LimitInboundRate: {limits: server.Limits{Rates: server.Rates{InboundBytes: 10_000}}, want: "slowly", meet: meetInboundRate},
		protocol.LimitReplayRate:  {broker: broker.Options{ReplayRate: 10_000}, want: "slowly", meet: meetReplayRate},

		protocol.LimitPing: {meet: func(_ *testing.T, e *edge) string {
			r := e.session("welcome", jsonConnect)
			_ = r.conn.SetDeadline(time.Now().Add(2 * time.Minute))
			return r.closed()
		}},
		protocol.LimitConnect: {meet: func(_ *testing.T, e *edge) string { return e.open(protocol.Proto{}).closed() }},
		protocol.LimitWrite: {want: "cut", meet: func(_ *testing.T, e *edge) string {
			r := e.session("", jsonConnect) // does not read
			time.Sleep(31 * time.Second)
			if _, err := r.conn.Write([]byte{0}); err != nil {
				return "cut"
			}
			return "open"
		}},
		protocol.LimitBody: {meet: func(t *testing.T, e *edge) string {
			conn, err := e.listener.dial()
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				_, _ = io.WriteString(conn, "POST /v1/topics/a/messages HTTP/1.1\r\nHost: localhost:7070\r\nContent-Length: 5\r\n\r\nabc")
			}()
			return string(codeOf(t, readAnswer(t, conn)))
		}},
		protocol.LimitPublish: {meet: func(t *testing.T, e *edge) string { return string(codeOf(t, e.post("never", []byte("x")))) }},
	}
	return all
}

func manyHeaders(n, size int) []protocol.Header {
	var all []protocol.Header
	for i := range n {
		all = append(all, protocol.Header{Name: fmt.Sprintf("h%d", i), Value: strings.Repeat("v", size)})
	}
	return all
}

func meetRequestHead(t *testing.T, e *edge) string {
	conn, err := e.listener.dial()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = fmt.Fprintf(conn, "GET /healthz HTTP/1.1\r\nHost: localhost:7070\r\nX-Large: %s\r\n\r\n", strings.Repeat("x", 64<<10))
	}()
	defer time.Sleep(time.Second) // net/http waits before it closes
	return strconv.Itoa(readAnswer(t, conn).StatusCode)
}

func meetFrame(_ *testing.T, e *edge) string {
	r := e.open(protocol.Proto{})
	r.write(announce(10_001))
	return r.closed()
}

func meetMessages(_ *testing.T, e *edge) string {
	c := e.connect(protocol.Proto{})
	c.send(&protocol.Publish{Ref: 5, Messages: []protocol.Message{msg("a", "1"), msg("a", "2")}})
	code, _ := c.refusal()
	return string(code)
}

func meetHistoryHeld(t *testing.T, e *edge) string {
	for range 16 {
		e.publish(protocol.Message{Topic: "a", Payload: bytes.Repeat([]byte("x"), 256<<10)})
	}
	for range 17 {
		conn, err := e.listener.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "GET /v1/topics/a/messages HTTP/1.1\r\nHost: localhost:7070\r\n\r\n")
	}
	synctest.Wait()
	return string(codeOf(t, e.request("GET /v1/topics/a/messages HTTP/1.1")))
}

func meetInFlight(_ *testing.T, e *edge) string {
	c := e.connect(protocol.Proto{})
	c.send(&protocol.Publish{Ref: 1, Messages: []protocol.Message{msg("never", "1")}})
	c.send(&protocol.Publish{Ref: 2, Messages: []protocol.Message{msg("a", "2")}})
	synctest.Wait()
	for {
		select {
		case f := <-c.frames:
			if _, answered := f.(*protocol.Published); answered {
				return "answered"
			}
		default:
			return "waits"
		}
	}
}

func meetOutboundSoft(t *testing.T, e *edge) string {
	r := e.session("caught_up", jsonConnect, `{"type":"subscribe","sub":1,"filter":"a"}`)
	const messages = 20
	for range messages {
		e.publish(msg("a", strings.Repeat("x", 30<<10)))
		synctest.Wait()
	}
	for seen := 0; seen < messages; {
		_, text, err := r.read()
		if err != nil {
			t.Fatal(err)
		}
		seen += strings.Count(string(text), `"topic":"a"`)
	}
	return "all came"
}

func meetOutboundHard(_ *testing.T, e *edge) string {
	r := e.session("welcome", jsonConnect)
	r.write(bytes.Repeat(frame(0x81, []byte(`{"type":"unsubscribe","sub":77}`)), 1000))
	synctest.Wait()
	return r.closed()
}

func meetReceiving(_ *testing.T, e *edge) string {
	slow := e.open(protocol.Proto{})
	slow.write(append(announce(1<<20), make([]byte, 200<<10)...))
	time.Sleep(2 * time.Second)
	e.open(protocol.Proto{}).write(append(announce(1<<20), make([]byte, 200<<10)...))
	return slow.closed()
}

func meetAdmin(t *testing.T, e *edge) string {
	l := newPipeListener()
	h := e.server.HTTP(e.server.Admin())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = h.Serve(e.server.AdminGate(l))
	}()
	defer func() {
		_ = h.Close()
		<-done
	}()
	var last net.Conn
	for range 65 {
		conn, err := l.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		last = conn
	}
	return string(codeOf(t, ask(t, last, "GET /metrics HTTP/1.1")))
}

func meetPublishRate(t *testing.T, e *edge) string {
	for range 2 {
		if answer := e.post("a", []byte("x")); answer.StatusCode != http.StatusOK {
			t.Error(answer.Status)
		}
	}
	answer := e.post("a", []byte("x"))
	if answer.Header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After: %q", answer.Header.Get("Retry-After"))
	}
	e.listener.from = net.IPv4(192, 0, 2, 50)
	if other := e.post("a", []byte("x")); other.StatusCode != http.StatusOK {
		t.Errorf("another address: %s", other.Status)
	}
	return string(codeOf(t, answer))
}

// slowly returns "slowly" if a thing took at least so long.
func slowly(since time.Time, least time.Duration) string {
	if took := time.Since(since); took < least {
		return "in " + took.String()
	}
	return "slowly"
}

func meetInboundRate(t *testing.T, e *edge) string {
	start := time.Now()
	if answer := e.post("a", make([]byte, 50_000)); answer.StatusCode != http.StatusOK {
		t.Error(answer.Status)
	}
	return slowly(start, 3*time.Second)
}

func meetReplayRate(_ *testing.T, e *edge) string {
	const messages = 60
	for range messages {
		e.publish(msg("a", strings.Repeat("x", 1000)))
	}
	start := time.Now()
	c := e.connect(protocol.Proto{}, &tidewirev1.Subscribe{Sub: 1, Filter: "a", From: "earliest"})
	follow := newReader(e.t, "", "a")
	follow.until(c, func() bool { return len(follow.subs[1].got) == messages && follow.subs[1].caughtUp })
	e.publish(msg("a", "live"))
	follow.until(c, func() bool { return len(follow.subs[1].got) == messages+1 })
	return slowly(start, 3*time.Second)
}

// meetBatchBytes announces a batch that is too large.
func meetBatchBytes(t *testing.T, e *edge) string {
	code := codeOf(t, readAnswer(t, e.dialBatch(protocol.LimitBatchBytes.Default()+1)))
	time.Sleep(time.Second) // net/http lingers
	return string(code)
}

// meetBatchMessages sends one message too many, and returns what became of it.
func meetBatchMessages(t *testing.T, e *edge) string {
	const line = `{"topic":"a","json":1}` + "\n"
	n := protocol.LimitBatchMessages.Default() + 1
	conn := e.dialBatch(n * len(line))
	go func() { _, _ = io.WriteString(conn, strings.Repeat(line, n)) }()
	answer := readAnswer(t, conn)
	var last struct {
		Index int
		Error struct{ Code string }
	}
	for in := json.NewDecoder(answer.Body); ; {
		if err := in.Decode(&last); err != nil {
			break
		}
	}
	if last.Index != n-1 {
		t.Errorf("%d results for %d messages", last.Index+1, n)
	}
	return last.Error.Code
}

// meetBatches begins as many batches as there may be, and one more.
func meetBatches(t *testing.T, e *edge) string {
	for range protocol.LimitBatches.Default() {
		e.dialBatch(100)
	}
	synctest.Wait()
	code := codeOf(t, readAnswer(t, e.dialBatch(100)))
	time.Sleep(time.Second)
	return string(code)
}

// dialBatch sends the head of a batch.
func (e *edge) dialBatch(bytes int) net.Conn {
	e.t.Helper()
	conn, err := e.listener.dial()
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = conn.Close() })
	head := fmt.Sprintf("POST /v1/messages HTTP/1.1\r\nHost: localhost:7070\r\nContent-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n", bytes)
	if _, err := io.WriteString(conn, head); err != nil {
		e.t.Fatal(err)
	}
	return conn
}
