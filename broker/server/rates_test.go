package server_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidewire/tidewire/broker"
	"github.com/tidewire/tidewire/broker/brokertest"
	"github.com/tidewire/tidewire/broker/server"
	"github.com/tidewire/tidewire/protocol"
)

// results collects n answers to published messages, in the order of their refs.
func (c *client) results(n int) []protocol.PublishResult {
	c.t.Helper()
	var all []protocol.PublishResult
	for len(all) < n {
		if p, ok := (<-c.frames).(*protocol.Published); ok {
			all = append(all, p.Results...)
		}
	}
	return all
}

func codesOf(results []protocol.PublishResult) []protocol.Code {
	codes := make([]protocol.Code, len(results))
	for i, r := range results {
		if r.Err != nil {
			codes[i] = r.Err.Code
		}
	}
	return codes
}

// TestPublishRate: a frame over the rate is refused whole, nothing passes it
// before it comes again, and the refusal says when that is worth while. A frame
// larger than a second's worth passes, and is paid for afterwards. Another
// connection does not notice.
func TestPublishRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEdgeOn(t, brokertest.NewLog(), server.Options{}, broker.Options{PublishRate: 2})
		c, other := e.connect(protocol.Proto{}), e.connect(protocol.Proto{})
		publish := func(resume bool, messages ...string) []protocol.PublishResult {
			p := &protocol.Publish{Ref: 1, Resume: resume}
			for _, text := range messages {
				p.Messages = append(p.Messages, msg("a", text))
			}
			c.send(p)
			return c.results(len(messages))
		}
		want := func(what string, got []protocol.PublishResult, code protocol.Code) {
			t.Helper()
			for _, c := range codesOf(got) {
				if c != code {
					t.Errorf("%s: %q, want %q", what, c, code)
				}
			}
		}
		want("as many as may", publish(false, "1", "2"), "")
		over := publish(false, "3", "4")
		want("more", over, protocol.CodeRateLimited)
		want("behind them", publish(false, "5"), protocol.CodeOutOfOrder)
		other.send(&protocol.Publish{Ref: 1, Messages: []protocol.Message{msg("b", "x")}})
		want("another connection", other.results(1), "")

		wait := over[0].Err.RetryAfter
		if wait < 900*time.Millisecond || wait > time.Second {
			t.Errorf("it says to wait for %v, want 1s", wait)
		}
		time.Sleep(wait + time.Millisecond)
		want("again", publish(true, "3", "4"), "")
		time.Sleep(time.Second)
		want("more than a second's worth", publish(false, "5", "6", "7", "8", "9", "10"), "")
		time.Sleep(2 * time.Second)
		over = publish(false, "11")
		want("before they are paid for", over, protocol.CodeRateLimited)
		time.Sleep(over[0].Err.RetryAfter + time.Millisecond)
		want("after", publish(true, "11"), "")
	})
}
