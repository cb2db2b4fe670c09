package kafka

import (
	kafkago "github.com/segmentio/kafka-go"
)

// answerError says what an error code of an answer means, or returns nil for
// none. about names what was asked for, such as "partition 3 of orders".
func answerError(code int16, message, about string) *Error {
	if code == 0 {
		return nil
	}
	e := failf(Refused, nil, "Kafka refuses %s with %s (%d)", about, kafkago.Error(code).Title(), code)
	if known, ok := answers[code]; ok {
		e = failf(known.kind, nil, known.sentence, about)
	}
	if message != "" {
		e.Cause = errorText(message)
	}
	return e
}

type errorText string

func (t errorText) Error() string { return string(t) }

type answer struct {
	kind     Kind
	sentence string // with one %s for what was asked for
}

// Codes that the library does not name.
const (
	codeInvalidRecord      = 87
	codeUnknownTopicID     = 100
	codeInconsistentID     = 103
	codeThrottled          = 89
	codeFencedEpoch        = 74
	codeUnknownEpoch       = 75
	codeOffsetNotAvailable = 78
	codeStorageError       = 56
)

var answers = map[int16]answer{
	int16(kafkago.OffsetOutOfRange):             {OutOfRange, "the offset is not in the log of %s"},
	int16(kafkago.InvalidMessage):               {Corrupt, "the checksum of what was sent to %s was wrong when it arrived"},
	int16(kafkago.UnknownTopicOrPartition):      {NoTopic, "Kafka has no %s"},
	int16(kafkago.LeaderNotAvailable):           {NoLeader, "nobody leads %s at the moment"},
	int16(kafkago.NotLeaderForPartition):        {NoLeader, "the leader of %s has changed"},
	int16(kafkago.RequestTimedOut):              {Unreachable, "the replicas of %s did not follow in time"},
	int16(kafkago.BrokerNotAvailable):           {NoLeader, "nobody leads %s at the moment"},
	int16(kafkago.ReplicaNotAvailable):          {NoLeader, "nobody leads %s at the moment"},
	int16(kafkago.NetworkException):             {Unreachable, "Kafka lost a connection while it worked on %s"},
	int16(kafkago.MessageSizeTooLarge):          {TooLarge, "what was sent is larger than %s allows; raise max.message.bytes of the topic"},
	int16(kafkago.RecordListTooLarge):           {TooLarge, "what was sent is larger than a segment of %s; raise segment.bytes of the topic"},
	int16(kafkago.NotEnoughReplicas):            {NotInSync, "fewer replicas of %s are in sync than min.insync.replicas; look which broker is down"},
	int16(kafkago.NotEnoughReplicasAfterAppend): {NotInSync, "fewer replicas of %s are in sync than min.insync.replicas; look which broker is down"},
	int16(kafkago.InvalidTopic):                 {Invalid, "Kafka takes no topic of this name: %s"},
	int16(kafkago.TopicAuthorizationFailed):     {Denied, "the user of Kafka may not do this with %s; give it the permission"},
	int16(kafkago.ClusterAuthorizationFailed):   {Denied, "the user of Kafka has no permission on the cluster, for %s"},
	int16(kafkago.InvalidTimestamp):             {Invalid, "%s refuses the time of the record; see message.timestamp.before.max.ms and after.max.ms of the topic, and the clocks"},
	int16(kafkago.UnsupportedVersion):           {TooOld, "this Kafka is too old for %s; 3.1 or newer is needed"},
	int16(kafkago.TopicAlreadyExists):           {Exists, "%s is there already"},
	int16(kafkago.InvalidPartitionNumber):       {Invalid, "Kafka refuses the number of partitions of %s"},
	int16(kafkago.InvalidReplicationFactor):     {Invalid, "Kafka refuses the number of replicas of %s; it cannot be above the number of brokers"},
	int16(kafkago.InvalidConfiguration):         {Invalid, "Kafka refuses the settings of %s"},
	int16(kafkago.InvalidRequest):               {Invalid, "Kafka refuses the request about %s"},
	int16(kafkago.PolicyViolation):              {Invalid, "a policy of this Kafka refuses %s"},
	codeInvalidRecord:                           {Invalid, "Kafka refuses a record for %s; a compacted topic takes none without a key"},
	codeUnknownTopicID:                          {TopicChanged, "%s was deleted, or deleted and created again"},
	codeInconsistentID:                          {TopicChanged, "%s was deleted and created again"},
	codeFencedEpoch:                             {NoLeader, "the leader of %s has changed"},
	codeUnknownEpoch:                            {NoLeader, "the leader of %s does not know yet that it is"},
	codeOffsetNotAvailable:                      {NoLeader, "the new leader of %s does not know yet where the log ends"},
	codeStorageError:                            {NoLeader, "the leader of %s has a broken disk"},
	codeThrottled:                               {Refused, "Kafka limits how many topics are created; try %s again later"},
}

// surelyNotStored are the answers to a produce request that come before
// anything is appended. All others may come after it: a leader that steps down
// while it waits for its followers answers "not leader" to what it has stored.
var surelyNotStored = map[int16]bool{
	int16(kafkago.InvalidMessage):             true,
	int16(kafkago.MessageSizeTooLarge):        true,
	int16(kafkago.InvalidTopic):               true,
	int16(kafkago.RecordListTooLarge):         true,
	int16(kafkago.NotEnoughReplicas):          true,
	int16(kafkago.TopicAuthorizationFailed):   true,
	int16(kafkago.ClusterAuthorizationFailed): true,
	int16(kafkago.InvalidTimestamp):           true,
	int16(kafkago.UnsupportedVersion):         true,
	int16(kafkago.InvalidRequest):             true,
	int16(kafkago.PolicyViolation):            true,
	codeInvalidRecord:                         true,
}
