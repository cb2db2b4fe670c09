/**
 * A message as it is published, stored and delivered. A stored record is
 * exactly this encoding: the broker writes it once and every subscriber gets
 * the same bytes.
 */
export interface WireMessage {
    /**
     * Topic the message is published to: 1 to 255 bytes of UTF-8, tokens
     * separated by '.'. Always the first field of a stored record.
     */
    topic: string;
    /**
     * Identity of the message within its topic, at most 128 bytes. A repeat of
     * the same id within the dedupe window is answered as a duplicate. Empty on
     * publishing means that the broker takes the position as id: such a message
     * cannot be recognised when it is published again.
     */
    id: string;
    /** The content. Opaque bytes to the broker. */
    payload: Uint8Array;
    /** Media type of the payload, at most 255 bytes. Empty if unknown. */
    contentType: string;
    /** Application headers, stored in the order of their names. */
    headers: readonly Header[];
    /**
     * Ordering key, at most 255 bytes. Consumers have messages of one key in
     * flight one at a time.
     */
    key: string;
    /** Moment after which the message is not delivered any more; 0 means never. */
    expiresAt: number;
    /**
     * Delivered to the subscriptions that are live now and never stored: no
     * position, no replay, no dedupe.
     */
    ephemeral: boolean;
    /**
     * Authenticated subject of the publisher, set by the broker; empty if
     * anonymous. Ignored in frames from clients.
     */
    publisher: string;
    /** Place in its partition, set by the broker. Ignored in frames from clients. */
    offset: number;
    /**
     * Moment at which the broker stored the message; never decreases from one
     * offset to the next. Of an ephemeral message, when the broker took it. Set by
     * the broker. Ignored in frames from clients.
     */
    time: number;
}
/** One application header. */
export interface Header {
    /**
     * Lower-case letters, digits, '-', '_' and '.'; at most 64 bytes. Upper case
     * is folded to lower case.
     */
    name: string;
    /** UTF-8 without control characters, at most 4096 bytes. */
    value: string;
}
/** What a client sends. */
export interface ClientFrame {
    /** Must be the first frame, once. */
    connect?: Connect;
    /** One message or many. */
    publish?: Publish;
    /** Adds a subscription. */
    subscribe?: Subscribe;
    /** Ends a subscription. */
    unsubscribe?: Unsubscribe;
    /** Answer to a Ping. */
    pong?: Pong;
    /** A new token for the running session. */
    refresh?: Refresh;
    /** More credit for a subscription. */
    flow?: Flow;
    /** Messages of a consumer that are done. */
    ack?: Ack;
    /** Messages of a consumer that failed, to be delivered again. */
    nack?: Nack;
    /** Messages of a consumer that take longer. */
    extend?: Extend;
    /** Messages of a consumer that can never be handled. */
    reject?: Reject;
}
/** What a server sends. */
export interface ServerFrame {
    /** Answer to Connect. */
    welcome?: Welcome;
    /** Answers to published messages. */
    published?: Published;
    /** Answer to a Subscribe or to a subscription in Connect. */
    subscribed?: Subscribed;
    /** Messages for one subscription. */
    deliver?: Deliver;
    /** A subscription has reached the head of the log that it saw when it began. */
    caughtUp?: CaughtUp;
    /** Messages that a subscription will not get, and why. */
    gap?: Gap;
    /** Subscriptions that have nothing to get up to a place. */
    progress?: Progress;
    /** The server wants the client to leave and come back. */
    goAway?: GoAway;
    /** Asks for a Pong. */
    ping?: Ping;
    /** A request that was refused, or the reason of the close that follows. */
    error?: WireError;
    /** Answer to a Refresh. */
    refreshed?: Refreshed;
    /** Answer to Ack, Nack, Extend and Reject. */
    acked?: Acked;
}
/** Opens the session and restores all subscriptions in one round trip. */
export interface Connect {
    /** Name and version of the client, for logs and listings; at most 128 bytes. */
    client?: string;
    /** Subscriptions to begin or to resume, each as if sent after Welcome. */
    subscriptions?: readonly Subscribe[];
}
/** The session is open. */
export interface Welcome {
    /** What the client may send. */
    limits?: Limits;
    /** A Ping comes at least this often, in milliseconds. */
    pingIntervalMs: number;
    /** The connection is closed when a Pong is missing for this long. */
    pingTimeoutMs: number;
    /** Clock of the server. */
    time: number;
    /**
     * When the token of the session expires; 0 if never. Refresh before that:
     * how long before, `time` tells without a look at the client's own clock.
     */
    expiresAt: number;
}
/**
 * Limits in force for the session. A request beyond one of them is refused
 * with a coded error.
 */
export interface Limits {
    /** Bytes of one frame from the client. */
    frameBytes: number;
    /**
     * Published messages that wait for an answer; beyond it the server stops
     * reading from the connection until some are answered.
     */
    inFlight: number;
}
/** Publishes messages, in order. */
export interface Publish {
    /**
     * Number of the first message; the following ones are ref+1, ref+2 and so on,
     * modulo 2^32.
     */
    ref?: number;
    /** What to publish: at least one message. */
    messages?: readonly Partial<WireMessage>[];
    /**
     * After a retryable refusal the server refuses all later messages of the
     * connection with `out_of_order`, until a Publish carries resume: only then
     * can the publisher's order be kept. Set it on the first frame that repeats
     * from the refused message on.
     */
    resume?: boolean;
    /**
     * For a repeat: milliseconds since the first attempt to publish the oldest
     * message of this frame. Where the broker remembers ids for a shorter time
     * the answer is `repeat_too_old`, since it cannot tell any more whether the
     * first attempt was stored.
     */
    repeatAgeMs?: number;
}
/** Answers to published messages, in the order of the log. */
export interface Published {
    /** Term of the positions below. */
    term: string;
    /** One for each answered message. */
    results: readonly PublishResult[];
}
/** What became of one published message. */
export interface PublishResult {
    /** Number of the message. */
    ref: number;
    /** Partition of the stored message. */
    partition: number;
    /**
     * Offset of the stored message; of the first one if this is a duplicate; 0
     * if it was refused or is ephemeral.
     */
    offset: number;
    /** The id was stored before; nothing was stored now. */
    duplicate: boolean;
    /** Set if the message was refused. */
    error?: WireError;
    /**
     * Term of the first message, where it is not Published.term: a duplicate may
     * be older than the current life of the log.
     */
    term: string;
}
/** Begins a subscription or resumes one. */
export interface Subscribe {
    /**
     * Number that the client gives to the subscription, above 0 and unique in
     * the session.
     */
    sub?: number;
    /** Topic or pattern: '*' stands for one token, a final '>' for one or more. */
    filter?: string;
    /**
     * Where to begin: `new` (default), `earliest`, `last:N`, a duration before
     * now such as `-10m`, an RFC 3339 time, `last-per-topic`, or a position, which
     * means after it.
     */
    from?: string;
    /**
     * Stream to read. Needed only where the filter could match topics of several;
     * a subscription reads one.
     */
    stream?: string;
    /**
     * Bytes that the broker may send for this subscription before it waits for
     * Flow, 0 allowed; absent means no bound. Each Deliver frame costs the bytes of
     * its WebSocket message. A frame is sent while there is any credit, so one
     * frame may overdraw it: 64 KiB of records, or a single larger one.
     */
    credit?: number;
    /**
     * What happens when the subscription cannot keep up. `catch_up` (default): it
     * reads the log at its own pace and gets everything. `conflate`: while it is
     * behind it gets only the newest message of each topic. `disconnect`: once it
     * has been live, its connection is closed with `slow_connection`.
     */
    slow?: string;
    /**
     * With `conflate`: each topic is sent at most once in so many milliseconds, the
     * newest message then. At most 60,000. 0 means that only a subscription which
     * is behind is conflated.
     */
    conflateMs?: number;
    /**
     * False: messages that this session publishes, once it has such a
     * subscription, are left out. Absent means true.
     */
    echo?: boolean;
    /**
     * Makes the subscription a member of the consumer of this name: the broker
     * keeps its place, hands each message to one member, and again until it is
     * settled. One token of at most 128 bytes, not beginning with '$'. Where there
     * is no such consumer it is created, with `filter`, `stream`, `settings` and
     * `from`, whose default is `earliest` then; where there is one, `filter` and
     * `stream` must be its own or empty, and `from` is ignored. Not together with
     * `credit`, `slow`, `conflate_ms` and `echo`.
     */
    consumer?: string;
    /**
     * Settings of the consumer: for its creation, and to change those that are
     * given where it is there already.
     */
    settings?: ConsumerSettings;
    /**
     * With `consumer`: how many messages this member takes at most before it has
     * settled some; 0 means the consumer's `max_in_flight`.
     */
    window?: number;
}
/**
 * Settings of a consumer. What is absent has its default when the consumer is
 * created, and stays as it is when it is there already.
 */
export interface ConsumerSettings {
    /**
     * How long a member may take to settle a message, in milliseconds; after that
     * it is delivered again. Default 30,000.
     */
    ackWaitMs?: number;
    /** Longest wait before the first repeat, in milliseconds. Default 1,000. */
    backoffBaseMs?: number;
    /**
     * No repeat waits longer than this, in milliseconds; at most 60,000, which is
     * the default.
     */
    backoffCapMs?: number;
    /** The longest wait grows by this factor from one repeat to the next. Default 2. */
    backoffFactor?: number;
    /**
     * True: each wait is random, from 0 to the longest. False: it is the longest
     * itself. Default true.
     */
    backoffJitter?: boolean;
    /** Deliveries of a message before it becomes a dead letter. Default 10. */
    maxDeliver?: number;
    /** Messages in flight, over all members. Default 256. */
    maxInFlight?: number;
    /**
     * Messages that wait for their repeat or for their ordering key; at this
     * number no new ones are delivered. Default 10,000.
     */
    maxWaiting?: number;
    /**
     * Bytes of the messages in flight; a larger message goes alone. Default
     * 4,194,304.
     */
    maxInFlightBytes?: number;
    /**
     * One member at a time: whoever subscribes last takes over. Fixed when the
     * consumer is created. Default false.
     */
    exclusive?: boolean;
    /**
     * Of the messages with one ordering key only one is in flight, in the order of
     * the log. Default true.
     */
    ordered?: boolean;
}
/** Gives a subscription more credit. Only for one that has credit. */
export interface Flow {
    sub?: number;
    /** Bytes to add to what is left. */
    credit?: number;
}
/** The subscription stands. */
export interface Subscribed {
    /** From Subscribe. */
    sub: number;
    /**
     * Where it begins: everything after this position comes, or, if it was asked
     * for and cannot be had, a Gap, which moves the cursor.
     */
    position: string;
    /**
     * The same place as one offset for each partition: the client's first
     * cursor.
     */
    cursors: readonly Cursor[];
    /**
     * How long a delivered message of the consumer may go unsettled. That of now: a
     * change is not told to who is a member already.
     */
    ackWaitMs: number;
}
/** A place in one partition. */
export interface Cursor {
    partition: number;
    offset: number;
}
/**
 * Messages of one subscription. The frame covers the offsets above `after` up
 * to and including `through` of one partition: every record in that range is
 * here that matches, has not expired, is not superseded where the subscription
 * conflates, and is not the session's own where it wants no echo. A client keeps
 * a cursor for each partition; `after` above the cursor is a hole (subscribe
 * again from the cursor), records at or below it are dropped, and then the
 * cursor becomes the larger of itself and `through`.
 *
 * A frame without `term` holds ephemeral messages: it covers no range, its
 * records have no offset, and the cursor stays.
 *
 * A frame with `generation` holds deliveries of a consumer: it covers no range
 * either, `after` and `through` are 0, and its offsets may go back, since some of
 * the messages may be repeats. There is no cursor: the broker keeps the place.
 */
export interface Deliver {
    /** The subscription. Always the first field. */
    sub: number;
    /** Partition of all records. */
    partition: number;
    /**
     * Term in which all records were written; empty for ephemeral ones. A
     * message's position is the letter
     * 'p', the term, and for each partition '-', the partition and '_' (left out
     * for partition 0), and the offset: p1z141z3-42 or p1z141z3-3_42.
     */
    term: string;
    /** See above. */
    after: number;
    /** See above. */
    through: number;
    /** In the order of offsets. */
    records: readonly WireMessage[];
    /**
     * Of a consumer's deliveries: for each record which delivery this is, from 1
     * on.
     */
    attempts: readonly number[];
    /** Of a consumer's deliveries: the generation to settle them with; else 0. */
    generation: number;
}
/** Messages of one partition, by their offsets. */
export interface OffsetRange {
    partition?: number;
    /** The first one, above 0. */
    from?: number;
}
/**
 * Messages are done: the consumer never delivers them again. Each message that
 * was delivered at least once can be acked, late ones too.
 */
export interface Ack {
    /** Comes back in Acked. */
    ref?: number;
    /** The subscription, which must be a member of a consumer. */
    sub?: number;
    /**
     * That of the delivery, so that a member that was overtaken is noticed; 0
     * stands for the current one.
     */
    generation?: number;
    /** Term of all the messages, as in Deliver. */
    term?: string;
    /** The messages: at least one range, at most 10,000. */
    ranges?: readonly OffsetRange[];
    /**
     * Answer when it is on disk. Without it an answer comes only if something was
     * refused, and what was not on disk at a power cut is delivered again.
     */
    confirm?: boolean;
}
/**
 * Messages were not handled: they are delivered again, to any member, or become
 * dead letters if that was their last delivery.
 */
export interface Nack {
    ref?: number;
    sub?: number;
    generation?: number;
    term?: string;
    ranges?: readonly OffsetRange[];
    /** As in Ack. */
    confirm?: boolean;
    /**
     * Wait this long before the next delivery, in milliseconds; absent means as
     * long as the settings say.
     */
    delayMs?: number;
}
/** The member still works on these messages. */
export interface Extend {
    ref?: number;
    sub?: number;
    generation?: number;
    term?: string;
    ranges?: readonly OffsetRange[];
    /** As in Ack. */
    confirm?: boolean;
    /**
     * Time to settle them from now on, in milliseconds, at most 12 hours; 0 means
     * the consumer's `ack_wait_ms`.
     */
    byMs?: number;
}
/** Messages that no attempt will ever handle: they become dead letters now. */
export interface Reject {
    ref?: number;
    sub?: number;
    generation?: number;
    term?: string;
    ranges?: readonly OffsetRange[];
    /** As in Ack. */
    confirm?: boolean;
    /**
     * Why, for whoever looks at the dead letter; at most 1024 bytes without control
     * characters.
     */
    reason?: string;
}
/**
 * What became of an Ack, Nack, Extend or Reject: comes if it asked for `confirm`,
 * or if something in it was refused.
 */
export interface Acked {
    /** From the request. */
    ref: number;
    sub: number;
    /** Messages that were not. */
    refused: readonly RefusedRange[];
    /**
     * Set if what it says could not be stored: it may be forgotten, and what was
     * settled be delivered again.
     */
    error?: WireError;
}
/** Messages that a request did not settle. */
export interface RefusedRange {
    /** Why: `not_pending`, `never_delivered` or `fenced`. */
    code: string;
}
/**
 * Everything that was stored when the subscription began has been delivered.
 * Comes once for each subscription.
 */
export interface CaughtUp {
    sub: number;
}
/** Messages that can no longer be had. */
export interface Gap {
    /** The subscription. */
    sub: number;
    /** Partition of the range. */
    partition: number;
    /**
     * `retention`: deleted by age or size; with `missed`, not given any more since
     * there are enough newer ones of their topics. `rolled_back`: written by a life of
     * the log that was lost, for instance because a backup was restored.
     * `other_log`: the position comes from a log that this one knows nothing
     * about. `passed_over`: was never stored or had to be skipped. `ephemeral`:
     * ephemeral messages that came while the subscription was behind; the range is
     * empty and the cursor stays, `missed` says how many.
     */
    reason: string;
    /** The range is above this offset ... */
    after: number;
    /** ... up to and including this one. Both 0 with `other_log`. */
    through: number;
    /** Where deliveries go on: after this position. */
    position: string;
    /** The same place as an offset of the partition: the client's new cursor. */
    offset: number;
    /**
     * How many messages, with `ephemeral`, and with `retention` by count: then the
     * range is empty and the cursor stays; so many are not in the part of the log
     * that the next frame covers.
     */
    missed: number;
}
/**
 * The named subscriptions are live and have nothing to get up to an offset, so
 * their cursors may move although no message came. It is ordered with Deliver
 * and must pass through the same queue of the client.
 */
export interface Progress {
    subs: readonly number[];
    partition: number;
    /** Term and offset of the place, as in Deliver. */
    term: string;
    through: number;
}
/** Ends a subscription. */
export interface Unsubscribe {
    sub?: number;
}
/**
 * The server is about to close the connection. The client finishes what it
 * waits for and connects again, here or elsewhere.
 */
export interface GoAway {
    /** Wait this long before connecting again; spread over all sessions. */
    reconnectAfterMs: number;
    /** URLs to prefer, if any. */
    elsewhere: readonly string[];
}
/**
 * Asks for a Pong from the client's own code: a page that the browser has
 * frozen still answers WebSocket pings, so they prove nothing.
 */
export interface Ping {
    /** Comes back in Pong. */
    seq: number;
}
/** Answer to Ping, at once. */
export interface Pong {
    seq?: number;
}
/** A new token before the old one expires. */
export interface Refresh {
    token?: string;
}
/** The new token is in force. */
export interface Refreshed {
    /** When it expires; 0 if never. */
    expiresAt: number;
}
/** Why something was refused. docs/protocol.md lists the codes. */
export interface WireError {
    /** Number of the request, if it has one. */
    ref: number;
    /** The subscription that it concerns, if any. */
    sub: number;
    /** For programs: lower-case words joined by '_'. */
    code: string;
    /** For people: a sentence that says what to change. */
    message: string;
    /** The same request may succeed later. */
    retryable: boolean;
    /** Wait at least this long before trying again, in milliseconds; 0 if unknown. */
    retryAfterMs: number;
    /**
     * Type of the frame that was refused, as JSON names it: `connect`, `publish`,
     * `subscribe`, `unsubscribe`, `refresh`, `flow`, `ack`, `nack`, `extend`,
     * `reject`. Empty if a running subscription has
     * ended, which `sub` tells, and if the error concerns the connection, which
     * is closed then. A request whose number is 0 can be told from that by this
     * alone.
     */
    request: string;
}
