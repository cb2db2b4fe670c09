package server

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// operate sends a request to the listener of operators.
func (e *testEdge) operate(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	e.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "localhost:7071"
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	setHeaders(r, headers)
	w := httptest.NewRecorder()
	e.Server.Admin().ServeHTTP(w, r)
	noteExchange(e.t, &exchange{adminListener, r, []byte(body), w.Code, w.Header(), w.Body.Bytes()})
	return w
}

// fetchedForm is what a fetch answers.
type fetchedForm struct {
	Messages []struct {
		ID         string
		Topic      string
		Position   string
		Payload    string
		Key        string
		Attempt    int
		Generation uint64
	}
	Generation uint64
	Gaps       []gap
}

func (f *fetchedForm) payloads() string {
	var all []string
	for _, m := range f.Messages {
		all = append(all, m.Payload)
	}
	return strings.Join(all, " ")
}

// fetchFrom takes messages of a consumer.
func (e *testEdge) fetchFrom(name, query string) (f fetchedForm) {
	e.t.Helper()
	w := e.do("POST", "/v1/consumers/"+name+"/fetch"+query, "")
	if w.Code != http.StatusOK {
		e.t.Fatalf("fetch %s%s: %d %s", name, query, w.Code, w.Body)
	}
	decode(e.t, w.Body, &f)
	for _, m := range f.Messages {
		if m.Generation != f.Generation || m.Attempt < 1 {
			e.t.Errorf("attempt %d, generation %d, the answer has %d", m.Attempt, m.Generation, f.Generation)
		}
	}
	return f
}

// settleWith says what became of messages. A body is written with ' for ".
func (e *testEdge) settleWith(name, body string) (s settled) {
	e.t.Helper()
	w := e.do("POST", "/v1/consumers/"+name+"/ack", strings.ReplaceAll(body, "'", `"`), "Content-Type: application/json")
	if w.Code != http.StatusOK {
		e.t.Fatalf("ack %s: %d %s", body, w.Code, w.Body)
	}
	decode(e.t, w.Body, &s)
	return s
}

// consumerNow is how a consumer stands.
func (e *testEdge) consumerNow(name string) (f consumerForm) {
	e.t.Helper()
	w := e.operate("GET", "/v1/consumers/"+name, "")
	if w.Code != http.StatusOK {
		e.t.Fatalf("%s: %d %s", name, w.Code, w.Body)
	}
	decode(e.t, w.Body, &f)
	return f
}

func consuming(t *testing.T, o Options, f func(t *testing.T, e *testEdge)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := newTestEdge(t, o)
		f(t, e)
		e.stop()
	})
}

// TestFetchAndAck is the life of messages over HTTP: taken, done, given back,
// extended, given up.
func TestFetchAndAck(t *testing.T) {
	consuming(t, anyone(), func(t *testing.T, e *testEdge) {
		for _, payload := range []string{"1", "2", "3", "4"} {
			e.publishText("orders.new", payload)
		}
		e.publishText("other", "x")
		first := e.fetchFrom("billing", "?filter=orders.%3E&max=3")
		if first.payloads() != "1 2 3" || first.Generation == 0 {
			t.Fatalf("fetched %+v", first)
		}
		rest := e.fetchFrom("billing", "")
		if rest.payloads() != "4" {
			t.Fatalf("then %+v", rest)
		}
		at := func(i int) string { return first.Messages[i].Position }
		done := e.settleWith("billing", `{'ack':['`+at(0)+`'],'nack':[{'position':'`+at(1)+`','delay':'5s'}],'reject':[{'position':'`+at(2)+`','reason':'no such customer'}]}`)
		if done.Settled != 3 || len(done.Refused) != 0 {
			t.Errorf("settled %+v", done)
		}
		again := e.settleWith("billing", `{'ack':['`+at(0)+`','`+rest.Messages[0].Position+`']}`)
		if again.Settled != 1 || len(again.Refused) != 1 || again.Refused[0] != (refused{at(0), string(protocol.CodeNotPending)}) {
			t.Errorf("settled again: %+v", again)
		}
		if none := e.fetchFrom("billing", "?wait=4"); len(none.Messages) != 0 {
			t.Errorf("before its delay: %+v", none)
		}
		start := time.Now()
		back := e.fetchFrom("billing", "?wait=20s")
		if back.payloads() != "2" || back.Messages[0].Attempt != 2 || time.Since(start) > 2*time.Second {
			t.Errorf("after %v: %+v", time.Since(start), back)
		}
		extend := func(generation uint64) settled {
			return e.settleWith("billing", fmt.Sprintf(`{'generation':%d,'extend':[{'position':'%s','by':'1m'}]}`, generation, at(1)))
		}
		if n := extend(first.Generation); n.Settled != 1 || len(n.Refused) != 0 {
			t.Errorf("extended: %+v", n)
		}
		if n := extend(first.Generation + 1); n.Settled != 0 || len(n.Refused) != 1 || n.Refused[0] != (refused{at(1), string(protocol.CodeFenced)}) {
			t.Errorf("extended in another generation: %+v", n)
		}
		info := e.consumerNow("billing")
		if info.Filter != "orders.>" || info.InFlight != 1 || info.Dead != 1 || info.Mode != "shared" || info.AckWait != "30s" || info.Backoff.Cap != "1m" {
			t.Errorf("it stands so: %+v", info)
		}
	})
}

// TestFetchWaits: a fetch waits for the first message, and for no longer than it
// says; who goes away takes nothing.
func TestFetchWaits(t *testing.T) {
	consuming(t, anyone(), func(t *testing.T, e *testEdge) {
		if f := e.fetchFrom("c", "?filter=a&from=new"); len(f.Messages) != 0 {
			t.Errorf("%+v", f)
		}
		go func() {
			time.Sleep(7 * time.Second)
			e.publishText("a", "late")
		}()
		start := time.Now()
		if f := e.fetchFrom("c", "?wait=30s"); f.payloads() != "late" || time.Since(start) < 7*time.Second || time.Since(start) > 8*time.Second {
			t.Errorf("after %v: %+v", time.Since(start), f)
		}
		start = time.Now()
		if f := e.fetchFrom("c", "?wait=0.5"); len(f.Messages) != 0 || time.Since(start) < 400*time.Millisecond || time.Since(start) > time.Second {
			t.Errorf("after %v: %+v", time.Since(start), f)
		}
		start = time.Now()
		go func() {
			time.Sleep(3 * time.Second)
			e.draining.begin(errDraining)
		}()
		if f := e.fetchFrom("c", "?wait=20s"); len(f.Messages) != 0 || time.Since(start) > 4*time.Second {
			t.Errorf("the broker shuts down, and after %v: %+v", time.Since(start), f)
		}
		wantProblem(t, e.do("POST", "/v1/consumers/c/fetch", ""), protocol.CodeGoingAway, "")
	})
}

// TestFetchWhenFull: while too many answers wait to be read nothing is taken that
// could not be told.
func TestFetchWhenFull(t *testing.T) {
	consuming(t, anyone(), func(t *testing.T, e *testEdge) {
		e.publishText("a", "1")
		e.put("c", `{"filter":"a"}`, 201)
		e.pages.held.Store(pagesHeld + 1)
		wantProblem(t, e.do("POST", "/v1/consumers/c/fetch", ""), protocol.CodeOverloaded, "wait to be read")
		e.pages.held.Store(0)
		if f := e.fetchFrom("c", ""); f.payloads() != "1" || f.Messages[0].Attempt != 1 {
			t.Errorf("%+v", f)
		}
		if held := e.pages.held.Load(); held != 0 {
			t.Errorf("%d bytes are still held", held)
		}
	})
}

// TestFetchOrder: of one ordering key one message is out at a time.
func TestFetchOrder(t *testing.T) {
	consuming(t, anyone(), func(t *testing.T, e *testEdge) {
		for _, payload := range []string{"a1", "a2", "b1"} {
			e.publishText("a", payload, "Tidewire-Key: "+payload[:1])
		}
		f := e.fetchFrom("c", "?filter=a")
		if f.payloads() != "a1 b1" {
			t.Fatalf("%+v", f)
		}
		e.settleWith("c", `{'ack':['`+f.Messages[0].Position+`']}`)
		if f := e.fetchFrom("c", "?wait=1"); f.payloads() != "a2" {
			t.Errorf("%+v", f)
		}
	})
}

// TestFetchRefused and the next one are hostile: absurd numbers, names and bodies
// are refused with a sentence, and the consumer does not notice.
func TestFetchRefused(t *testing.T) {
	consuming(t, anyone(), func(t *testing.T, e *testEdge) {
		e.publishText("a", "one")
		for _, c := range []struct {
			at   string
			code protocol.Code
			says string
		}{
			{"c/fetch", protocol.CodeUnknownConsumer, "c"},
			{"c/fetch?max=0&filter=a", protocol.CodeBadRequest, "1 to 1000"},
			{"c/fetch?max=-1&filter=a", protocol.CodeBadRequest, "1 to 1000"},
			{"c/fetch?max=1001&filter=a", protocol.CodeBadRequest, "at most 1000"},
			{"c/fetch?max=99999999999999999999&filter=a", protocol.CodeBadRequest, "1 to 1000"},
			{"c/fetch?max=&filter=a", protocol.CodeBadRequest, "1 to 1000"},
			{"c/fetch?wait=1h&filter=a", protocol.CodeBadRequest, "at most 30s"},
			{"c/fetch?wait=-1s&filter=a", protocol.CodeBadRequest, "from 0s to 30s"},
			{"c/fetch?wait=soon&filter=a", protocol.CodeBadRequest, "from 0s to 30s"},
			{"c/fetch?wait=9999999h&filter=a", protocol.CodeBadRequest, "wait is"},
			{"c/fetch?filter=a..b", protocol.CodeInvalidFilter, "empty token"},
			{"c/fetch?filter=", protocol.CodeBadRequest, "filter is empty"},
			{"c/fetch?filter=a&from=yesterday", protocol.CodeInvalidStart, "is no start"},
			{"c/fetch?filter=a&from=42", protocol.CodeOffsetNotPosition, "is an offset"},
			{"c/fetch?filter=a&stream=nope", protocol.CodeUnknownStream, ""},
			{"c/fetch?filter=$sys.c", protocol.CodeForbidden, "may not consume"},
			{"c/fetch?nope=1", protocol.CodeBadRequest, "max, wait, filter, from, stream"},
			{"c/fetch?max=1&max=2", protocol.CodeBadRequest, "2 times"},
			{"a.b/fetch?filter=a", protocol.CodeBadRequest, "single token"},
			{"$c/fetch?filter=a", protocol.CodeBadRequest, "begins with '$'"},
			{"%3E/fetch?filter=a", protocol.CodeBadRequest, "single token"},
			{"a%20b/fetch?filter=a", protocol.CodeBadRequest, "U+0020"},
			{"a%00/fetch?filter=a", protocol.CodeBadRequest, "U+0000"},
			{"%FF/fetch?filter=a", protocol.CodeBadRequest, "UTF-8"},
			{strings.Repeat("c", 129) + "/fetch?filter=a", protocol.CodeBadRequest, "129 bytes, at most 128"},
		} {
			w := e.do("POST", "/v1/consumers/"+c.at, "")
			wantProblem(t, w, c.code, c.says)
		}
		wantProblem(t, e.do("POST", "/v1/consumers/c/fetch?filter=a", "{}"), protocol.CodeBadRequest, "no body")
		wantProblem(t, e.do("GET", "/v1/consumers/c/fetch", ""), protocol.CodeMethodNotAllowed, "")
		if w := e.operate("GET", "/v1/consumers", ""); w.Body.String() != "{\"consumers\":[]}\n" {
			t.Errorf("a refused fetch has created something: %s", w.Body)
		}
		name := strings.Repeat("é", 64)
		if f := e.fetchFrom(strings.ReplaceAll(name, "é", "%C3%A9"), "?filter=a"); f.payloads() != "one" {
			t.Errorf("the longest name: %+v", f)
		}
	})
}

func TestAckRefused(t *testing.T) {
	consuming(t, anyone(), func(t *testing.T, e *testEdge) {
		position := e.publishText("a", "one").Position
		e.fetchFrom("c", "?filter=a")
		const js = "application/json"
		for _, c := range []struct {
			body, kind string
			code       protocol.Code
			says       string
		}{
			{`{}`, js, protocol.CodeBadRequest, "names no message"},
			{``, js, protocol.CodeBadRequest, "is empty"},
			{`{"acks":["` + position + `"]}`, js, protocol.CodeBadRequest, `field "acks"`},
			{`{"ack":["` + position + `"]} x`, js, protocol.CodeBadRequest, "behind its end"},
			{`{"ack":["1"]}`, js, protocol.CodeOffsetNotPosition, "is an offset"},
			{`{"ack":["p0-1"]}`, js, protocol.CodeInvalidPosition, "is not a position"},
			{`{"ack":["` + position + `"]}`, "text/plain", protocol.CodeUnsupported, "application/json"},
			{`{"ack":["` + position + `"]}`, formType, protocol.CodeUnsupported, "application/json"},
			{`{"ack":["` + position + `"]}`, js + "; charset=latin1", protocol.CodeUnsupported, "UTF-8"},
			{`{"ack":[` + strings.Repeat(`"p1-1",`, 10_000) + `"p1-1"]}`, js, protocol.CodeTooManyMessages, "10001 positions, at most 10000"},
			{`{"ack":["` + strings.Repeat("x", 1<<20) + `"]}`, js, protocol.CodePayloadTooLarge, "1048576 bytes"},
			{strings.Repeat("[", 100_000), js, protocol.CodeBadRequest, "not JSON"},
			{`{"extend":[{"position":"` + position + `","by":"13h"}]}`, js, protocol.CodeBadRequest, "at most 12h"},
		} {
			w := e.do("POST", "/v1/consumers/c/ack", c.body, "Content-Type: "+c.kind)
			wantProblem(t, w, c.code, c.says)
		}
		one := `{"ack":["` + position + `"]}`
		wantProblem(t, e.do("POST", "/v1/consumers/c/ack?x=1", one, "Content-Type: "+js), protocol.CodeBadRequest, "takes none")
		wantProblem(t, e.do("POST", "/v1/consumers/d/ack", one, "Content-Type: "+js), protocol.CodeUnknownConsumer, "")
		wantProblem(t, e.do("POST", "/v1/consumers/a.b/ack", one, "Content-Type: "+js), protocol.CodeBadRequest, "single token")
		wantProblem(t, e.do("POST", "/v1/consumers/c/ack", one, "Content-Type: "+js, "Content-Encoding: gzip"), protocol.CodeUnsupported, "gzip")

		// Places that were never delivered, of other terms and partitions, up to the
		// largest number.
		term, _, _ := strings.Cut(position, "-")
		s := e.settleWith("c", `{'ack':['pzzz-1','`+term+`-999','`+term+`-9007199254740991','`+term+`-7_1','p3w5e11264sgsf-4294967295_9007199254740991']}`)
		if s.Settled != 0 || len(s.Refused) != 5 {
			t.Errorf("places from nowhere: %+v", s)
		}
		var back []string
		for _, r := range s.Refused {
			back = append(back, r.Position)
			if r.Code != string(protocol.CodeNeverDelivered) {
				t.Errorf("%+v", r)
			}
		}
		want := []string{"pzzz-1", term + "-999", term + "-9007199254740991", term + "-7_1", "p3w5e11264sgsf-4294967295_9007199254740991"}
		if !slices.Equal(back, want) {
			t.Errorf("refused are %q, want %q", back, want)
		}
		all := `{'ack':[` + strings.Repeat(`'p1-1',`, 9_999) + `'` + position + `']}`
		if s := e.settleWith("c", all); s.Settled != 1 || len(s.Refused) != 9_999 {
			t.Errorf("of ten thousand %d were settled and %d refused", s.Settled, len(s.Refused))
		}
	})
}

// TestConsumePermission: the filter of a consumer must be covered by what the
// token may consume, however the consumer came to be.
func TestConsumePermission(t *testing.T) {
	a := guarded()
	a.APIKeys = []APIKey{
		{Name: "all", Key: "twk_all", Publish: []string{">"}, Consume: []string{">"}},
		{Name: "some", Key: "twk_some", Subscribe: []string{">"}, Consume: []string{"orders.*"}},
		{Name: "none", Key: "twk_none", Subscribe: []string{">"}},
	}
	a.Loopback = true
	consuming(t, Options{Access: a}, func(t *testing.T, e *testEdge) {
		as := func(key, method, target, body string) *httptest.ResponseRecorder {
			return e.do(method, target, body, "Authorization: Bearer twk_"+key, "Content-Type: application/json")
		}
		as("all", "POST", "/v1/topics/orders.new/messages", "1")
		for _, c := range []struct{ key, query string }{{"some", "wide/fetch?filter=orders.%3E"}, {"none", "mine/fetch?filter=orders.new"}, {"some", "x/fetch?filter=%3E"}} {
			wantProblem(t, as(c.key, "POST", "/v1/consumers/"+c.query, ""), protocol.CodeForbidden, "may not consume")
		}
		if w := as("all", "POST", "/v1/consumers/wide/fetch?filter=orders.%3E&max=1", ""); w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		wantProblem(t, as("some", "POST", "/v1/consumers/wide/fetch", ""), protocol.CodeForbidden, "orders.*")
		wantProblem(t, as("some", "POST", "/v1/consumers/wide/ack", `{"ack":["p1-1"]}`), protocol.CodeForbidden, "may not consume")
		if w := as("some", "POST", "/v1/consumers/narrow/fetch?filter=orders.new", ""); w.Code != 200 || !strings.Contains(w.Body.String(), `"payload":"1"`) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		wantProblem(t, e.do("POST", "/v1/consumers/narrow/fetch", ""), protocol.CodeUnauthorized, "")
	})
}

// TestFetchGap: what retention took before it was delivered is told, once.
func TestFetchGap(t *testing.T) {
	consuming(t, anyone(), func(t *testing.T, e *testEdge) {
		for _, payload := range []string{"1", "2", "3"} {
			e.publishText("a", payload)
		}
		e.put("c", `{"filter":"a"}`, 201)
		e.log.Trim(2)
		f := e.fetchFrom("c", "")
		if len(f.Gaps) != 1 || f.Gaps[0].Reason != "retention" || f.Gaps[0].After != 0 || f.Gaps[0].Through != 2 {
			t.Errorf("%+v", f)
		}
		if f.payloads() != "3" {
			f = e.fetchFrom("c", "?wait=1")
		}
		if f.payloads() != "3" {
			t.Errorf("behind the gap: %+v", f)
		}
		e.publishText("a", "4")
		if f := e.fetchFrom("c", "?wait=1"); len(f.Gaps) != 0 || f.payloads() != "4" {
			t.Errorf("%+v", f)
		}
	})
}

// TestFetchFindsWhatWasPublished: who was told that a message is stored finds it
// with the next fetch, without waiting.
func TestFetchFindsWhatWasPublished(t *testing.T) {
	e := newTestEdge(t, anyone())
	e.fetchFrom("c", "?filter=a")
	for i := range 300 {
		payload := strconv.Itoa(i)
		e.publishText("a", payload)
		f := e.fetchFrom("c", "")
		if f.payloads() != payload {
			t.Fatalf("published %s, fetched %+v", payload, f)
		}
		e.settleWith("c", `{'ack':['`+f.Messages[0].Position+`']}`)
	}
}
