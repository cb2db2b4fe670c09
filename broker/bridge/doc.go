// Package bridge keeps a stream in Kafka: the stream's log is a topic of Kafka,
// and any client of Kafka can publish to it and read it.
//
// The nouns:
//
//   - A [Definition] says what a stream is, for all nodes alike.
//   - A [Stream] is such a stream on this node: one [Partition] for each
//     partition of the topic, each of them a log as the broker needs it.
//   - An [Origin] is what a broker writes beside a message, sealed.
//   - A [Reason] says why a record is no message.
//
// A published message goes to Kafka and is answered when it comes back: every
// node reads all partitions, judges each record by rules that know no clock and
// no chance (rules.go), and keeps what is a message in a storage.Replica. So
// every node gives every message the same offset: Kafka's, plus one.
package bridge
