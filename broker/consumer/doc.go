// Package consumer holds what a consumer has to remember: how far it has read,
// which messages are on their way, which ones wait for another attempt, and
// which ones nobody could handle.
//
// The nouns:
//
//   - A [Machine] is the state of one consumer, and every decision about it. It
//     is pure: no clock, no chance, no I/O, no goroutine, no lock. The caller
//     says what time it is, hands in what draws lots, and makes sure that one
//     call is there at a time. Times are Unix microseconds.
//   - An [Entry] is a message that the consumer has taken and not finished.
//     Everything at or below a cursor that is not an entry is done, so that a
//     million acks above one old message cost nothing.
//   - A delta is one change in absolute terms: "this entry is now so", "this one
//     is gone", "the cursor is now there". Each decision leaves its deltas to
//     [Machine.Deltas]; a log of them, replayed by [Registry.Apply] up to any
//     record, gives a state that was. Replay decides nothing.
//   - The [Registry] is all consumers as such a log tells them, and the writer
//     of the checkpoints that let the log begin later.
//
// The order in the log is the order of the calls: what [Registry.Deltas],
// [Machine.Deltas] and [Registry.Page] return is written in the order in which
// it was taken, the registry's own before that of its machines. Deltas build on
// those before them: when a record of a consumer could not be written, the next
// one is a page.
package consumer
