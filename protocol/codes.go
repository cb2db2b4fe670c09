package protocol

import (
	"net/http"
	"slices"
)

// The codes. [Codes] says what each of them means.
const (
	CodeBadRequest        Code = "bad_request"
	CodeInvalidTopic      Code = "invalid_topic"
	CodeInvalidFilter     Code = "invalid_filter"
	CodeInvalidStart      Code = "invalid_start"
	CodeInvalidPosition   Code = "invalid_position"
	CodeOffsetNotPosition Code = "offset_not_position"
	CodeInvalidID         Code = "invalid_id"
	CodeInvalidKey        Code = "invalid_key"
	CodeInvalidHeader     Code = "invalid_header"
	CodeInvalidMessage    Code = "invalid_message"
	CodeTooManyMessages   Code = "too_many_messages"
	CodePayloadTooLarge   Code = "payload_too_large"
	CodeReservedTopic     Code = "reserved_topic"
	CodeUnsupported       Code = "unsupported"
	CodeUnknownStream     Code = "unknown_stream"
	CodeSeveralStreams    Code = "several_streams"

	CodeIDConflict   Code = "id_conflict"
	CodeRepeatTooOld Code = "repeat_too_old"
	CodeOutOfOrder   Code = "out_of_order"

	CodeStorageFull    Code = "storage_full"
	CodeOverloaded     Code = "overloaded"
	CodeLogUnavailable Code = "log_unavailable"
	CodeRateLimited    Code = "rate_limited"
	CodeUnknown        Code = "outcome_unknown"
	CodeInternal       Code = "internal"

	CodeTooManySubscriptions Code = "too_many_subscriptions"
	CodeSubscriptionsFull    Code = "subscriptions_full"
	CodeSubscriptionInUse    Code = "subscription_in_use"
	CodeUnknownSubscription  Code = "unknown_subscription"

	CodeUnknownConsumer Code = "unknown_consumer"
	CodeConsumerExists  Code = "consumer_exists"
	CodeConsumerFixed   Code = "consumer_fixed"
	CodeTakenOver       Code = "taken_over"
	CodeFenced          Code = "fenced"
	CodeNotPending      Code = "not_pending"
	CodeNeverDelivered  Code = "never_delivered"

	CodeUnauthorized Code = "unauthorized"
	CodeForbidden    Code = "forbidden"
	CodeBadOrigin    Code = "origin_not_allowed"
	CodeBadHost      Code = "host_not_allowed"

	CodeNotFound         Code = "not_found"
	CodeMethodNotAllowed Code = "method_not_allowed"

	CodeGoingAway      Code = "going_away"
	CodePingTimeout    Code = "ping_timeout"
	CodeSlowConnection Code = "slow_connection"
	CodeTokenExpired   Code = "token_expired"
	CodeTooManyConns   Code = "too_many_connections"
	CodeBadFrame       Code = "bad_frame"
	CodeWrongFrameType Code = "wrong_frame_type"
	CodeConnectFirst   Code = "connect_first"
	CodeConnectTwice   Code = "connect_twice"
	CodeConnectTimeout Code = "connect_timeout"
	CodeBadSubprotocol Code = "bad_subprotocol"
)

// CodeInfo is what is fixed about a code.
type CodeInfo struct {
	Code      Code
	Status    int    // HTTP status
	Close     uint16 // WebSocket close code; 0 if the code never closes a connection
	Retryable bool   // the same request may succeed later
	Meaning   string // one sentence for the table in docs/protocol.md
}

// Codes lists every code, in the order of docs/protocol.md. Close codes carry
// the verdict by range: 3000-3499 come back, 3500-3999 do not.
func Codes() []CodeInfo { return codeTable }

var codeTable = []CodeInfo{
	{CodeBadRequest, http.StatusBadRequest, 0, false, "The request cannot be read as what its path or type says."},
	{CodeInvalidTopic, http.StatusBadRequest, 0, false, "The topic breaks the rules for topics."},
	{CodeInvalidFilter, http.StatusBadRequest, 0, false, "The filter breaks the rules for filters."},
	{CodeInvalidStart, http.StatusBadRequest, 0, false, "`from` is none of the forms that say where to begin."},
	{CodeInvalidPosition, http.StatusBadRequest, 0, false, "The position cannot be read, or lacks a partition."},
	{CodeOffsetNotPosition, http.StatusBadRequest, 0, false, "A bare number was given where a position is needed."},
	{CodeInvalidID, http.StatusBadRequest, 0, false, "The message id is too long or has a character that is not allowed."},
	{CodeInvalidKey, http.StatusBadRequest, 0, false, "The ordering key is too long or has a character that is not allowed."},
	{CodeInvalidHeader, http.StatusBadRequest, 0, false, "A header is malformed, too large, given twice, or there are too many."},
	{CodeInvalidMessage, http.StatusBadRequest, 0, false, "Another part of the message breaks its rules."},
	{CodeTooManyMessages, http.StatusRequestEntityTooLarge, 0, false, "More messages, or ranges of them, in one request than are allowed."},
	{CodePayloadTooLarge, http.StatusRequestEntityTooLarge, 0, false, "The payload is larger than a message may be."},
	{CodeReservedTopic, http.StatusForbidden, 0, false, "Topics that begin with `$` belong to the broker."},
	{CodeUnsupported, http.StatusBadRequest, 0, false, "The request is well formed, but this version of the broker cannot do it."},
	{CodeUnknownStream, http.StatusNotFound, 0, false, "There is no stream of that name."},
	{CodeSeveralStreams, http.StatusBadRequest, 0, false, "The filter could match topics of several streams: name one."},

	{CodeIDConflict, http.StatusConflict, 0, false, "The id was stored before with another payload; nothing was stored now."},
	{CodeRepeatTooOld, http.StatusConflict, 0, false, "The broker no longer remembers ids from the time of the first attempt, so it cannot tell whether that was stored; nothing was stored now."},
	{CodeOutOfOrder, http.StatusConflict, 0, true, "An earlier message of this connection was refused; repeat from that one on, with `resume`."},

	{CodeStorageFull, http.StatusInsufficientStorage, 0, true, "The broker has no room to store more; nothing was stored."},
	{CodeOverloaded, http.StatusServiceUnavailable, 0, true, "Too much is waiting to be stored; nothing was stored."},
	{CodeLogUnavailable, http.StatusServiceUnavailable, 0, true, "The log of the cluster cannot be reached, or has not come as far here; nothing was stored."},
	{CodeRateLimited, http.StatusTooManyRequests, 3007, true, "More of it in a second than is allowed; nothing was stored, wait as long as `retry_after_ms` says."},
	{CodeUnknown, http.StatusServiceUnavailable, 0, true, "The message may or may not have been stored; repeat it with the same id."},
	{CodeInternal, http.StatusInternalServerError, 3004, true, "Something went wrong inside the broker."},

	{CodeTooManySubscriptions, http.StatusTooManyRequests, 0, false, "The session has as many subscriptions as it may have."},
	{CodeSubscriptionsFull, http.StatusServiceUnavailable, 0, true, "The broker has as many subscriptions as it may have, over all sessions."},
	{CodeSubscriptionInUse, http.StatusConflict, 0, false, "The session already has a subscription of that number."},
	{CodeUnknownSubscription, http.StatusNotFound, 0, false, "The session has no subscription of that number."},

	{CodeUnknownConsumer, http.StatusNotFound, 0, false, "There is no consumer of that name."},
	{CodeConsumerExists, http.StatusConflict, 0, false, "There is a consumer of that name, with another filter or stream."},
	{CodeConsumerFixed, http.StatusConflict, 0, false, "This setting of a consumer cannot be changed after its creation."},
	{CodeTakenOver, http.StatusConflict, 0, false, "A newer member has taken over the exclusive consumer."},
	{CodeFenced, http.StatusConflict, 0, false, "The message was delivered in an earlier generation of the consumer, and may be with another member by now."},
	{CodeNotPending, http.StatusConflict, 0, false, "The message is not pending: it was settled before."},
	{CodeNeverDelivered, http.StatusConflict, 0, false, "The consumer has never delivered this message."},

	{CodeUnauthorized, http.StatusUnauthorized, 3500, false, "No token was given where one is needed, or it is not valid."},
	{CodeForbidden, http.StatusForbidden, 3501, false, "The token does not allow this."},
	{CodeBadOrigin, http.StatusForbidden, 3502, false, "Pages of this origin may not connect; see `allowed_origins` in the configuration."},
	{CodeBadHost, http.StatusMisdirectedRequest, 3503, false, "The Host header names another host than this broker serves."},

	{CodeNotFound, http.StatusNotFound, 0, false, "There is nothing at that path."},
	{CodeMethodNotAllowed, http.StatusMethodNotAllowed, 0, false, "That path does not know the method."},

	{CodeGoingAway, http.StatusServiceUnavailable, 3000, true, "The broker is shutting down or moving its sessions elsewhere."},
	{CodePingTimeout, http.StatusRequestTimeout, 3001, true, "No Pong came in time."},
	{CodeSlowConnection, http.StatusServiceUnavailable, 3002, true, "The connection did not take what was written to it in time, or took too long to send what it had begun."},
	{CodeTokenExpired, http.StatusUnauthorized, 3505, false, "The token has expired; who can get a new one comes back with that, who has only this one stays away."},
	{CodeTooManyConns, http.StatusServiceUnavailable, 3005, true, "The broker has as many connections as it may have."},
	{CodeBadFrame, http.StatusBadRequest, 3504, false, "A frame cannot be read."},
	{CodeWrongFrameType, http.StatusBadRequest, 3506, false, "`tidewire.v1.proto` takes binary frames only, `tidewire.v1.json` text frames only."},
	{CodeConnectFirst, http.StatusBadRequest, 3507, false, "The first frame must be Connect."},
	{CodeConnectTwice, http.StatusBadRequest, 3508, false, "A session takes one Connect."},
	{CodeConnectTimeout, http.StatusRequestTimeout, 3006, true, "No Connect came in time after the handshake."},
	{CodeBadSubprotocol, http.StatusBadRequest, 3509, false, "Ask for the subprotocol `tidewire.v1.proto` or `tidewire.v1.json`."},
}

// Info returns what is fixed about the code. A code that is not in the table,
// of a later version, counts as internal.
func (c Code) Info() CodeInfo {
	if i := c.index(); i >= 0 {
		return codeTable[i]
	}
	info := CodeInternal.Info()
	info.Code = c
	return info
}

// index is the place of the code in the table, -1 if it is not there.
func (c Code) index() int {
	return slices.IndexFunc(codeTable, func(info CodeInfo) bool { return info.Code == c })
}

// Retryable reports whether a request refused with this code may succeed later
// without a change.
func (c Code) Retryable() bool { return c.Info().Retryable }

// CloseRetryable reports whether a client should connect again after its
// connection was closed with this WebSocket close code.
func CloseRetryable(code uint16) bool {
	switch {
	case code >= 3000 && code <= 3999:
		return code < 3500
	case code >= 4000 && code <= 4999:
		return code < 4500
	default:
		return code != 1002 && code != 1003 && (code < 1007 || code > 1010)
	}
}
