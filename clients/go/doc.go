// Package tidewire is the Go client of Tidewire, a pub/sub broker that speaks
// WebSocket.
//
// The nouns:
//
//   - A [Client] is one session with a broker, over as many connections as it
//     takes: it connects again when one is lost, and nobody who uses it has to
//     notice. [Connect] makes one; [Client.Close] ends it.
//   - A [Message] is published to a topic by [Client.Publish], which waits for
//     the [Receipt], or by [Client.PublishAsync], which gives a [Pending].
//     Many at once: [Client.PublishBatch].
//   - [Client.History] reads what is stored on a topic, in both directions, page by
//     page.
//   - A [Subscription] yields the messages of all topics that a filter selects,
//     each once and in the order of the log. Its [Subscription.Position] is what
//     to keep in order to go on after a restart of the program.
//   - [Client.Consume] does jobs: a consumer is a named subscription of which the
//     broker keeps the progress. Each message goes to one of the programs that
//     share its name, and comes again until it is acknowledged. [Client.Consumer]
//     is the same by hand: it gives each message as a [Delivery].
//   - A [GapError] tells of messages that can no longer be had, and why.
//
// What is promised: a message is kept until the broker has answered it, and is
// repeated with the same id over lost connections, in the order of publishing;
// so it is stored exactly once. A subscription goes on from where it was; what
// it cannot get is told as a gap, never left out in silence. A consumer's message
// comes until it is settled: at least once, never not at all.
//
// Caveats:
//
//   - Nothing is kept on disk. What was published and not yet answered when the
//     program dies is lost or stored; publish it again with the same id.
//   - The position of a subscription moves after a message was handled, so a
//     program that dies gets the last message again.
//   - A consumer's message may come more than once, so make handling it twice
//     harmless. An ack is kept until the broker has it on disk, and sent again over
//     a new connection; it is lost with the program.
//   - Handlers and loop bodies of one subscription run one at a time. While one
//     is slow its subscription waits in the broker's log, not in memory; other
//     subscriptions and publishing go on.
//
// A token that expires is replaced on the running connection, if [Options].Token
// gives another one in time. A client whose token the broker does not take any
// more, and that has no other, ends; Err says so.
//
// All times are [time.Duration]; sizes are in bytes; all methods may be called
// from many goroutines unless they say otherwise. Refusals of the broker are
// [*Error] values, to be had with errors.AsType; their Code is for programs.
package tidewire
