// Command consume measures consumers: our broker beside NATS with JetStream, each
// a process of its own, with the same messages on the same disk. NATS runs with
// each of the two configurations in the directory nats: as it comes, where it syncs
// every two minutes, and with `sync_interval: always`.
//
// Clients run in a third process: 4 connections, one for each member of one
// consumer. NATS's use its own Go client, in the way that was fastest: pull with
// batches of 1, 16 and 256, or push, with its default of 1,000 pending messages or
// with more. Ours speak the protocol over bare sockets, decode each message as the
// Go client does, and acknowledge what one frame brought with one frame that names
// each message; a row shows what a frame for each acknowledgement costs. Both are
// measured from the first request until the server has taken the last
// acknowledgement; ours includes the creation of the consumer.
//
// What is confirmed is not the same: our broker answers when the acknowledgement is
// on disk, NATS when it has it in memory, in both configurations.
//
// The sides of a row take turns after one that warms up; the table has the median
// and the spread. The default takes about two minutes; -full has more messages, and
// more turns. Everything ends by itself, also with this program.
//
// Linux alone, since it reads /proc.
package main
