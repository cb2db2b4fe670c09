// Package connect carries messages between Tidewire and topics of Kafka that are
// not its own.
//
// The nouns:
//
//   - An [In] reads a topic of Kafka and publishes what it finds there.
//   - An [Out] reads a stream and writes what it finds there to a topic of Kafka.
//   - A [Template] makes a text of a record or message: its topic, its key.
//   - [cluster.Connectors] is how far each connector has come. It is a part of
//     the cluster's state, so any node can go on where another one stopped.
//
// A connector runs on one node at a time, that which holds its lease. At a
// take-over the last moments are carried again. What comes in has an id that
// follows from its place in Kafka, so the repeats are dropped. What goes out is
// repeated, and the header tidewire-id tells.
//
// Nothing is skipped because something is away for the moment: a connector waits
// and tries again. What can never be carried is a bad record: it is counted by
// its [Reason], copied to the topic for bad records, and passed over.
package connect
