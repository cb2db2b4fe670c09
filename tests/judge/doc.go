// Package judge counts what a broker lost, doubled, reordered or lied about.
//
// [Start] sends load: publishers write each intent to a file before they send
// it and each answer after it came; subscribers and members of consumers write
// down every frame they get.
// [Verdict] reads nothing but those files and returns a [Report]. Between the
// two stands whatever the caller does to the broker: kill it, drain it, fill
// its disk.
//
// The judge imports nothing of this repository and uses another WebSocket
// library than the broker and its clients, so that it cannot share their
// mistakes. It speaks the JSON subprotocol and HTTP as docs/protocol.md says.
//
// What counts as a fault:
//
//   - lost: answered (or delivered to somebody), but never delivered to a
//     subscription whose range covers it and which was not told of a gap.
//   - doubled: delivered twice to one subscription, or stored at two positions.
//   - reordered: a subscription got it after a later one of the same partition,
//     or it was stored before an earlier one of the same publisher.
//   - false gaps: a gap over something that was answered or is still there.
//   - conflicts: an honest repeat answered with id_conflict, or two messages at
//     one position.
//   - wrong duplicates: a repeat that was not answered with the position of the
//     first, or a first answered as a repeat.
//   - refused: a request or a connection that the broker turned away for good.
//   - damaged: delivered with another payload than was sent.
//   - foreign: delivered, but never sent.
//   - stuck: somebody waited in vain until its patience ended.
//
// Members of consumers come and go, freeze, acknowledge, nack, extend, reject and
// forget what they get, at random ([Consumer]). Of them:
//
//   - forgotten: answered to the publisher, and in the end neither acknowledged
//     nor a dead letter.
//   - undone: delivered again, or a dead letter, after an acknowledgement was
//     confirmed; or delivered again after a confirmed reject.
//   - wrong attempts: a number that is not above those before (but for what a
//     crash made the broker forget, see [Load.Crash]), or that no delivery
//     justifies; a dead letter that had attempts left and was not rejected.
//   - crowded keys: one message of an ordering key came while another one was
//     not done, in one generation.
//   - not fenced: a member of an earlier generation still got messages, or what
//     it said counted.
//
// They count as reordered if first deliveries of a key are, as doubled if there
// are two dead letters of one message, and as damaged if a dead letter does not
// tell its reason. What lies between a member and the broker at that moment is
// allowed for: a delivery may cross the acknowledgement of an earlier one.
//
// A message whose answer never came may or may not be delivered; that is
// counted and is no fault.
package judge
