// Package broker is the heart of Tidewire: it takes messages in, matches them
// with subscriptions and keeps each subscription's place in the log.
//
// The nouns:
//
//   - A [Stream] is a named log and the topics that it holds; the [Broker] owns
//     the streams and the live groups of each. A message has one way in:
//     [Broker.Publish] or [Session.Publish] check it, [Log] gives it order and
//     durability, and apply, which runs on one goroutine in log order, answers
//     publishers and feeds the live groups.
//   - A [Session] is one connected client: its subscriptions and what waits to
//     be written to it, as encoded frames. The edge asks for them with
//     [Session.Take]; the broker never writes to a socket and never waits for
//     one.
//   - A subscription is a cursor on the log. It reads the log until its cursor
//     is where apply is, then joins the live group of its filter and is fed
//     from there; when its session's queue is full it goes back to reading the
//     log. Start, replay, resume and slow are this one mechanism.
//
// A stream may have several partitions, each with a log, an apply and live groups
// of its own; a subscription to a pattern has a cursor in each, a part.
//
// Locks are taken in the order partition.mu, Session.mu. Neither is held while the
// log is read or written, or while the edge is called.
package broker
