// Package server is the edge of the broker: HTTP and WebSocket. It decides who
// a request is before anything else, reads frames, hands them to a
// [broker.Session], and writes what the session has.
//
// A request goes through these doors, in this order: Host, Origin, who it is,
// and then its handler. A WebSocket that is refused at one of the first three is
// told so in a way that its client can read: an HTTP status for programs, a
// close code for browsers.
//
// gws does the handshake, the reading and the framing rules of WebSocket. It
// never writes: each connection has a writer of its own, a goroutine that exists
// only while there is something to write.
package server
