// Command fan measures what subscribers cost a broker and each other. The broker
// is a process of its own; its resident memory and CPU seconds are those that the
// system counts for it, its heap is what it says of itself. Clients speak the
// protocol over bare sockets, so that they take as little of the machine as they
// can. They do share it with the broker.
//
// The parts path and crowds are of several brokers on one real Kafka, which is
// started for them: the way of a message from broker to broker beside a bare loop
// with the library that speaks with Kafka, and the work for a delivery when each
// of three nodes has its subscribers. They need Java and Maven, and are left out
// where these are missing. The rates and times of path share the machine with
// Kafka; with fewer cores than there are programs they say more of that.
//
// The sides of a row take turns at least five times after one that warms up; the
// table has the median and the spread. By default 2,000 subscribers come back and
// the runs are short; -full has 10,000 and longer runs. Each process needs about
// as many open files as there are subscribers (ulimit -n).
//
// Linux alone, since it reads /proc.
package main
