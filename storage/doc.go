// Package storage keeps Tidewire's logs on disk: it gives publishes their order
// and their durability, remembers which message ids it has seen, and reads the
// past back.
//
// The nouns:
//
//   - A [Store] is a data directory. One process has it at a time.
//   - A [Log] is one stream: offsets from 1 upwards, one total order. Publishes
//     go in with [Log.Append]; [Log.Run] makes them durable in batches and hands
//     each [Commit] to the broker in order; [Log.Read] gives them back.
//   - A [Replica] is a copy of a partition whose order was decided elsewhere:
//     offsets and times come with what is applied. It has the files of a Log, and
//     can be read before it is synced.
//   - A [MemoryLog] is a stream without a disk, for messages that need not outlive
//     the process. It keeps the same contract and passes the same suite.
//   - A block is what one commit stored: the records of a batch, a checksum for
//     each, a digest row for each message id, and a replica's note.
//   - A segment is a file of blocks, a bbolt database. One is active and grows;
//     the others are sealed: they never change and carry an index from topics to
//     offsets. Retention removes whole segments, oldest first.
//   - meta.db is a small bbolt database beside them: the chain of terms, what is
//     known of each sealed segment, the last offset of each topic, and digest
//     rows that have outlived their segment.
//
// Caveats:
//
//   - Offsets are not dense: a repeat of a message id takes one too, so that the
//     dedupe window can be counted in records on every node alike.
//   - With retention by count a chunk lacks what is hidden, and says which that is:
//     whoever passes a chunk on has to tell. The records stay until their segment
//     goes.
//   - A term is one life of the log. A new one begins at every boot; offsets are
//     never used twice within one. See [Log.PositionOf]. A replica has the term of
//     its stream, for ever.
//   - What a replica has not synced is in memory alone. Whoever feeds it can give
//     it again.
//   - A sync that failed cannot be repeated (the kernel has forgotten which
//     pages were dirty): Run returns, and the process must end.
//   - bbolt panics on files that are torn, some of it in goroutines of its own.
//     Files are checked page by page before they are opened for writing, without
//     bbolt (package boltfile), and every read runs under a guard that turns panics
//     and faults into errors.
package storage
