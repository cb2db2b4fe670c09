package server

import (
	"encoding/json"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// put creates or changes a consumer.
func (e *testEdge) put(name, body string, status int) (f consumerForm) {
	e.t.Helper()
	w := e.operate("PUT", "/v1/consumers/"+name, body)
	if w.Code != status {
		e.t.Fatalf("put %s %s: %d %s", name, body, w.Code, w.Body)
	}
	decode(e.t, w.Body, &f)
	return f
}

func TestPutConsumer(t *testing.T) {
	consuming(t, anyone(), func(t *testing.T, e *testEdge) {
		created := time.Now()
		first := e.put("c", `{"filter":"orders.>","mode":"exclusive","ack_wait":"1m30s","backoff":{"base":"500ms","factor":1.5,"cap":"1m","jitter":false},"max_deliver":3,"max_in_flight":7,"max_in_flight_bytes":65536,"max_waiting":9,"ordered":false}`, 201)
		want := consumerSettings{
			Stream: "main", Filter: "orders.>", Mode: "exclusive", AckWait: "1m30s", Backoff: backoffForm{"500ms", 1.5, "1m", false},
			MaxDeliver: 3, MaxInFlight: 7, MaxInFlightBytes: 65536, MaxWaiting: 9,
		}
		if first.Name != "c" || !reflect.DeepEqual(first.consumerSettings, want) {
			t.Errorf("got  %+v\nwant %+v", first.consumerSettings, want)
		}
		if !first.Created.Equal(created) || first.Blocked != "no_members" || len(first.Members) != 0 || first.Generation == 0 {
			t.Errorf("it stands so: %+v", first)
		}
		changed := e.put("c", `{"filter":"orders.>","max_deliver":4,"backoff":{"jitter":true}}`, 200)
		want.MaxDeliver, want.Backoff.Jitter = 4, true
		if !reflect.DeepEqual(changed.consumerSettings, want) || changed.Generation != first.Generation {
			t.Errorf("changed to %+v, want %+v", changed, want)
		}
		plain := e.put("d", `{"filter":"a","from":"new"}`, 201)
		want = consumerSettings{
			Stream: "main", Filter: "a", Mode: "shared", Ordered: true, AckWait: "30s", Backoff: backoffForm{"1s", 2, "1m", true},
			MaxDeliver: 10, MaxInFlight: 256, MaxInFlightBytes: 4 << 20, MaxWaiting: 10_000,
		}
		if !reflect.DeepEqual(plain.consumerSettings, want) {
			t.Errorf("the defaults are %+v, want %+v", plain.consumerSettings, want)
		}
		var list struct{ Consumers []consumerForm }
		decode(t, e.operate("GET", "/v1/consumers", "").Body, &list)
		if len(list.Consumers) != 2 || list.Consumers[0].Name != "c" || list.Consumers[1].Name != "d" {
			t.Errorf("listed: %+v", list)
		}
		if w := e.operate("DELETE", "/v1/consumers/c", ""); w.Code != http.StatusNoContent || w.Body.Len() != 0 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		wantProblem(t, e.operate("DELETE", "/v1/consumers/c", ""), protocol.CodeUnknownConsumer, "c")
	})
}

func TestPutConsumerRefused(t *testing.T) {
	consuming(t, anyone(), func(t *testing.T, e *testEdge) {
		e.put("there", `{"filter":"a.>"}`, 201)
		for _, c := range []struct {
			name, body string
			code       protocol.Code
			says       string
		}{
			{"c", `{}`, protocol.CodeUnknownConsumer, ""},
			{"c", `{"filter":"a","max_delivery":3}`, protocol.CodeBadRequest, `the field "max_delivery", which is not known`},
			{"c", `{"filter":"a","backoff":{"max":"1s"}}`, protocol.CodeBadRequest, `the field "max", which is not known`},
			{"c", `{"filter":"a"}{}`, protocol.CodeBadRequest, "behind its end"},
			{"c", `{"filter":5}`, protocol.CodeBadRequest, `the field "filter" of the body is of the kind number`},
			{"c", `{"filter":"a","max_deliver":-1}`, protocol.CodeBadRequest, `the field "max_deliver"`},
			{"c", `{"filter":"a","max_deliver":0}`, protocol.CodeBadRequest, "max_deliver"},
			{"c", `{"filter":"a","ack_wait":"30"}`, protocol.CodeBadRequest, "no duration such as 30s"},
			{"c", `{"filter":"a","ack_wait":"-30s"}`, protocol.CodeBadRequest, "no duration such as 30s"},
			{"c", `{"filter":"a","ack_wait":"1ns"}`, protocol.CodeBadRequest, "no duration such as 30s"},
			{"c", `{"filter":"a","ack_wait":"2000h"}`, protocol.CodeBadRequest, "ack_wait"},
			{"c", `{"filter":"a","backoff":{"cap":"61s"}}`, protocol.CodeBadRequest, "cap"},
			{"c", `{"filter":"a","backoff":{"factor":1e99}}`, protocol.CodeBadRequest, "factor"},
			{"c", `{"filter":"a","mode":"both"}`, protocol.CodeBadRequest, "shared or exclusive"},
			{"c", `{"filter":"a..b"}`, protocol.CodeInvalidFilter, "empty token"},
			{"c", `{"filter":"a","from":"soon"}`, protocol.CodeInvalidStart, ""},
			{"c", `{"filter":"a","from":"last-per-topic"}`, protocol.CodeInvalidStart, "every message"},
			{"c", `{"filter":"a","stream":"nope"}`, protocol.CodeUnknownStream, ""},
			{"there", `{"filter":"b"}`, protocol.CodeConsumerExists, "selects a.> in the stream main"},
			{"there", `{"stream":"dead"}`, protocol.CodeConsumerExists, "selects a.>"},
			{"there", `{"mode":"exclusive"}`, protocol.CodeConsumerFixed, "mode"},
			{"a.b", `{"filter":"a"}`, protocol.CodeBadRequest, "single token"},
			{"$a", `{"filter":"a"}`, protocol.CodeBadRequest, "begins with '$'"},
			{strings.Repeat("c", 129), `{"filter":"a"}`, protocol.CodeBadRequest, "129 bytes"},
			{"c", `{"filter":"` + strings.Repeat("a", 256<<10) + `"}`, protocol.CodePayloadTooLarge, "262144 bytes"},
		} {
			wantProblem(t, e.operate("PUT", "/v1/consumers/"+c.name, c.body), c.code, c.says)
		}
		const good = `{"filter":"a"}`
		wantProblem(t, e.operate("PUT", "/v1/consumers/c", good, "Origin: http://localhost:7071"), protocol.CodeBadOrigin, "pages may not")
		wantProblem(t, e.operate("PUT", "/v1/consumers/c?x=1", good), protocol.CodeBadRequest, "takes none")
		wantProblem(t, e.operate("PUT", "/v1/consumers/c", "", "Content-Type: text/plain"), protocol.CodeUnsupported, "application/json")
		for _, path := range []string{"pause", "resume", "seek", "dead/redrive", "dead/purge"} {
			wantProblem(t, e.operate("POST", "/v1/consumers/there/"+path, "", "Origin: null"), protocol.CodeBadOrigin, "")
		}
		wantProblem(t, e.operate("DELETE", "/v1/consumers/there", "", "Origin: null"), protocol.CodeBadOrigin, "")
		var list struct{ Consumers []consumerForm }
		decode(t, e.operate("GET", "/v1/consumers", "").Body, &list)
		if len(list.Consumers) != 1 || list.Consumers[0].Paused {
			t.Errorf("what was refused has done something: %+v", list)
		}
	})
}

func TestPauseAndSeek(t *testing.T) {
	consuming(t, anyone(), func(t *testing.T, e *testEdge) {
		e.publishText("a", "1")
		first := e.publishText("a", "2").Position
		e.put("c", `{"filter":"a"}`, 201)
		var f consumerForm
		decode(t, e.operate("POST", "/v1/consumers/c/pause", "").Body, &f)
		if !f.Paused || f.Blocked != "paused" {
			t.Errorf("%+v", f)
		}
		if got := e.fetchFrom("c", "?wait=1"); len(got.Messages) != 0 {
			t.Errorf("paused, and delivers %+v", got)
		}
		decode(t, e.operate("POST", "/v1/consumers/c/resume", "").Body, &f)
		if f.Paused {
			t.Errorf("%+v", f)
		}
		got := e.fetchFrom("c", "")
		if got.payloads() != "1 2" {
			t.Errorf("%+v", got)
		}
		old := got.Messages[0].Position
		decode(t, e.operate("POST", "/v1/consumers/c/seek", `{"to":"`+old+`"}`).Body, &f)
		if f.InFlight != 0 || f.Generation <= got.Generation || f.Position != old {
			t.Errorf("after the seek: %+v", f)
		}
		if again := e.fetchFrom("c", ""); again.payloads() != "2" || again.Messages[0].Position != first {
			t.Errorf("after the seek: %+v", again)
		}
		for body, code := range map[string]protocol.Code{
			`{}`: protocol.CodeInvalidStart, `{"to":"42"}`: protocol.CodeOffsetNotPosition, `{"to":"soon"}`: protocol.CodeInvalidStart,
			`{"too":"new"}`: protocol.CodeBadRequest, `[]`: protocol.CodeBadRequest, `{"to":"last-per-topic"}`: protocol.CodeInvalidStart,
		} {
			wantProblem(t, e.operate("POST", "/v1/consumers/c/seek", body), code, "")
		}
		for _, path := range []string{"pause", "resume", "seek"} {
			wantProblem(t, e.operate("POST", "/v1/consumers/nope/"+path, `{"to":"new"}`), protocol.CodeUnknownConsumer, "")
		}
	})
}

// deadList lists dead letters.
func (e *testEdge) deadList(query string) (list []deadForm, next string) {
	e.t.Helper()
	w := e.operate("GET", "/v1/consumers/c/dead"+query, "")
	var body struct {
		Dead []deadForm
		Next string
	}
	if w.Code != http.StatusOK {
		e.t.Fatalf("%d %s", w.Code, w.Body)
	}
	decode(e.t, w.Body, &body)
	return body.Dead, body.Next
}

// kill publishes messages to the topic a, and has the consumer c reject them.
func (e *testEdge) kill(ids ...string) {
	e.t.Helper()
	for _, id := range ids {
		e.publishText("a", "payload of "+id, "Idempotency-Key: "+id, "Content-Type: text/plain", "Tidewire-Header-Trace: t", "Tidewire-Key: k-"+id)
	}
	var rejects []string
	for _, m := range e.fetchFrom("c", "?filter=a&max=100").Messages {
		rejects = append(rejects, `{'position':'`+m.Position+`','reason':'bad `+m.ID+`'}`)
	}
	e.settleWith("c", `{'reject':[`+strings.Join(rejects, ",")+`]}`)
	synctest.Wait()
}

func TestDeadLetters(t *testing.T) {
	consuming(t, anyone(), func(t *testing.T, e *testEdge) {
		e.kill("one", "two/..%2F", "three")
		list, next := e.deadList("")
		if len(list) != 3 || next != "" || list[0].ID != "three" || list[2].ID != "one" {
			t.Fatalf("%+v, %q", list, next)
		}
		one := list[2]
		if one.Topic != "a" || one.Attempts != 1 || one.Reason != "bad one" || one.First == "" || one.Last == "" || one.Origin == one.Position {
			t.Errorf("%+v", one)
		}
		page, next := e.deadList("?limit=2")
		rest, end := e.deadList("?limit=2&before=" + next)
		if len(page) != 2 || len(rest) != 1 || rest[0] != one || end != "" {
			t.Errorf("pages: %+v, %q, %+v, %q", page, next, rest, end)
		}
		for _, id := range []string{list[1].ID, list[1].Origin} {
			var shown map[string]any
			w := e.operate("GET", "/v1/consumers/c/dead/"+url.PathEscape(id), "")
			decode(t, w.Body, &shown)
			if shown["id"] != "two/..%2F" || shown["payload"] != "payload of two/..%2F" || shown["content_type"] != "text/plain" || shown["key"] != "k-two/..%2F" ||
				!reflect.DeepEqual(shown["headers"], map[string]any{"trace": "t"}) || shown["reason"] != "bad two/..%2F" {
				t.Errorf("%s is shown as %v", id, shown)
			}
		}
		wantProblem(t, e.operate("GET", "/v1/consumers/c/dead/nope", ""), protocol.CodeNotFound, "nope")
		wantProblem(t, e.operate("GET", "/v1/consumers/x/dead/nope", ""), protocol.CodeUnknownConsumer, "")

		var count struct{ Count int }
		decode(t, e.operate("POST", "/v1/consumers/c/dead/redrive", `{"ids":["one"]}`).Body, &count)
		back := e.fetchFrom("c", "?wait=1")
		if count.Count != 1 || back.payloads() != "payload of one" || back.Messages[0].ID != "one" || back.Messages[0].Topic != "a" || back.Messages[0].Attempt != 1 {
			t.Errorf("redriven %d: %+v", count.Count, back)
		}
		decode(t, e.operate("POST", "/v1/consumers/c/dead/redrive", `{"ids":["three"],"publish":true}`).Body, &count)
		if f := e.fetchFrom("c", "?wait=1"); count.Count != 1 || f.payloads() != "payload of three" {
			t.Errorf("published anew: %+v", f)
		}
		decode(t, e.operate("POST", "/v1/consumers/c/dead/purge", `{"all":true}`).Body, &count)
		if list, _ := e.deadList(""); count.Count != 1 || len(list) != 0 {
			t.Errorf("purged %d, left %+v", count.Count, list)
		}
	})
}

func TestDeadLettersRefused(t *testing.T) {
	consuming(t, anyone(), func(t *testing.T, e *testEdge) {
		e.kill("one")
		ids, err := json.Marshal(make([]string, 1001))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			body string
			code protocol.Code
			says string
		}{
			{`{}`, protocol.CodeBadRequest, "ids"},
			{`{"ids":[]}`, protocol.CodeBadRequest, "ids"},
			{`{"ids":["one"],"all":true}`, protocol.CodeBadRequest, "not both"},
			{`{"ids":"one"}`, protocol.CodeBadRequest, `the field "ids"`},
			{`{"id":["one"]}`, protocol.CodeBadRequest, `field "id"`},
			{`{"ids":["nope"]}`, protocol.CodeNotFound, "nope"},
			{`{"ids":` + string(ids) + `}`, protocol.CodeBadRequest, "1001 ids, at most 1000"},
			{`{"ids":["` + strings.Repeat("x", 256<<10) + `"]}`, protocol.CodePayloadTooLarge, ""},
		} {
			for _, verb := range []string{"redrive", "purge"} {
				wantProblem(t, e.operate("POST", "/v1/consumers/c/dead/"+verb, c.body), c.code, c.says)
			}
		}
		wantProblem(t, e.operate("POST", "/v1/consumers/c/dead/purge", `{"all":true,"publish":true}`), protocol.CodeBadRequest, `field "publish"`)
		for query, code := range map[string]protocol.Code{
			"?limit=0": protocol.CodeBadRequest, "?limit=1001": protocol.CodeBadRequest, "?limit=x": protocol.CodeBadRequest,
			"?before=7": protocol.CodeOffsetNotPosition, "?before=": protocol.CodeInvalidPosition, "?after=p1-1": protocol.CodeBadRequest,
		} {
			wantProblem(t, e.operate("GET", "/v1/consumers/c/dead"+query, ""), code, "")
		}
		if list, _ := e.deadList(""); len(list) != 1 {
			t.Errorf("what was refused has done something: %+v", list)
		}
	})
}

func TestFindMessage(t *testing.T) {
	consuming(t, anyone(), func(t *testing.T, e *testEdge) {
		e.kill("one")
		e.publishText("b", "other", "Idempotency-Key: one")
		bare := e.publishText("a", "bare").Position
		e.put("later", `{"filter":"a","from":"new"}`, 201)
		type found struct {
			Message   map[string]any
			Stream    string
			Consumers []verdictForm
		}
		find := func(path string) (list []found) {
			t.Helper()
			w := e.operate("GET", "/v1/messages/"+path, "")
			var body struct{ Messages any }
			body.Messages = &list
			if w.Code != http.StatusOK {
				t.Fatalf("%s: %d %s", path, w.Code, w.Body)
			}
			decode(t, w.Body, &body)
			return list
		}
		if all := find("one"); len(all) != 2 {
			t.Errorf("%+v", all)
		}
		one := find("one?topic=a")
		if len(one) != 1 || one[0].Stream != "main" || one[0].Message["topic"] != "a" || one[0].Message["payload"] != nil || len(one[0].Consumers) != 2 {
			t.Fatalf("%+v", one)
		}
		dead := one[0].Consumers[0]
		if dead.Name != "c" || dead.State != "dead" || dead.Reason != "bad one" || dead.Attempts != 1 {
			t.Errorf("%+v", dead)
		}
		if got := find(bare); len(got) != 1 || got[0].Consumers[0].State != "not_yet" {
			t.Errorf("%+v", got)
		}
		e.fetchFrom("c", "")
		if got := find(bare); got[0].Consumers[0].State != "in_flight" || got[0].Consumers[0].Attempts != 1 || got[0].Consumers[0].Due == nil {
			t.Errorf("%+v", got)
		}
		wantProblem(t, e.operate("GET", "/v1/messages/nope", ""), protocol.CodeNotFound, "no stored message")
		wantProblem(t, e.operate("GET", "/v1/messages/one?topic=nope", ""), protocol.CodeNotFound, "")
		wantProblem(t, e.operate("GET", "/v1/messages/one?topic=a..b", ""), protocol.CodeInvalidTopic, "")
		wantProblem(t, e.operate("GET", "/v1/messages/one?x=1", ""), protocol.CodeBadRequest, "takes topic")
		wantProblem(t, e.operate("GET", "/v1/messages/"+strings.Repeat("x", 5000), ""), protocol.CodeNotFound, "")
	})
}

func TestBriefly(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 500 * time.Millisecond: "500ms", 10 * time.Second: "10s", time.Minute: "1m", 90 * time.Second: "1m30s", 10 * time.Minute: "10m",
		time.Hour: "1h", 10 * time.Hour: "10h", time.Hour + time.Second: "1h0m1s", 90 * time.Minute: "1h30m",
	} {
		if got := briefly(d); got != want {
			t.Errorf("%v is written %q, want %q", d, got, want)
		}
		if back, err := time.ParseDuration(briefly(d)); err != nil || back != d {
			t.Errorf("%v is read as %v, %v", d, back, err)
		}
	}
}
