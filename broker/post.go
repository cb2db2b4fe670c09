package broker

import (
	"context"
	"time"

	"github.com/tidewire/tidewire/broker/consumer"
	tidewirev1 "github.com/tidewire/tidewire/proto/tidewire/v1"
	"github.com/tidewire/tidewire/protocol"
)

// post is a consumer as this node works for it: where members sign on and
// operators ask. A [dispatcher] is one, where this node alone decides; a [station] is
// one in a cluster, where one node decides for all.
type post interface {
	about() *subject
	// look calls f with what is known of the consumer now, which f does not change.
	look(f func(m *consumer.Machine))
	// place returns its generation, where it is, and how many offsets lie above that.
	place() (generation uint64, at protocol.Vector, lag uint64)
	// staff returns its members, and counts since the broker began.
	staff() ([]MemberInfo, dispatched)

	// join adds a member, and calls done when it is one.
	join(m *member, done func(stored))
	// goodbye notes that a member unsubscribes and will not come back to answer.
	goodbye(m *member)
	// leave takes a member out; with release, what it has in flight may go to others.
	leave(m *member, release bool)
	// take returns what a member is to work on; see [dispatcher.take].
	take(m *member, n int) (work []handed, generation uint64, again bool)
	takeGaps(m *member) []*tidewirev1.Gap
	// settle does what a frame of a member says; nil is a request that is no member's. done gets the
	// answer once everything is durable if the frame asks for that, else only if something is refused.
	settle(f *protocol.Settle, m *member, done func(*tidewirev1.Acked, stored))
	// fetch takes for a member of a moment.
	fetch(ctx context.Context, most int, wait time.Duration) (FetchResult, *protocol.Error)

	// These return when the change is durable.
	change(ctx context.Context, req *ConsumerRequest) *protocol.Error
	pause(ctx context.Context, paused bool) *protocol.Error
	seek(ctx context.Context, to consumer.Places) *protocol.Error
	undead(ctx context.Context, offsets []uint64, redriven bool) *protocol.Error
	remove(ctx context.Context) *protocol.Error

	// redriving tells that dead letters are about to be given back.
	redriving()
	// beforeTrim is called before retention takes what lies up to an offset of a partition.
	beforeTrim(ctx context.Context, pt *partition, through uint64)
}

// settingsNow returns the settings in force.
func settingsNow(p post) (s consumer.Settings) {
	p.look(func(m *consumer.Machine) { s = m.Settings() })
	return s
}

// keeper is where the consumers of a broker are kept: on this node alone, or in a cluster.
type keeper interface {
	// create makes a consumer and returns when it is durable. Of two of one name the first wins.
	create(ctx context.Context, name string, s consumer.Settings, at consumer.Places) (p post, created bool, err *protocol.Error)
	// wait returns when what was changed is durable.
	wait(ctx context.Context) *protocol.Error
	// blind returns why nobody can say now that a consumer is not there, or nil.
	blind() *protocol.Error
	// run works until ctx ends.
	run(ctx context.Context) error
}

func (c alone) wait(ctx context.Context) *protocol.Error { return c.control.wait(ctx) }

func (alone) blind() *protocol.Error { return nil } // all was read at the start

// journal is where what was decided about a consumer is written down.
type journal interface {
	// put adds deltas, in the order of the calls. done, if not nil, is called once they and all
	// before them hold, or never will. It must not block. The mutex of the dispatcher is held.
	put(deltas []byte, done func(stored))
}

// await returns when the answer is there.
func await(ctx context.Context, answer <-chan stored) *protocol.Error {
	select {
	case s := <-answer:
		return s.err
	case <-ctx.Done():
		return protocol.Errorf(protocol.CodeUnknown, "the change was not stored in time: ask again whether it holds")
	}
}
