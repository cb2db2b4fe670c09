//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/consumer"
	"github.com/tidewire/tidewire/config"
	"github.com/tidewire/tidewire/storage"
)

// consumer returns what the admin listener says of a consumer.
func (h *hangup) consumer(name string) (c consumerLine) {
	h.t.Helper()
	if status := h.askConsumer(name, &c); status != http.StatusOK {
		h.t.Errorf("the consumer %s: status %d", name, status)
	}
	return c
}

func (h *hangup) askConsumer(name string, into *consumerLine) (status int) {
	h.t.Helper()
	response, err := http.Get(h.admin + "/v1/consumers/" + name)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		h.t.Fatal(err)
	}
	return response.StatusCode
}

// line returns the next line of the log.
func (h *hangup) line() string {
	h.t.Helper()
	line, err := h.errs.ReadString('\n')
	if err != nil {
		h.t.Fatal(err)
	}
	return line
}

func (h *hangup) says(said string, parts ...string) {
	h.t.Helper()
	for _, part := range parts {
		if !strings.Contains(said, part) {
			h.t.Errorf("it does not say %s: %s", part, said)
		}
	}
}

// refuses tries to start the broker again, which must end with one sentence.
func (h *hangup) refuses(text, want string) {
	h.t.Helper()
	h.write(text)
	status, out, errs := call("serve", "--config", h.file, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	if status != 1 || out != "" || errs != "tidewire: "+want+"\n" {
		h.t.Errorf("status %d, output %q, and\n got: %s\nwant: %s", status, out, errs, want)
	}
}

// TestConfiguredConsumers: they are there when the broker serves, have the
// settings of the file at each start and reload, and are what they were if one of
// them is refused.
func TestConfiguredConsumers(t *testing.T) {
	const mail, bills = "consumers:\n  - {name: mail, filter: mail.>}\n", "  - {name: bills, filter: bills, max_deliver: 3, backoff: {base: 2s, factor: 1.5}, exclusive: true}\n"
	h := startHangup(t, mail+bills)
	h.says(h.line()+h.line(), `msg="a consumer was created as configured" consumer=mail`, "consumer=bills")
	created := *h.consumer("mail").Created
	if c := h.consumer("bills"); c.MaxDeliver != 3 || c.Backoff.Base != "2s" || c.Backoff.Factor != 1.5 || c.Mode != "exclusive" || c.AckWait != "30s" || c.Stream != "main" {
		t.Errorf("bills: %+v", c)
	}
	h.end()

	const fixed = "which cannot change; write the same, or choose another name"
	h.refuses(mail+"  - {name: bills, filter: bills.>}\n", `consumers[1]: the consumer bills is there already, with filter: "bills", stream: main and exclusive: true, `+fixed)
	h.refuses("consumers:\n  - {name: new, filter: new}\n  - {name: mail, filter: mail.>, stream: dead}\n", `consumers[1]: the consumer mail is there already, with filter: "mail.>", stream: main and exclusive: false, `+fixed)
	h.refuses("consumers: [{name: mail, filter: mail.>, exclusive: true}]\n", `consumers[0]: the consumer mail is there already, with filter: "mail.>", stream: main and exclusive: false, `+fixed)

	h.start("consumers:\n  - {name: mail, filter: mail.>, ack_wait: 5s, ordered: false}\n")
	h.says(h.line(), `msg="a consumer's settings were changed as configured" consumer=mail`)
	if c := h.consumer("mail"); c.AckWait != "5s" || c.Ordered || !c.Created.Equal(created) {
		t.Errorf("mail: %+v", c)
	}
	if c := h.consumer("bills"); c.MaxDeliver != 3 { // not configured any more, and still there
		t.Errorf("bills: %+v", c)
	}
	var none consumerLine
	if status := h.askConsumer("new", &none); status != http.StatusNotFound {
		t.Errorf("a start that was refused has created a consumer: status %d", status)
	}

	said := h.reload("consumers: [{name: third, filter: x, from: new}, {name: mail, filter: mail}]\n", 1)
	h.says(said, "was not reloaded, everything stays as it is", `consumers[1]: the consumer mail is there already`)
	if status := h.askConsumer("third", &none); status != http.StatusNotFound {
		t.Errorf("a reload that was refused has created a consumer: status %d", status)
	}
	said = h.reload(mail+"  - {name: third, filter: x, from: new}\n", 3)
	h.says(said, "settings were changed as configured\" consumer=mail", "created as configured\" consumer=third", "changed=consumers")
	if c := h.consumer("mail"); c.AckWait != "30s" || !c.Ordered {
		t.Errorf("mail has not got its defaults back: %+v", c)
	}
	h.says(h.reload(mail+"  - {name: third, filter: x, from: -10m}\n", 1), "was reloaded", "changed=consumers")
	h.consumer("third")
	h.end()
}

// A consumer whose stream has gone out of the configuration rests; it is not made
// anew under its name, elsewhere.
func TestConfiguredConsumerOfAnotherStream(t *testing.T) {
	const consumers = "consumers: [{name: mail, filter: mail.>}]\n"
	h := startHangup(t, "streams: {others: [{name: letters, filters: [mail.>]}]}\n"+consumers)
	h.says(h.line(), "consumer=mail")
	if c := h.consumer("mail"); c.Stream != "letters" {
		t.Errorf("it reads %s", c.Stream)
	}
	h.end()
	h.write(consumers)
	status, out, errs := call("serve", "--config", h.file, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	const want = "tidewire: consumers[0] (mail): the consumer mail is there already and reads the stream letters, which is not configured any more: configure that stream again, or take another name\n"
	if status != 1 || out != "" || !strings.HasSuffix(errs, want) {
		t.Errorf("status %d, output %q, %s", status, out, errs)
	}
}

// What is asked of the broker is what is configured, and nothing is left out.
func TestConfiguredIsAskedFor(t *testing.T) {
	list := configured{{
		Name: "a", Filter: "f.>", Stream: "main", From: "new",
		AckWait:    config.Duration(1500 * time.Millisecond),
		Backoff:    config.Backoff{Base: config.Duration(250 * time.Millisecond), Factor: 3.5, Cap: config.Duration(30 * time.Second)},
		MaxDeliver: 7, MaxInFlight: 8, MaxInFlightBytes: 9000, MaxWaiting: 10, Exclusive: true,
	}}
	want := consumer.Settings{
		Filter: "f.>", Stream: "main", AckWait: 1500 * time.Millisecond,
		Backoff:    consumer.Backoff{Base: 250 * time.Millisecond, Factor: 3.5, Cap: 30 * time.Second},
		MaxDeliver: 7, MaxInFlight: 8, MaxInFlightBytes: 9000, MaxWaiting: 10, Exclusive: true,
	}
	b := broker.New(storage.NewMemoryLog("main", storage.MemoryOptions{}), broker.Options{})
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = b.Run(ctx) })
	defer running.Wait()
	defer stop()
	for range 2 { // the second time it is there
		if err := errors.Join(list.check(b), list.put(ctx, b, slog.New(slog.DiscardHandler))); err != nil {
			t.Fatal(err)
		}
		if is, err := b.Consumer("a"); err != nil || is.Settings != want {
			t.Errorf("%v, %+v, want %+v", err, is.Settings, want)
		}
	}
}

// A start that is interrupted, or whose log fails, does not wait for consumers.
func TestConfiguredIsGivenUp(t *testing.T) {
	b := broker.New(storage.NewMemoryLog("main", storage.MemoryOptions{}), broker.Options{}) // nobody runs it
	ctx, stop := context.WithCancel(t.Context())
	stop()
	list := configured(loaded(t, "consumers: [{name: a, filter: a}]\n").Consumers)
	if err := list.put(ctx, b, slog.New(slog.DiscardHandler)); err == nil || !strings.HasPrefix(err.Error(), "consumers[0] (a): ") {
		t.Errorf("it says %v", err)
	}
}
