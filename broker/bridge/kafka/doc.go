// Package kafka speaks with Apache Kafka, for the bridge and for nobody else.
// It is the only package that knows the library underneath.
//
// The nouns:
//
//   - A [Client] holds the connections to one cluster, with TLS and SASL, and
//     what is known of its topics. There is one in a process.
//   - A [Producer] appends records to partitions. What waits while a request to
//     a leader is under way is the next request; the order within a partition is
//     always kept; each write ends with its offset, or with an error that says
//     whether it can have been stored.
//   - A [Fetcher] reads partitions from an offset on, in order, and follows
//     their leaders. It hands over batches as they stand in the log, those
//     included that hold nothing for a reader, so that every offset is
//     accounted for.
//   - Topics are created and looked at with methods of the client, which always
//     ask Kafka and never answer from memory.
//
// An [Error] has a [Kind] for programs and a sentence for people. Nothing waits
// for ever: each request has a deadline, and what is tried again is tried with
// growing, random pauses of at most two seconds.
//
// # What of the library is used
//
// github.com/segmentio/kafka-go keeps the connections: it dials, does TLS and
// SASL, and learns where the brokers are. The few requests that matter are
// encoded and decoded here, through its RawExchanger, because its own ones do
// not tell what this broker needs: metadata from the network instead of a
// cache, with topic ids and leader epochs; fetches that refuse a topic that was
// recreated; the bounds, epoch and attributes of each batch; a produce request
// that is routed by what is known now, and of which can be said whether a byte
// of it was ever sent. The versions that are spoken need Kafka 3.1 or newer.
package kafka
