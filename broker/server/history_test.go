package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/brokertest"
	"github.com/tidewire/tidewire/protocol"
	"github.com/tidewire/tidewire/storage"
)

// historyPage is the answer of history as a script sees it.
type historyPage struct {
	Messages []map[string]any `json:"messages"`
	Next     string           `json:"next"`
	Gap      *gap             `json:"gap"`
}

func (p *historyPage) payloads() string {
	var all []string
	for _, m := range p.Messages {
		all = append(all, fmt.Sprint(m["payload"]))
	}
	return strings.Join(all, " ")
}

// historyOf reads a page; query has no '?'.
func (e *testEdge) historyOf(topic, query string, headers ...string) historyPage {
	e.t.Helper()
	w := e.do("GET", "/v1/topics/"+topic+"/messages?"+query, "", headers...)
	if w.Code != http.StatusOK {
		e.t.Fatalf("history of %s: %d %s", topic, w.Code, w.Body)
	}
	if strings.Contains(w.Body.String(), `"messages":null`) {
		e.t.Error("messages is null")
	}
	var p historyPage
	decode(e.t, w.Body, &p)
	if p.Next == "" {
		e.t.Error("next is missing")
	}
	return p
}

func TestHistory(t *testing.T) {
	e := newTestEdge(t, anyone())
	if p := e.historyOf("a", ""); len(p.Messages) != 0 || p.Next != e.log.PositionOf(0).String() {
		t.Errorf("empty log: %+v", p)
	}
	for i := range 5 {
		e.publishText("a", fmt.Sprint("a", i))
		e.publishText("b", fmt.Sprint("b", i))
	}
	at := func(offset uint64) string { return e.log.PositionOf(offset).String() }
	for _, c := range []struct{ query, payloads, next string }{
		{"", "a0 a1 a2 a3 a4", at(10)},
		{"from=earliest", "a0 a1 a2 a3 a4", at(10)},
		{"limit=2", "a0 a1", at(3)},
		{"limit=5", "a0 a1 a2 a3 a4", at(10)},
		{"limit=2&from=" + at(3), "a2 a3", at(7)},
		{"from=" + at(9), "", at(10)},
		{"from=" + at(10), "", at(10)},
		{"from=new", "", at(10)},
		{"from=last:2", "a3 a4", at(10)},
		{"from=last:2&limit=1", "a3", at(7)},
		{"from=-1h", "a0 a1 a2 a3 a4", at(10)},
		{"from=" + time.Now().Add(time.Hour).UTC().Format(time.RFC3339), "", at(10)},
	} {
		if p := e.historyOf("a", c.query); p.payloads() != c.payloads || p.Next != c.next || p.Gap != nil {
			t.Errorf("%s: %s, next %s, gap %v; want %s, %s", c.query, p.payloads(), p.Next, p.Gap, c.payloads, c.next)
		}
	}
}

func TestHistoryRefusals(t *testing.T) {
	e := newTestEdge(t, anyone())
	for query, c := range map[string]struct {
		code     protocol.Code
		sentence string
	}{
		"limit=0":       {protocol.CodeBadRequest, "from 1 to 1000"},
		"limit=1001":    {protocol.CodeBadRequest, "from 1 to 1000"},
		"limit=":        {protocol.CodeBadRequest, "from 1 to 1000"},
		"limit=x":       {protocol.CodeBadRequest, "from 1 to 1000"},
		"before=x":      {protocol.CodeInvalidStart, "RFC"},
		"before=":       {protocol.CodeInvalidStart, "before is empty"},
		"before=17":     {protocol.CodeOffsetNotPosition, "give the `position`"},
		"before=p1-3_7": {protocol.CodeInvalidPosition, "partition"},

		"before=new&from=new": {protocol.CodeBadRequest, "both given"},
		"from=":               {protocol.CodeInvalidStart, "is empty"},
		"from=tomorrow":       {protocol.CodeInvalidStart, "RFC"},
		"from=last:0":         {protocol.CodeInvalidStart, "from 1 to"},
		"from=1234":           {protocol.CodeOffsetNotPosition, "give the `position`"},
		"from=pxyz":           {protocol.CodeInvalidPosition, "not a position"},
		"from=p1-3_7":         {protocol.CodeInvalidPosition, "partition"},
	} {
		t.Run(query, func(t *testing.T) {
			sentence := c.sentence
			if sentence == "RFC" {
				sentence = "2026-01-02T15:04:05Z"
			}
			wantProblem(t, e.do("GET", "/v1/topics/a/messages?"+query, ""), c.code, sentence)
		})
	}
}

func TestHistoryPermissions(t *testing.T) {
	a := guarded()
	a.APIKeys[0].Subscribe = []string{"orders.>"}
	e := newTestEdge(t, Options{Access: a})
	e.historyOf("orders.a", "", "Authorization: Bearer "+testKey)
	wantProblem(t, e.do("GET", "/v1/topics/other/messages", "", "Authorization: Bearer "+testKey), protocol.CodeForbidden, "orders.>")
	wantProblem(t, e.do("GET", "/v1/topics/orders.a/messages", ""), protocol.CodeUnauthorized, "a token is needed")
}

func TestHistoryGaps(t *testing.T) {
	e := newTestEdge(t, anyone())
	var positions []string
	for i := range 6 {
		positions = append(positions, e.publishText("a", fmt.Sprint(i)).Position)
	}
	e.log.Trim(3)
	if p := e.historyOf("a", ""); p.payloads() != "3 4 5" || p.Gap != nil {
		t.Errorf("earliest: %+v", p)
	}
	p := e.historyOf("a", "from="+positions[0])
	if p.payloads() != "3 4 5" || p.Gap == nil || p.Gap.Reason != "retention" || p.Gap.After != 1 || p.Gap.Through != 3 || p.Gap.Position != positions[2] {
		t.Errorf("retention: %+v %+v", p, p.Gap)
	}
	p = e.historyOf("a", "from="+protocol.Position{Term: 5, Offset: 2}.String())
	if p.payloads() != "3 4 5" || p.Gap == nil || p.Gap.Reason != "other_log" {
		t.Errorf("other log: %+v %+v", p, p.Gap)
	}
}

// trimming is a log that retention passes while a page is read.
type trimming struct {
	*brokertest.Log
	after int // reads until then
	to    uint64
}

func (l *trimming) Read(q storage.Query) (protocol.Chunk, error) {
	if l.after--; l.after == 0 {
		l.Trim(l.to)
	}
	q.MaxBytes = 1 // a message at a time
	return l.Log.Read(q)
}

// TestHistoryTrimmedMeanwhile: a gap is told before the message that follows
// it, never after one that came before it.
func TestHistoryTrimmedMeanwhile(t *testing.T) {
	for reads := range 8 {
		e := newTestEdge(t, anyone())
		for i := range 6 {
			e.publishText("a", fmt.Sprint(i))
		}
		l := &trimming{Log: e.log, after: reads + 1, to: 4}
		e.broker = broker.New(l, broker.Options{})
		var got []string
		for next := "earliest"; len(got) < 6; {
			p := e.historyOf("a", "from="+next)
			if p.Gap != nil {
				for offset := p.Gap.After; offset < p.Gap.Through; offset++ {
					got = append(got, fmt.Sprint(offset))
				}
			}
			got = append(got, strings.Fields(p.payloads())...)
			if next == p.Next && p.Gap == nil {
				break
			}
			next = p.Next
		}
		if strings.Join(got, " ") != "0 1 2 3 4 5" {
			t.Errorf("trimmed at read %d: %v", reads+1, got)
		}
	}
}

// TestHistoryPastDamage tells of what cannot be read where it stood, however many
// such places there are.
func TestHistoryPastDamage(t *testing.T) {
	for limit := 1; limit <= 8; limit++ {
		e := newTestEdge(t, anyone())
		for i := range 8 {
			e.publishText("a", fmt.Sprint(i))
		}
		e.log.Damage(0, 1)
		e.log.Damage(2, 4)
		e.log.Damage(4, 5)
		e.log.Damage(7, 8)
		var got []string
		for next := "earliest"; ; {
			p := e.historyOf("a", fmt.Sprintf("from=%s&limit=%d", next, limit))
			if p.Gap != nil {
				got = append(got, fmt.Sprintf("%s(%d,%d]", p.Gap.Reason, p.Gap.After, p.Gap.Through))
			}
			got = append(got, strings.Fields(p.payloads())...)
			if next == p.Next {
				break
			}
			next = p.Next
		}
		if all := strings.Join(got, " "); all != "passed_over(0,1] 1 passed_over(2,4] passed_over(4,5] 5 6 passed_over(7,8]" {
			t.Errorf("limit %d: %s", limit, all)
		}
	}
}

// TestHistoryByPages reads with every limit, on while messages expire and are
// trimmed: each message comes once or lies in a gap.
func TestHistoryByPages(t *testing.T) {
	const count = 40
	for _, limit := range []int{1, 2, 3, 7, 39, 40, 41} {
		e := newTestEdge(t, anyone())
		want := map[string]bool{}
		for i := range count {
			payload := fmt.Sprint(i)
			if i%5 == 0 {
				e.store(protocol.Message{Topic: "a", Payload: []byte(payload), ExpiresAt: time.Unix(1, 0)})
				continue
			}
			e.publishText("a", payload)
			want[payload] = true
		}
		seen, lost, next := map[string]bool{}, uint64(0), "earliest"
		for page := 0; ; page++ {
			p := e.historyOf("a", fmt.Sprintf("limit=%d&from=%s", limit, next))
			if p.Gap != nil {
				lost += p.Gap.Through - p.Gap.After
			}
			for payload := range strings.FieldsSeq(p.payloads()) {
				if seen[payload] || !want[payload] {
					t.Fatalf("limit %d: %s came again, or has expired", limit, payload)
				}
				seen[payload] = true
			}
			if len(p.Messages) == 0 && p.Gap == nil {
				break
			}
			if next = p.Next; page == 1 {
				e.log.Trim(20)
			}
		}
		if lost == 0 && len(seen) != len(want) {
			t.Errorf("limit %d: %d messages, want %d, and no gap", limit, len(seen), len(want))
		}
		if len(seen)+int(lost) < len(want) {
			t.Errorf("limit %d: %d messages and %d in gaps, want %d", limit, len(seen), lost, len(want))
		}
	}
}

func TestHistoryIsBounded(t *testing.T) {
	e := newTestEdge(t, anyone())
	payload := bytes.Repeat([]byte("x"), 200<<10)
	const count = 25
	for range count {
		e.store(protocol.Message{Topic: "a", Payload: payload})
	}
	var got, pages int
	q := broker.HistoryQuery{Filter: mustFilter(t, "a"), From: protocol.Start{Kind: protocol.StartEarliest}, Limit: 1000}
	for ; got < count; pages++ {
		p, err := e.broker.History(t.Context(), e.access().anonymous, q)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(p.Messages); n == 0 || n*len(payload) > 4<<20 {
			t.Fatalf("a page of %d messages", n)
		}
		got += len(p.Messages)
		q.From = protocol.Start{Kind: protocol.StartPosition, Position: p.Next}
	}
	if got != count || pages != 2 {
		t.Errorf("%d messages on %d pages", got, pages)
	}
	e.historyOf("a", "limit=2")
	if held := e.pages.held.Load(); held != 0 {
		t.Errorf("%d bytes are held for ever", held)
	}
}

// TestHistoryHeld: clients that do not take their pages do not fill the memory,
// nor keep others from being told so.
func TestHistoryHeld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newTestEdge(t, anyone())
		dial, _ := e.serve()
		const size = 200 << 10
		e.store(protocol.Message{Topic: "a", Payload: bytes.Repeat([]byte("x"), size)})
		others := pagesHeld - 3*size // what other clients have not taken
		e.pages.held.Add(others)
		for range 5 {
			conn := dial()
			defer func() { _ = conn.Close() }()
			_, _ = io.WriteString(conn, "GET /v1/topics/a/messages HTTP/1.1\r\nHost: localhost\r\n\r\n")
		}
		synctest.Wait()
		if held := e.pages.held.Load(); held < pagesHeld || held > pagesHeld+pagesAtOnce*2*size {
			t.Errorf("%d bytes are held", held)
		}
		wantProblem(t, e.do("GET", "/v1/topics/a/messages", ""), protocol.CodeOverloaded, "/v1/events")
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if held := e.pages.held.Load(); held != others {
			t.Errorf("%d bytes are held for who does not read", held)
		}
		e.historyOf("a", "limit=1")
	})
}

func TestHistoryEndsWithItsRequest(t *testing.T) {
	e := newTestEdge(t, anyone())
	e.publishText("a", "x")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	who := &broker.Identity{Subscribe: []protocol.Filter{mustFilter(t, ">")}}
	q := broker.HistoryQuery{Filter: mustFilter(t, "a"), From: protocol.Start{Kind: protocol.StartEarliest}, Limit: 1}
	if _, err := e.broker.History(ctx, who, q); err == nil {
		t.Error("it went on reading")
	}
}
