package broker

import (
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// What a subscription gets of a chunk may be less than what the chunk has:
// expired messages, the session's own, superseded ones. What is left out still
// lies within the range that the client is told of, so there is no hole.

// nowMicros is the clock by which expiry is judged.
func nowMicros() uint64 { return uint64(time.Now().UnixMicro()) }

// expiredBy reports whether something that expires then has expired.
func expiredBy(expires, now uint64) bool { return expires != 0 && expires <= now }

// alters reports whether the subscription has to get a live chunk in a form of
// its own: because something is left out, or because its client knows less than
// where the chunk begins. All others share one form.
func (sub *part) alters(c *chunk) bool {
	if sub.told < c.After || (c.expires != 0 && expiredBy(c.expires, nowMicros())) {
		return true
	}
	if sub.every > 0 && len(c.parts) > 1 {
		return true
	}
	if sub.origin == 0 {
		return false
	}
	for _, framed := range c.parts {
		if record, _, ok := protocol.NextFramed(framed); ok && protocol.RecordFrom(record, sub.origin) {
			return true
		}
	}
	return false
}

// own returns a live chunk as the subscription is to get it.
func (sub *part) own(c *chunk, m *metrics) *protocol.Chunk {
	mine := c.Chunk
	mine.Records = c.records()
	mine.After = min(sub.told, c.After)
	sub.sift(&mine, m)
	if sub.every > 0 {
		onlyNewest(&mine)
	}
	return &mine
}

// sift leaves out what has expired and what the session published itself.
func (sub *subscription) sift(c *protocol.Chunk, m *metrics) {
	now := nowMicros()
	var kept []byte
	changed, count, at := false, 0, 0
	for record, framed := range c.Framed() {
		out := sub.leftOut(record, now)
		if out != "" {
			m.leftOut.WithLabelValues(out).Inc()
			if !changed { // what lies before stays
				changed = true
				kept = append(kept, c.Records[:at]...)
			}
		} else {
			count++
			if changed {
				kept = append(kept, framed...)
			}
		}
		at += len(framed)
	}
	if changed {
		c.Records, c.Count = kept, count
	}
}

// Why a record is left out, as the label of a metric.
const (
	outExpired   = "expired"
	outOwn       = "own"
	outEphemeral = "ephemeral" // the subscription was behind
)

// leftOut returns why a record is not for the subscription; empty if it is.
func (sub *subscription) leftOut(record []byte, now uint64) string {
	switch {
	case expiredBy(protocol.RecordExpiry(record), now):
		return outExpired
	case sub.origin != 0 && protocol.RecordFrom(record, sub.origin):
		return outOwn
	}
	return ""
}

// onlyNewest leaves out what a later record of the chunk supersedes.
func onlyNewest(c *protocol.Chunk) {
	newest := make(map[string]int) // topic -> its last place
	n := 0
	for record := range c.Framed() {
		newest[string(protocol.RecordTopic(record))] = n
		n++
	}
	if len(newest) == n {
		return
	}
	var kept []byte
	i := 0
	for record, framed := range c.Framed() {
		if newest[string(protocol.RecordTopic(record))] == i {
			kept = append(kept, framed...)
		}
		i++
	}
	c.Records, c.Count = kept, len(newest)
}
