package protocol

import (
	"fmt"
	"slices"
	"time"
)

// A Limit names what bounds something that a client can make large, many or
// slow. The name is the label of the metric tidewire_limits_total.
type Limit string

// The limits. [Limits] says what each of them is.
const (
	LimitPayload       Limit = "payload_bytes"
	LimitFrame         Limit = "frame_bytes"
	LimitMessages      Limit = "publish_messages"
	LimitHistory       Limit = "history_messages"
	LimitHistoryHeld   Limit = "history_held_bytes"
	LimitInFlight      Limit = "in_flight"
	LimitSubscriptions Limit = "subscriptions"
	LimitConnections   Limit = "connections"
	LimitAddress       Limit = "connections_per_address"
	LimitOutboundSoft  Limit = "outbound_soft_bytes"
	LimitOutboundHard  Limit = "outbound_hard_bytes"
	LimitQueue         Limit = "queue_bytes"
	LimitReceiving     Limit = "receiving_bytes"
	LimitAllSubs       Limit = "subscriptions_total"
	LimitBatchBytes    Limit = "batch_bytes"
	LimitBatchMessages Limit = "batch_messages"
	LimitBatches       Limit = "batches"

	LimitConnectionRate   Limit = "connection_rate"
	LimitPublishRate      Limit = "publish_rate"
	LimitInboundRate      Limit = "inbound_rate"
	LimitReplayRate       Limit = "replay_rate"
	LimitAdminConnections Limit = "admin_connections"

	LimitPing    Limit = "ping_timeout"
	LimitConnect Limit = "connect_timeout"
	LimitWrite   Limit = "write_timeout"
	LimitBody    Limit = "body_timeout"
	LimitPublish Limit = "publish_timeout"

	LimitTopic        Limit = "topic_bytes"
	LimitPattern      Limit = "pattern_tokens"
	LimitStars        Limit = "pattern_stars"
	LimitStart        Limit = "start_last"
	LimitID           Limit = "id_bytes"
	LimitKey          Limit = "key_bytes"
	LimitContentType  Limit = "content_type_bytes"
	LimitHeaders      Limit = "headers"
	LimitHeaderName   Limit = "header_name_bytes"
	LimitHeaderValue  Limit = "header_value_bytes"
	LimitHeaderTotal  Limit = "header_total_bytes"
	LimitCapabilities Limit = "capabilities"
	LimitSettle       Limit = "settle_ranges"
	LimitReason       Limit = "reason_bytes"
	LimitExtend       Limit = "extend_time"
	LimitConsumer     Limit = "consumer_name_bytes"
	LimitFetch        Limit = "fetch_messages"
	LimitFetchWait    Limit = "fetch_wait"
	LimitToken        Limit = "token_bytes"
	LimitRequestHead  Limit = "request_head_bytes"
)

// Unit is what a limit counts.
type Unit string

// The units.
const (
	UnitCount          Unit = ""
	UnitBytes          Unit = "bytes"
	UnitTime           Unit = "time" // nanoseconds
	UnitPerSecond      Unit = "a second"
	UnitBytesPerSecond Unit = "bytes a second"
)

// LimitInfo is what is fixed about a limit.
type LimitInfo struct {
	Limit    Limit
	Key      string // its setting in the configuration; empty if it cannot be changed
	Default  int64  // in Unit; 0 means that it is off
	Unit     Unit
	Protects string // what is bounded, for whom
	Code     Code   // of the refusal; empty if Effect says what happens
	Effect   string // what happens where no code is sent, or besides
}

// Limits lists every limit, in the order of docs/limits.md. It is the one place
// where their defaults stand.
func Limits() []LimitInfo { return limitTable }

var limitTable = []LimitInfo{
	{LimitPayload, "limits.payload_bytes", 256 << 10, UnitBytes, "The payload of a message.", CodePayloadTooLarge, ""},
	{LimitFrame, "limits.frame_bytes", 1 << 20, UnitBytes, "A WebSocket message.", "", "The connection is closed with 1009."},
	{LimitMessages, "limits.publish_messages", 1000, UnitCount, "Messages in one frame or request.", CodeTooManyMessages, ""},
	{LimitBatchBytes, "", 16 << 20, UnitBytes, "A batch over HTTP.", CodePayloadTooLarge, "What came before is stored."},
	{LimitBatchMessages, "", 10_000, UnitCount, "Messages of a batch over HTTP.", CodeTooManyMessages, "What came before is stored."},
	{LimitBatches, "", 32, UnitCount, "Batches over HTTP that are being taken at once, in the whole broker. Others wait 5 s for their turn.", CodeOverloaded, ""},
	{LimitHistory, "limits.history_messages", 1000, UnitCount, "Messages in one answer of history.", CodeBadRequest, ""},
	{LimitHistoryHeld, "", 64 << 20, UnitBytes, "Answers of history and fetches that wait to be read by their clients, in the whole broker.", CodeOverloaded, ""},
	{LimitInFlight, "limits.in_flight", 1024, UnitCount, "Unanswered publishes of a connection.", "", "The connection is not read until answers have gone out."},
	{LimitSubscriptions, "limits.subscriptions", 1000, UnitCount, "Subscriptions of a connection.", CodeTooManySubscriptions, ""},
	{LimitConnections, "limits.connections", 10_000, UnitCount, "Connections of the public listener, of every kind, idle ones too. At the start it is lowered to what the open files of the process allow.", CodeTooManyConns, "32 connections at once are told so, within 5 s; those beyond are closed."},
	{LimitAddress, "limits.connections_per_address", 0, UnitCount, "Connections from one IPv4 address, or from 64 bits of an IPv6 address. Behind a proxy all come from one.", CodeTooManyConns, "As above."},
	{LimitAdminConnections, "", 64, UnitCount, "Connections of the admin listener.", CodeTooManyConns, "As above."},
	{LimitAllSubs, "limits.subscriptions_total", 1_000_000, UnitCount, "Subscriptions of all connections.", CodeSubscriptionsFull, ""},
	{LimitReceiving, "limits.receiving_bytes", 64 << 20, UnitBytes, "Frames and bodies of requests that are arriving, in the whole broker, as far as they have arrived.", CodeSlowConnection, "It is closed who has been sending one for longest, if for more than a second; else the next one waits."},
	{LimitOutboundSoft, "limits.outbound_soft_bytes", 1 << 20, UnitBytes, "What waits for a connection.", "", "Its subscriptions read the log at the client's own pace; nothing is lost."},
	{LimitOutboundHard, "limits.outbound_hard_bytes", 4 << 20, UnitBytes, "What waits for a connection, answers included.", CodeSlowConnection, ""},
	{LimitQueue, "", 32 << 20, UnitBytes, "Messages that wait to be stored, in the whole broker. A publisher waits 5 s for room.", CodeOverloaded, ""},

	{LimitConnectionRate, "limits.rates.connections", 0, UnitPerSecond, "New connections of the public listener.", CodeRateLimited, "As with `connections`."},

	{LimitPublishRate, "limits.rates.publish", 0, UnitPerSecond, "Messages that one subject publishes, over all of its connections and requests; without a subject, one connection, or the requests from one address. As many may come at once.", CodeRateLimited, ""},
	{LimitInboundRate, "limits.rates.inbound_bytes", 0, UnitBytesPerSecond, "What one connection sends.", "", "It is read no faster."},
	{LimitReplayRate, "limits.rates.replay_bytes", 0, UnitBytesPerSecond, "What the subscriptions of one connection read from the log: replay, resume, and what a slow client missed. Live messages do not count.", "", "The log is read no faster. Who gets more new messages than that never catches up."},

	{LimitPing, "ping.timeout", int64(10 * time.Second), UnitTime, "The answer of a client to a ping.", CodePingTimeout, ""},
	{LimitConnect, "timeouts.connect", int64(10 * time.Second), UnitTime, "The head of a request, and Connect after the handshake.", CodeConnectTimeout, "A request whose head does not come is closed without an answer."},
	{LimitWrite, "timeouts.write", int64(30 * time.Second), UnitTime, "One write of at most 256 KiB to a client.", "", "The connection is cut: a client that takes nothing cannot be told."},
	{LimitBody, "timeouts.body", int64(30 * time.Second), UnitTime, "The body of a request.", CodeSlowConnection, ""},
	{LimitPublish, "", int64(30 * time.Second), UnitTime, "The answer to a message that was published over HTTP.", CodeUnknown, ""},

	{LimitTopic, "", MaxTopicBytes, UnitBytes, "A topic; a filter too, with the code `invalid_filter`.", CodeInvalidTopic, ""},
	{LimitPattern, "", MaxPatternTokens, UnitCount, "Tokens of a pattern.", CodeInvalidFilter, ""},
	{LimitStars, "", MaxPatternStars, UnitCount, "`*` in a pattern.", CodeInvalidFilter, ""},
	{LimitStart, "", MaxStartLast, UnitCount, "N of the start `last:N`.", CodeInvalidStart, ""},
	{LimitID, "", MaxIDBytes, UnitBytes, "The id of a message.", CodeInvalidID, ""},
	{LimitKey, "", MaxKeyBytes, UnitBytes, "The ordering key of a message.", CodeInvalidKey, ""},
	{LimitContentType, "", MaxContentTypeBytes, UnitBytes, "The content type of a message.", CodeInvalidMessage, ""},
	{LimitHeaders, "", MaxHeaders, UnitCount, "Headers of a message.", CodeInvalidHeader, ""},
	{LimitHeaderName, "", MaxHeaderNameBytes, UnitBytes, "The name of a header.", CodeInvalidHeader, ""},
	{LimitHeaderValue, "", MaxHeaderValueBytes, UnitBytes, "The value of a header.", CodeInvalidHeader, ""},
	{LimitHeaderTotal, "", MaxHeaderTotalBytes, UnitBytes, "All headers of a message.", CodeInvalidHeader, ""},
	{LimitSettle, "", MaxSettleRanges, UnitCount, "Ranges of messages in one frame or request that settles what a consumer delivered.", CodeTooManyMessages, ""},
	{LimitFetch, "", 1000, UnitCount, "Messages in one answer of a fetch.", CodeBadRequest, ""},
	{LimitFetchWait, "", int64(30 * time.Second), UnitTime, "How long a fetch waits for a message.", CodeBadRequest, ""},
	{LimitExtend, "", int64(MaxExtend), UnitTime, "What a member may extend its time for a message by, at once.", CodeBadRequest, ""},
	{LimitReason, "", MaxReasonBytes, UnitBytes, "The reason of a reject.", CodeBadRequest, ""},
	{LimitConsumer, "", MaxConsumerBytes, UnitBytes, "The name of a consumer.", CodeBadRequest, ""},
	{LimitCapabilities, "", maxCapabilities, UnitCount, "Capabilities in Connect.", CodeBadFrame, ""},
	{LimitToken, "", 8 << 10, UnitBytes, "A token.", CodeUnauthorized, ""},
	{LimitRequestHead, "", 32 << 10, UnitBytes, "The head of a request.", "", "It is answered with the HTTP status 431, and the connection is closed."},
}

// Info returns what is fixed about the limit. The limit must be in the table.
func (l Limit) Info() LimitInfo {
	i := slices.IndexFunc(limitTable, func(info LimitInfo) bool { return info.Limit == l })
	if i < 0 {
		panic("protocol: the limit " + string(l) + " is not in the table")
	}
	return limitTable[i]
}

// Default returns the default of a limit that counts something.
func (l Limit) Default() int { return int(l.Info().Default) }

// DefaultTime returns the default of a limit that is a time.
func (l Limit) DefaultTime() time.Duration { return time.Duration(l.Info().Default) }

// SetDefault gives a setting that is 0 the default of its limit.
func (l Limit) SetDefault(v *int) {
	if *v == 0 {
		*v = l.Default()
	}
}

// Exceeded makes the refusal of whoever met a limit: its code stands in the
// table.
func Exceeded(l Limit, format string, args ...any) *Error {
	return &Error{Code: l.Info().Code, Message: fmt.Sprintf(format, args...), limit: l}
}

// of says which limit a refusal is about.
func (e *Error) of(l Limit) *Error {
	e.limit = l
	return e
}

// TakeLimit returns the limit that was exceeded, once: whoever counts it first
// counts it alone, however many hands the error goes through. It is empty if
// the error is about something else. An error has one owner at a time.
func (e *Error) TakeLimit() Limit {
	l := e.limit
	if l != "" { // errors that are about something else may be shared
		e.limit = ""
	}
	return l
}
