package broker

import (
	"fmt"
	"strings"
	"time"

	"github.com/tidewire/tidewire/protocol"
)

// An Identity is who a session or a request is, and what it may do. The edge
// makes it from a token, a key or the lack of both. It is never changed.
type Identity struct {
	Subject   string            // becomes `publisher` of what it publishes; empty if anonymous
	Publish   []protocol.Filter // topics that it may publish to
	Subscribe []protocol.Filter // what it may subscribe to
	Consume   []protocol.Filter // what the consumers may select that it is a member of
	Expires   time.Time         // zero if never
	Source    string            // where requests without a subject come from; rates count by it
}

// MayPublish returns nil if the identity may publish to the topic.
func (id *Identity) MayPublish(topic string) *protocol.Error {
	for _, f := range id.Publish {
		if f.Match(topic) {
			return nil
		}
	}
	return protocol.Errorf(protocol.CodeForbidden, "%s may not publish to %q; its token allows publishing to %s", id.name(), topic, list(id.Publish))
}

// MaySubscribe returns nil if the identity may subscribe to everything that the
// filter selects.
func (id *Identity) MaySubscribe(f protocol.Filter) *protocol.Error {
	for _, allowed := range id.Subscribe {
		if allowed.Covers(f) {
			return nil
		}
	}
	return protocol.Errorf(protocol.CodeForbidden, "%s may not subscribe to %q; its token allows subscribing to %s", id.name(), f, list(id.Subscribe))
}

// MayConsume returns nil if the identity may be a member of a consumer of
// everything that the filter selects.
func (id *Identity) MayConsume(f protocol.Filter) *protocol.Error {
	for _, allowed := range id.Consume {
		if allowed.Covers(f) {
			return nil
		}
	}
	return protocol.Errorf(protocol.CodeForbidden, "%s may not consume %q; its token allows consuming %s", id.name(), f, list(id.Consume))
}

func (id *Identity) name() string {
	if id.Subject == "" {
		return "an anonymous client"
	}
	return "the subject " + id.Subject
}

// list prints the first few filters of a permission.
func list(filters []protocol.Filter) string {
	const most = 5
	if len(filters) == 0 {
		return "nothing"
	}
	texts := make([]string, 0, most+1)
	for _, f := range filters[:min(len(filters), most)] {
		texts = append(texts, f.String())
	}
	if more := len(filters) - most; more > 0 {
		texts = append(texts, fmt.Sprintf("%d more", more))
	}
	return strings.Join(texts, ", ")
}
