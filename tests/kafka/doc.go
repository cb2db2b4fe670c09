// Package kafka runs real Apache Kafka for tests, without containers: one node or
// several, as plain Java processes on ports of this machine.
//
// A Distribution is the program itself. The first to ask for it fetches it from
// Maven Central, 45 MB, into a cache outside the tree; all others find it there.
// A Cluster is a set of running nodes with a directory of their own; it is ready
// once Start returns, and ends with the process that started it, however that
// ends. A Node can be killed, stopped, woken and started again, on the same ports
// and the same data.
//
// Tests take a cluster from package kafkatest, which skips where there is no Java.
// People start one by hand with go run ./tests/kafka/cmd/kafka.
//
// Apache Kafka is a trademark of the Apache Software Foundation.
package kafka
