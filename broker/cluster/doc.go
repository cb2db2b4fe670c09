// Package cluster is how the nodes of a cluster agree: who is there, who does what
// only one may do, and which streams there are.
//
// The nouns:
//
//   - The [Log] is the control log: one order of values that every node reads and
//     any node appends to. In a cluster it is a Kafka topic, in tests it is
//     in memory (package clustertest). The index of a value is its place, from 1 on.
//   - A boot is one membership of a node, a random number. A node that was thought
//     dead comes back as another boot, and nothing that the old one still writes counts.
//   - A [State] is what the log up to an index makes of all that. It is pure: no
//     clock, no chance, no I/O, and two of the same index are the same bytes.
//   - A [Part] is further state that follows the same log, in the same order and in the
//     same checkpoints: the consumers of the broker.
//   - A lease is the right to do something that only one node may do. Its generation is the
//     index of its claim: whoever acts by a lease says the generation, and those who
//     apply what it did refuse an old one.
//   - A [Node] is this node: it reads the log, writes to it, and keeps the
//     State. See there for what it promises.
//
// # What holds
//
// A record is judged where it stands in the log. An envelope counts if its boot is there
// and its sequence is above those before it: repeats of Kafka's producers, and what was
// overtaken, do no harm. A hello makes a boot be there unless it ever was gone. A claim holds if
// the lease is free. An expiry holds if three heartbeats of the writer stand behind the last
// one of the other: when Kafka stalls, it stalls the writer's too, so a failover
// expires nobody. With a boot its leases go.
//
// # Who may act
//
// A node acts by a lease only after it has applied its own claim, and only while a
// heartbeat that it wrote within the last 2 seconds has come back ([Node.Live]). Others expire it
// after more than 2 seconds by their clocks, so it has stopped before the next owner starts, as long as clocks run
// about equally fast. Where even that fails, the generation tells.
package cluster
