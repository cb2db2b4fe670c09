package server

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/protocol"
)

const (
	asLines = "Content-Type: application/x-ndjson"
	asArray = "Content-Type: application/json; charset=utf-8"
)

// batchAnswer is a result as a script sees it.
type batchAnswer struct {
	Index *int `json:"index"`
	published
	Error *problem `json:"error"`
	Rest  bool     `json:"rest"`
}

// String is "stored", "duplicate" or the code, with "..." for the rest.
func (a batchAnswer) String() string {
	switch {
	case a.Error != nil && a.Rest:
		return string(a.Error.Code) + "..."
	case a.Error != nil:
		return string(a.Error.Code)
	case a.Duplicate:
		return "duplicate"
	case a.Stored:
		return "stored"
	}
	return "ephemeral"
}

// readBatch reads an answer and checks what holds for each.
func readBatch(t testing.TB, body string, array bool) (all []batchAnswer, brief string) {
	t.Helper()
	if array {
		if err := json.Unmarshal([]byte(body), &all); err != nil || all == nil {
			t.Fatalf("%v: %s", err, body)
		}
	} else {
		for line := range strings.Lines(body) {
			var a batchAnswer
			if err := json.Unmarshal([]byte(line), &a); err != nil || !strings.HasSuffix(line, "\n") {
				t.Fatalf("%v: %q", err, line)
			}
			all = append(all, a)
		}
	}
	words := make([]string, len(all))
	for i, a := range all {
		if a.Index == nil || *a.Index != i || (a.Error == nil && a.Stored) == (a.Position == "") {
			t.Errorf("result %d: %+v", i, a)
		}
		if a.Error != nil && (a.Error.Detail == "" || a.Error.Status != a.Error.Code.Info().Status) {
			t.Errorf("result %d: %+v", i, a.Error)
		}
		words[i] = a.String()
	}
	return all, strings.Join(words, " ")
}

// batch publishes one that is taken.
func (e *testEdge) batch(body string, headers ...string) (all []batchAnswer, brief string) {
	e.t.Helper()
	w := e.do("POST", "/v1/messages", body, headers...)
	array := strings.HasPrefix(headers[0], "Content-Type: application/json")
	want := "application/x-ndjson"
	if array {
		want = "application/json"
	}
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != want {
		e.t.Fatalf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	return readBatch(e.t, w.Body.String(), array)
}

func TestBatch(t *testing.T) {
	messages := []string{
		`{"topic":"a","id":"1","payload":"x","key":"k","headers":{"H":"v"},"content_type":"text/plain"}`,
		`{"topic":"b","json":{"n":[1,"],",2]}}`,
		`{"topic":"a","id":"1","payload":"x"}`,
		`{"topic":"a","id":"1","payload":"other"}`,
		`{"topic":"a","payload_base64":"/w==","position":"p1-7","time":"ignored"}`,
		`{"topic":"a","payload":""}`,
	}
	const want = "stored stored duplicate id_conflict stored stored"
	for name, c := range map[string]struct{ body, kind string }{
		"lines":            {strings.Join(messages, "\n") + "\n", asLines},
		"blank lines":      {"\r\n" + strings.Join(messages, "\r\n\n \n"), asLines},
		"array":            {"[" + strings.Join(messages, ",") + "]", asArray},
		"array with space": {" [ " + strings.Join(messages, "\n , ") + " ] \n", asArray},
	} {
		t.Run(name, func(t *testing.T) {
			e := newTestEdge(t, anyone())
			all, brief := e.batch(c.body, c.kind)
			if brief != want {
				t.Fatalf("%s, want %s", brief, want)
			}
			if all[2].Position != all[0].Position || all[0].ID != "1" || all[0].Topic != "a" || all[1].ID != all[1].Position || all[1].Topic != "b" {
				t.Errorf("%+v", all)
			}
			m := e.historyOf("a", "").Messages
			if len(m) != 3 || m[0]["content_type"] != "text/plain" || m[0]["key"] != "k" || m[1]["payload_base64"] != "/w==" || m[2]["payload"] != "" {
				t.Errorf("stored: %v", m)
			}
			if m := e.historyOf("b", "").Messages; m[0]["payload"] != `{"n":[1,"],",2]}` || m[0]["content_type"] != "application/json" {
				t.Errorf("stored: %v", m)
			}
		})
	}
	e := newTestEdge(t, anyone())
	if _, brief := e.batch(`{"topic":"a","json":1,"ephemeral":true}`, asLines); brief != "ephemeral" {
		t.Errorf("an ephemeral one was %s", brief)
	}
	if all, _ := e.batch("", asLines); len(all) != 0 {
		t.Errorf("of nothing: %v", all)
	}
	if all, _ := e.batch(" [ ] ", asArray); len(all) != 0 {
		t.Errorf("of nothing: %v", all)
	}
}

// TestBatchBadMessages: what is wrong in itself has its own error and stops
// nothing.
func TestBatchBadMessages(t *testing.T) {
	o := anyone()
	o.Limits.FrameBytes, o.Limits.PayloadBytes = 10_000, 5000
	const good = `{"topic":"a","payload":"x"}`
	long := `{"topic":"a","payload":"` + strings.Repeat("x", 10_000) + `"}`
	for bad, code := range map[string]protocol.Code{
		`{"topic":"a"}`:               protocol.CodeInvalidMessage,
		`{"topic":"a","payload":"x"`:  protocol.CodeInvalidMessage,
		`{"topic":"a"]}`:              protocol.CodeInvalidMessage,
		`null`:                        protocol.CodeInvalidMessage,
		`7`:                           protocol.CodeInvalidMessage,
		`}`:                           protocol.CodeInvalidMessage,
		`{"topic":5,"payload":""}`:    protocol.CodeInvalidMessage,
		`{"topic":"a..b","json":1}`:   protocol.CodeInvalidTopic,
		`{"topic":"$a","json":1}`:     protocol.CodeReservedTopic,
		`{"payload":"x"}`:             protocol.CodeInvalidTopic,
		`{"topic":"a","json":"\ud8"}`: protocol.CodeInvalidMessage,
		long:                          protocol.CodePayloadTooLarge,
		`{"topic":"a","json":"` + strings.Repeat("x", 6000) + `"}`:                             protocol.CodePayloadTooLarge,
		`{"topic":"a","json":1,"id":"` + strings.Repeat("x", 200) + `"}`:                       protocol.CodeInvalidID,
		`{"topic":"a","json":[` + strings.Repeat("[", 4000) + strings.Repeat("]", 4000) + `]}`: protocol.CodePayloadTooLarge,
	} {
		e := newTestEdge(t, o)
		want := fmt.Sprintf("stored %s %s stored", code, code)
		if _, got := e.batch(strings.Join([]string{good, bad, bad, good}, "\n"), asLines); got != want {
			t.Errorf("lines with %.80s: %s, want %s", bad, got, want)
		}
		if strings.Count(bad, "{") != strings.Count(bad, "}") || strings.Count(bad, "[") != strings.Count(bad, "]") || strings.Count(bad, `"`)%2 != 0 {
			continue // in an array it takes its neighbours with it
		}
		if _, got := e.batch("["+strings.Join([]string{good, bad, bad, good}, ",")+"]", asArray); got != want {
			t.Errorf("an array with %.80s: %s, want %s", bad, got, want)
		}
	}
	e := newTestEdge(t, o)
	if _, got := e.batch("["+good+",,"+good+",]", asArray); got != "stored invalid_message stored invalid_message" {
		t.Errorf("empty elements: %s", got)
	}
}

func TestBatchRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		body     string
		headers  string
		code     protocol.Code
		sentence string
	}{
		"no type":           {"", "", protocol.CodeUnsupported, "application/x-ndjson"},
		"curl's type":       {"", "Content-Type: application/x-www-form-urlencoded", protocol.CodeUnsupported, "one message in each line"},
		"charset":           {"", "Content-Type: application/json; charset=latin1", protocol.CodeUnsupported, "UTF-8"},
		"encoding":          {"", asLines + "|Content-Encoding: gzip", protocol.CodeUnsupported, "gzip"},
		"id":                {"", asLines + "|Idempotency-Key: a", protocol.CodeInvalidHeader, "into each message"},
		"key":               {"", asLines + "|Tidewire-Key: a", protocol.CodeInvalidHeader, "into each message"},
		"age":               {"", asLines + "|Tidewire-Repeat-Age: old", protocol.CodeInvalidHeader, "seconds"},
		"age twice":         {"", asLines + "|Tidewire-Repeat-Age: 1|Tidewire-Repeat-Age: 2", protocol.CodeInvalidHeader, "2 times"},
		"too large":         {strings.Repeat(" ", batchBytes+1), asLines, protocol.CodePayloadTooLarge, "several"},
		"no array":          {`{"topic":"a"}`, asArray, protocol.CodeBadRequest, "no JSON array"},
		"nothing":           {"", asArray, protocol.CodeBadRequest, "no JSON array"},
		"array left open":   {"[", asArray, protocol.CodeBadRequest, "does not end"},
		"two arrays, empty": {"[][]", asArray, protocol.CodeBadRequest, "something follows"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newTestEdge(t, anyone())
			wantProblem(t, e.do("POST", "/v1/messages", c.body, strings.Split(c.headers, "|")...), c.code, c.sentence)
		})
	}
	e := newTestEdge(t, anyone())
	wantProblem(t, e.do("POST", "/v1/messages?topic=a", "", asLines), protocol.CodeBadRequest, "takes none")
	if w := e.do("GET", "/v1/messages", ""); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", w.Code)
	}
}

func TestBatchPermissions(t *testing.T) {
	a := guarded()
	a.APIKeys[0].Publish = []string{"orders.>"}
	e := newTestEdge(t, Options{Access: a})
	body := `{"topic":"orders.a","payload":"1"}` + "\n" + `{"topic":"other","payload":"2"}` + "\n" + `{"topic":"orders.b","payload":"3"}`
	if _, got := e.batch(body, asLines, "Authorization: Bearer "+testKey); got != "stored forbidden stored" {
		t.Error(got)
	}
	wantProblem(t, e.do("POST", "/v1/messages", body, asLines), protocol.CodeUnauthorized, "a token is needed")
}

// TestBatchRepeat: a repeat without ids would be stored twice.
func TestBatchRepeat(t *testing.T) {
	e := newTestEdge(t, anyone())
	body := `[{"topic":"a","id":"1","payload":"1"},{"topic":"a","payload":"2"}]`
	for _, want := range []string{"stored invalid_message", "duplicate invalid_message"} {
		if _, got := e.batch(body, asArray, "Tidewire-Repeat-Age: 90"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestBatchOrder: behind a refusal for now nothing of the batch passes.
func TestBatchOrder(t *testing.T) {
	e := newTestEdge(t, anyone())
	e.log.Refuse(protocol.Errorf(protocol.CodeStorageFull, "full"))
	const body = `{"topic":"a","payload":"1"}` + "\n" + `{"topic":"b"}` + "\n" + `{"topic":"b","payload":"2"}`
	all, got := e.batch(body, asLines)
	if got != "storage_full invalid_message out_of_order" || !strings.Contains(all[2].Error.Detail, "this batch") || !all[2].Error.Retryable {
		t.Errorf("%s %+v", got, all[2].Error)
	}
	e.log.Refuse(nil)
	if _, got := e.batch(body, asLines); got != "stored invalid_message stored" {
		t.Error(got)
	}
}

// TestBatchRate: a batch counts as its messages do, and what is beyond the rate
// holds back what follows.
func TestBatchRate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newTestEdge(t, anyone())
		e.broker = broker.New(e.log, broker.Options{PublishRate: 2}) // the first one applies
		all, got := e.batch(strings.Repeat(`{"topic":"a","payload":"x"}`+"\n", 4), asLines)
		if got != "stored stored rate_limited out_of_order" || all[2].Error.RetryAfterMS == 0 {
			t.Errorf("%s %+v", got, all[2].Error)
		}
	})
}

// TestBatchEndsEarly: what follows the end is told once, and what came before it
// is stored.
func TestBatchEndsEarly(t *testing.T) {
	const good = `{"topic":"a","payload":"x"}`
	tail := strings.Repeat("x", 3000)
	for name, c := range map[string]struct {
		body, kind, want string
	}{
		"array left open": {"[" + good + "," + good, asArray, "stored bad_request..."},
		"two arrays":      {"[" + good + "][" + good + "]", asArray, "stored bad_request..."},
		"many messages":   {strings.Repeat(good+"\n", batchMessages+1), asLines, strings.Repeat("stored ", batchMessages) + "too_many_messages..."},
	} {
		t.Run(name, func(t *testing.T) {
			e := newTestEdge(t, anyone())
			if _, got := e.batch(c.body, c.kind); got != c.want {
				t.Errorf("%.200s, want %.200s", got, c.want)
			}
		})
	}
	t.Run("many bytes", func(t *testing.T) {
		e := newTestEdge(t, anyone())
		_, client := e.serve()
		line := `{"topic":"a","payload":"` + tail + `"}` + "\n"
		body := io.MultiReader(strings.NewReader(strings.Repeat(line, batchBytes/len(line)+50))) // of unknown length
		resp, err := client.Post("http://localhost:7070/v1/messages", "application/x-ndjson", body)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		all, got := readBatch(t, string(text), false)
		if err != nil || !strings.HasSuffix(got, " stored payload_too_large...") || len(all) > batchBytes/len(line)+5 || len(all) < batchBytes/len(line)-1 {
			t.Errorf("%d results, %v", len(all), err)
		}
	})
}

// TestBatchBrokenOff: a line that was cut off is not taken, even if it looks
// whole.
func TestBatchBrokenOff(t *testing.T) {
	e := newTestEdge(t, anyone())
	dial, _ := e.serve()
	conn := dial()
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")
	line := `{"topic":"a","payload":"1"}` + "\n" + `{"topic":"a","payload":"2"}`
	_, _ = fmt.Fprintf(conn, "%x\r\n%s\r\nno chunk\r\n", len(line), line)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(resp.Body)
	if _, got := readBatch(t, string(text), false); got != "stored bad_request..." {
		t.Errorf("%s", got)
	}
	if p := e.historyOf("a", ""); p.payloads() != "1" {
		t.Errorf("stored: %s", p.payloads())
	}
}

// begin sends the head of a batch on a connection, and returns what sends lines
// and the answer's lines.
func beginBatch(t *testing.T, dial func() io.ReadWriteCloser) (send func(line string), answers func() batchAnswer) {
	t.Helper()
	conn := dial()
	t.Cleanup(func() { _ = conn.Close() })
	_, _ = io.WriteString(conn, "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")
	var lines *bufio.Scanner
	send = func(line string) {
		if line == "" {
			_, _ = io.WriteString(conn, "0\r\n\r\n")
			return
		}
		_, _ = fmt.Fprintf(conn, "%x\r\n%s\n\r\n", len(line)+1, line)
	}
	return send, func() (a batchAnswer) {
		if lines == nil {
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			lines = bufio.NewScanner(resp.Body)
		}
		if !lines.Scan() {
			t.Fatalf("no more results: %v", lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		return a
	}
}

// TestBatchStreams: results come while the body is still on its way, and a body
// that is late has its time for each part alone.
func TestBatchStreams(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newTestEdge(t, anyone())
		dial, _ := e.serve()
		send, answer := beginBatch(t, func() io.ReadWriteCloser { return dial() })
		for i := range 3 {
			send(fmt.Sprintf(`{"topic":"a","payload":"%d"}`, i))
			if a := answer(); a.String() != "stored" || *a.Index != i {
				t.Fatalf("%+v", a)
			}
		}
		since := time.Now()
		time.Sleep(20 * time.Second)
		send(`{"topic":"a","payload":"late"}`)
		if a := answer(); a.String() != "stored" {
			t.Fatalf("%+v", a)
		}
		if a := answer(); a.String() != "slow_connection..." || *a.Index != 4 || time.Since(since) > 31*time.Second {
			t.Errorf("%+v after %v", a, time.Since(since))
		}
	})
}

// TestBatchIsPipelined: messages are handed to the log while those before wait
// for their sync, and are answered in order, late ones as unknown.
func TestBatchIsPipelined(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newTestEdge(t, anyone())
		dial, _ := e.serve()
		send, answer := beginBatch(t, func() io.ReadWriteCloser { return dial() })
		e.log.Hold(true)
		const count = 300
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for i := range count {
				send(fmt.Sprintf(`{"topic":"a","payload":"%0200d"}`, i))
			}
			send("")
		}()
		synctest.Wait()
		select {
		case <-sent:
		default:
			t.Fatal("a message waits for the one before")
		}
		e.log.Hold(false)
		for i := range count {
			if a := answer(); a.String() != "stored" || a.Position != e.log.PositionOf(uint64(i)+1).String() {
				t.Fatalf("result %d: %+v", i, a)
			}
		}
		e.log.Hold(true)
		since := time.Now()
		if _, got := e.batch(`[{"topic":"a","payload":"1"},{"topic":"a"}]`, asArray); got != "outcome_unknown invalid_message" || time.Since(since) != publishTimeout {
			t.Errorf("%s after %v", got, time.Since(since))
		}
	})
}

// TestBatchUnread: a client that does not take its results stops its own batch,
// in bounded memory, and is cut off.
func TestBatchUnread(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newTestEdge(t, anyone())
		dial, _ := e.serve()
		conn := dial()
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: 10000000\r\n\r\n")
		sent := 0
		go func() {
			for ; ; sent++ {
				if _, err := io.WriteString(conn, `{"topic":"a","payload":"x"}`+"\n"); err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		if least, most := batchInFlight/2, 4*batchInFlight; sent < least || sent > most {
			t.Errorf("%d messages were taken before a result was, want %d to %d", sent, least, most)
		}
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if n := len(e.batches.running); n != 0 {
			t.Errorf("%d batches are under way", n)
		}
	})
}

// TestBatchesAtOnce: who comes to many others waits, and is told.
func TestBatchesAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		e := newTestEdge(t, anyone())
		for range batchesAtOnce {
			if err := e.batches.enter(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		wantProblem(t, e.do("POST", "/v1/messages", "", asLines), protocol.CodeOverloaded, "in a moment")
		time.AfterFunc(time.Second, e.batches.leave)
		e.batch("", asLines)
	})
}

// TestBatchSources cuts random bodies anywhere: both sources give the same
// messages, whatever the parts in which they come.
func TestBatchSources(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		var want []string
		for range rng.IntN(6) {
			v := fmt.Sprintf(`{"a":["%s\\",{}],"b\"":%d}`, strings.Repeat(`\\]},[\"`, rng.IntN(8)), rng.IntN(1000))
			want = append(want, v)
		}
		limit := 20 + rng.IntN(100)
		body := "[" + strings.Join(want, " ,\t") + "]"
		for _, array := range []bool{true, false} {
			if !array {
				body = strings.Join(want, "\n")
			}
			in := bufio.NewReaderSize(iotest.OneByteReader(strings.NewReader(body)), 16)
			var source batchSource = &lines{in: in, limit: limit}
			if array {
				source = &elements{in: in, limit: limit}
			}
			for i := 0; ; i++ {
				text, bad, err := source.next()
				if errors.Is(err, io.EOF) && i == len(want) {
					break
				}
				if err != nil || i >= len(want) {
					t.Fatalf("%s: message %d: %v", body, i, err)
				}
				if v := want[i]; (bad == nil && strings.TrimSpace(string(text)) != v) || (bad != nil && len(v)+3 <= limit) || (bad == nil && len(v) > limit) {
					t.Fatalf("%s with limit %d: %q, %v; want %q", body, limit, text, bad, v)
				}
			}
		}
	}
}
