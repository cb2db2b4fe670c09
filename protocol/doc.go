// Package protocol is the vocabulary of Tidewire: what the broker, the clients
// and the tools mean by a topic, a filter, a message and a position, and how
// these look on the wire.
//
// The nouns:
//
//   - A [Message] is published to a topic. Stored messages are kept as records:
//     the protobuf encoding that every subscriber gets, see [AppendRecord].
//   - A [Filter] says which topics a subscription wants.
//   - A [Position] is a place in a log, as a short opaque string; a [Start] says
//     where a subscription begins.
//   - An [Error] carries a [Code] for programs and a sentence for people; one
//     table gives each code its HTTP status, its close code and whether to try
//     again.
//   - A [Codec] turns frames into bytes and back: [Proto] for programs, [JSON]
//     for people and scripts.
//
// The frames themselves are described where they are declared, in
// proto/tidewire/v1/tidewire.proto, and in docs/protocol.md for authors of
// clients. This package is the only one, besides the generated code, that knows
// protobuf. It holds no state, does no input or output, and everything in it may
// be used from many goroutines.
package protocol
