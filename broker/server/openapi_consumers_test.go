package server

import (
	"encoding/json"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

const (
	atFetch = "/v1/consumers/c/fetch"
	atAck   = "/v1/consumers/c/ack"
	isJSON  = "Content-Type: application/json"
)

// consumerExchanges takes and settles messages, and is refused.
func consumerExchanges(a *asker) {
	e := newTestEdge(a.t, anyone())
	a.handler = e.handler
	for _, id := range []string{"1", "2", "3", "4", "5"} {
		a.want(200, "POST", ofA, "x", "Idempotency-Key: "+id, "Tidewire-Key: "+id)
	}
	a.want(404, "POST", atFetch, "")
	var f fetchedForm
	if err := json.Unmarshal(a.want(200, "POST", atFetch+"?filter=a.%3E&from=earliest&stream=main&max=4&wait=1s", ""), &f); err != nil || len(f.Messages) != 4 {
		a.t.Fatalf("%+v, %v", f, err)
	}
	at := func(i int) string { return f.Messages[i].Position }
	settlement := strings.NewReplacer("0", at(0), "1", at(1), "2", at(2), "3", at(3), "G", "0", "_", "")
	body := settlement.Replace(`{"generation":G,"ack":["0"],"nack":["1"],"extend":[{"position":"2","by":"_m"}],"reject":[{"position":"3","reason":"no"}]}`)
	body = strings.Replace(body, `"by":"m"`, `"by":"9m"`, 1)
	a.want(200, "POST", atAck, body, isJSON)
	a.want(200, "POST", atAck, body, isJSON) // some of it is refused now
	a.want(200, "POST", atFetch+"?wait=2", "")
	a.want(400, "POST", atFetch+"?max=0", "")
	a.want(409, "POST", atFetch+"?filter=b", "")
	one := `{"ack":["` + at(0) + `"]}`
	a.want(400, "POST", atAck, `{}`, isJSON)
	a.want(404, "POST", "/v1/consumers/nope/ack", one, isJSON)
	a.want(413, "POST", atAck, `{"ack":["`+strings.Repeat("x", 1<<20)+`"]}`, isJSON)
	a.want(413, "POST", atAck, `{"ack":[`+strings.Repeat(`"p1-1",`, 10_000)+`"p1-1"]}`, isJSON)

	both := [][]string{{"POST", atFetch, ""}, {"POST", atAck, one, isJSON}}
	a.each(403, both, "Origin: https://evil.example")
	a.each(421, both, "Host: evil.example")
	a.refusal = protocol.Exceeded(protocol.LimitConnections, "no room")
	a.each(503, both)
	a.refusal = protocol.Exceeded(protocol.LimitConnectionRate, "too fast")
	a.refusal.RetryAfter = time.Second
	a.each(429, both)
	a.refusal = nil
	a.handler = newTestEdge(a.t, Options{Access: guarded()}).handler
	a.each(401, both)
	few := anyone()
	few.Access.Anonymous = Anonymous{Subscribe: []string{">"}}
	a.handler = newTestEdge(a.t, few).handler
	a.want(403, "POST", atFetch+"?filter=a", "")
	broken := newTestEdge(a.t, anyone())
	broken.broker = nil
	a.handler = broken.handler
	a.each(500, both)
}

// consumerAdminExchanges asks the listener of operators about consumers.
func consumerAdminExchanges(a *asker) {
	e := newTestEdge(a.t, anyone())
	public := &asker{t: a.t, listener: publicListener, handler: e.handler}
	a.handler = e.Admin()
	const c = "/v1/consumers/c"
	settings := `{"filter":"a.>","stream":"main","from":"earliest","mode":"shared","ordered":true,"ack_wait":"1m","backoff":{"base":"1s","factor":2,"cap":"10s","jitter":true},"max_deliver":2,"max_in_flight":9,"max_in_flight_bytes":100000,"max_waiting":10}`
	a.want(200, "GET", "/v1/consumers", "")
	a.want(404, "PUT", c, `{}`, isJSON)
	a.want(201, "PUT", c, settings, isJSON)
	a.want(200, "PUT", c, `{"max_deliver":1}`, isJSON)
	a.want(409, "PUT", c, `{"filter":"b"}`, isJSON)
	for _, id := range []string{"1", "2", "3"} {
		public.want(200, "POST", ofA, "\xff"+id, "Idempotency-Key: "+id, "Tidewire-Header-X: y")
	}
	var f fetchedForm
	if err := json.Unmarshal(public.want(200, "POST", atFetch, ""), &f); err != nil || len(f.Messages) != 3 {
		a.t.Fatalf("%+v, %v", f, err)
	}
	public.want(200, "POST", atAck, `{"reject":["`+f.Messages[0].Position+`","`+f.Messages[1].Position+`"]}`, isJSON)
	for deadline := time.Now().Add(5 * time.Second); e.consumerNow("c").Dead < 2; runtime.Gosched() {
		if time.Now().After(deadline) {
			a.t.Fatal("there are no dead letters")
		}
	}
	for _, path := range []string{"/v1/consumers", c, c + "/dead", c + "/dead?limit=1", c + "/dead?before=" + f.Messages[0].Position, c + "/dead/1", "/v1/messages/1", "/v1/messages/3?topic=a.b"} {
		a.want(200, "GET", path, "")
	}
	a.want(200, "POST", c+"/dead/redrive", `{"ids":["1"],"publish":true}`, isJSON)
	dead := [][]string{{"POST", c + "/dead/redrive", `{"all":true,"publish":false}`, isJSON}, {"POST", c + "/dead/purge", `{"all":true}`, isJSON}}
	a.each(200, dead)
	a.want(404, "POST", c+"/dead/purge", `{"ids":["nope"]}`, isJSON)
	a.want(404, "POST", c+"/dead/redrive", `{"ids":["nope"]}`, isJSON)
	seek := []string{"POST", c + "/seek", `{"to":"-10m"}`, isJSON}
	changes := slices.Concat([][]string{{"POST", c + "/pause", ""}, {"POST", c + "/resume", ""}, seek}, dead)
	a.each(200, changes)
	put := []string{"PUT", c, `{"max_deliver":3}`, isJSON}
	gone := []string{"DELETE", c, ""}
	looks := [][]string{{"GET", "/v1/consumers", ""}, {"GET", c, ""}, {"GET", c + "/dead", ""}, {"GET", c + "/dead/1", ""}, {"GET", "/v1/messages/1", ""}}
	changes = append(changes, put, gone)
	a.each(403, changes, "Origin: https://evil.example")
	all := slices.Concat(looks, changes)
	a.each(421, all, "Host: evil.example")
	a.refusal = protocol.Exceeded(protocol.LimitAdminConnections, "no room")
	a.each(503, all)
	a.refusal = nil
	large := `{"x":"` + strings.Repeat("x", adminBodyBytes) + `"}`
	for _, r := range all {
		a.want(400, r[0], r[1]+"?nope", r[2], r[3:]...)
		if len(r) > 3 {
			a.want(413, r[0], r[1], large, isJSON)
		}
	}
	a.each(204, [][]string{gone})
	for _, r := range all[1:] {
		if !slices.Equal(r, put) {
			a.want(404, r[0], strings.Replace(r[1], "messages/1", "messages/nope", 1), r[2], r[3:]...)
		}
	}
	e.broker = nil
	a.each(500, all)
}
