// Package hostfeed publishes how this machine is doing to the topic demo.host: CPU,
// memory and network, as numbered messages without a hole, over the public API
// and through deaths of the broker. The demo shows them, and counts them.
//
// It must not wear out the disk of a developer who leaves a broker running. So it
// is fast only while somebody listens, for an hour after the last newcomer: about
// 20 MB an hour. Otherwise it says one thing a second, about 45 MB a day, and the
// retention of the stream keeps a week of that. See docs/adr/0014.
package hostfeed
