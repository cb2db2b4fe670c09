// Command fan measures what subscribers cost a broker and each other. The broker
// is a process of its own; its resident memory and CPU seconds are those that the
// system counts for it, its heap is what it says of itself. Clients speak the protocol over bare sockets, so that they take
// as little of the machine as they can. They do share it with the broker.
//
// The sides of a row take turns at least five times after one that warms up; the
// table has the median and the spread. By default 2,000 subscribers come back and
// the runs are short; -full has 10,000 and longer runs. Each process needs about
// as many open files as there are subscribers (ulimit -n).
//
// Linux alone, since it reads /proc.
package main
