/// <reference lib="esnext.disposable" preserve="true" />
/**
 * Where the connection is:
 *
 * - `idle`: without a connection on purpose. The page is hidden for good or lies in
 *   the back-forward cache; it connects when it is shown again.
 * - `connecting`: an attempt is under way.
 * - `open`: the broker has said welcome.
 * - `waiting`: the next attempt comes after a pause, or when the browser is online
 *   again.
 * - `closed`: for good.
 */
export type State = "idle" | "connecting" | "open" | "waiting" | "closed";
/** What `connect` takes besides the address. */
export interface ConnectOptions {
    /**
     * The token, or a function that gives one. The function is awaited before each
     * connect, and again before the token in force expires: a new one then takes its
     * place without a new connection, so give one that lasts longer than the last.
     */
    token?: string | (() => string | Promise<string>) | undefined;
    /** Name and version of the program, for the broker's listings. Default: `tidewire-js`. */
    name?: string | undefined;
    /** Bounds what is published and not yet answered, and may keep it over a reload. */
    outbox?: OutboxOptions | undefined;
    /** Longest time for one attempt, from dialling to the broker's welcome, in milliseconds. Default: 10,000. */
    timeout?: number | undefined;
    /** The class to make connections with. Default: the global `WebSocket`; Node.js has one from version 22 on. */
    WebSocket?: WebSocketClass | undefined;
    /** False: nothing is written to the console. Default: true; what goes wrong is said there once. */
    log?: boolean | undefined;
}
/** A class with the interface of the browser's WebSocket, such as that of the package `ws`. */
export type WebSocketClass = new (url: string, protocols: string[]) => Pick<WebSocket, "readyState" | "send" | "close">;
/** Bounds of what is published and not yet answered. */
export interface OutboxOptions {
    /** Messages. Default: 1,000. */
    messages?: number | undefined;
    /** Bytes, of everything in them. Default: 8 MiB. */
    bytes?: number | undefined;
    /** Keeps them over a reload; `@tidewire/client/idb` has one. */
    store?: OutboxStore | undefined;
}
/** A message of the outbox as a store keeps it. All values can be cloned structurally. */
export interface OutboxEntry {
    topic: string;
    id: string;
    payload: Uint8Array;
    contentType?: string | undefined;
    key?: string | undefined;
    headers?: Record<string, string> | undefined;
    /** Milliseconds since 1970. */
    expires?: number | undefined;
    /** When it was published first, in milliseconds since 1970 by this machine's clock. */
    first: number;
}
/** Keeps what is published and not yet answered. */
export interface OutboxStore {
    /**
     * Gives what an earlier page left behind, oldest first; called once, before the
     * first message is sent. From then on it is this client's to send.
     */
    load(): Promise<OutboxEntry[]>;
    /** Keeps a message. Called in the order of publishing; the message may be sent before this is done. */
    add(entry: OutboxEntry): void;
    /** Forgets one that is answered. */
    remove(entry: OutboxEntry): void;
}
/** What can be published: text and bytes go as they are, everything else as JSON. */
export type Data = string | Uint8Array | ArrayBuffer | object | number | boolean | null;
/** What `publish` takes besides topic and data. */
export interface PublishOptions {
    /** Identity of the message within its topic, at most 128 bytes. Default: a random one. */
    id?: string | undefined;
    /** Ordering key: consumers have messages of one key in flight one at a time. */
    key?: string | undefined;
    /** Application headers; names in lower case. */
    headers?: Record<string, string> | undefined;
    /** Media type. Default: that of JSON for objects, `text/plain` for text, none for bytes. */
    contentType?: string | undefined;
    /** Only for who is subscribed now, never stored. */
    ephemeral?: boolean | undefined;
    /** When the message is not delivered any more; a number is milliseconds from now. */
    expires?: Date | number | undefined;
    /** Gives up waiting: what was not sent is not sent then, what was may or may not be stored. */
    signal?: AbortSignal | undefined;
}
/** What the broker says of a message that it has taken. */
export interface Published {
    readonly id: string;
    readonly topic: string;
    /** Of the message; of the first one if this is a duplicate; empty if it is ephemeral. */
    readonly position: string;
    /** The id was stored before on that topic; nothing was stored now. */
    readonly duplicate: boolean;
    /** False for an ephemeral message. */
    readonly stored: boolean;
}
/** A message as it is delivered. Do not keep `bytes` for long: it may hold memory of other messages. */
export interface Message {
    readonly topic: string;
    readonly id: string;
    /**
     * Where the subscription is once it was handled: what to resume after, also where the filter reads
     * several partitions. Empty for ephemeral messages.
     */
    readonly position: string;
    /** When the broker stored it. */
    readonly time: Date;
    /** Authenticated subject of who published it; empty if anonymous. */
    readonly publisher: string;
    readonly key: string;
    readonly contentType: string;
    readonly headers: Readonly<Record<string, string>>;
    readonly ephemeral: boolean;
    /** When it is not delivered any more. */
    readonly expires: Date | undefined;
    /** The content as it was sent. */
    readonly bytes: Uint8Array;
    /** The content by its content type: JSON is parsed, text is a string, everything else bytes. */
    readonly data: unknown;
    /** The content as text. */
    text(): string;
    /** The content, parsed as JSON. */
    json<T = unknown>(): T;
}
/** Messages that can no longer be had. */
export interface Gap {
    /** Why: `retention`, `rolled_back`, `other_log`, `passed_over`, or `ephemeral`. */
    readonly reason: string;
    /** Where deliveries go on: after this position. */
    readonly position: string;
    /** The range is above `after`, up to and including `through`; both 0 where it is not known, or empty. */
    readonly after: number;
    readonly through: number;
    /** How many messages, where that is known; else 0. */
    readonly missed: number;
}
/** Keeps the position of a subscription over a reload. Each may be asynchronous. */
export interface PositionStore {
    /** The position that was kept last. */
    load(): string | undefined | null | Promise<string | undefined | null>;
    /**
     * Called with the place where the subscription began, and when the position has
     * moved, after the handler returned; not for each message, but soon. The next call
     * comes when this one is done.
     */
    save(position: string): void | Promise<void>;
}
/** Where a subscription begins, and how. */
export interface SubscribeOptions {
    /**
     * `new` (default), `earliest`, `last:N`, `last-per-topic`, a duration before now
     * such as `-10m`, an RFC 3339 time, or a position, which means after it.
     */
    from?: string | undefined;
    /** Keeps the position; what it has kept goes before `from`. */
    store?: PositionStore | undefined;
    /** The stream to read. Needed only where the filter could match topics of several. */
    stream?: string | undefined;
    /** What the broker may send before the handler has handled it, in bytes. Default: 1 MiB. */
    credit?: number | undefined;
    /** What happens when the handler cannot keep up: it gets everything later (default), or only the newest of each topic. */
    slow?: "catch_up" | "conflate" | undefined;
    /** With `conflate`: each topic comes at most once in so many milliseconds. */
    conflateMs?: number | undefined;
    /** False: what this client publishes itself is left out. Default: true. */
    echo?: boolean | undefined;
    /** Ends the subscription. */
    signal?: AbortSignal | undefined;
}
/** Where a subscription is: `asking` the broker, `behind` what is stored, `live`, or `ended`. */
export type SubscriptionState = "asking" | "behind" | "live" | "ended";
/** What a subscription tells besides messages. */
export interface SubscriptionEvents {
    /** Messages are gone. Without a listener it is said in the console. */
    gap: Gap;
    /** Everything that was stored when the subscription began has been handled. Comes once. */
    caughtup: undefined;
    /** The state has changed. */
    state: SubscriptionState;
}
/**
 * The messages of all topics that a filter selects. It lives on over lost
 * connections, until it is closed, its client is, or the broker ends it.
 *
 * Either it has a handler, or it is looped over, once: `for await (const m of sub)`.
 */
export interface Subscription extends AsyncIterable<Message>, AsyncDisposable {
    readonly filter: string;
    readonly state: SubscriptionState;
    /**
     * What to keep in order to go on later, as `from`: all before it was handled. It
     * moves behind a message when the handler has returned, or when the loop asks for
     * the next one. Empty until the broker has confirmed the subscription.
     */
    readonly position: string;
    /** Resolves when the broker has confirmed the subscription for the first time; rejects if it ends before. */
    readonly ready: Promise<void>;
    /** Resolves when the subscription was closed; rejects with why it has ended otherwise, also with what the handler threw. */
    readonly done: Promise<void>;
    /** Listens; the function that it returns ends that. */
    on<K extends keyof SubscriptionEvents>(event: K, listener: (value: SubscriptionEvents[K]) => void): () => void;
    /** Ends it. What was received and not yet handled is dropped: the position stays before it. */
    close(): Promise<void>;
}
/** Handles a message. The next one comes when it has returned, or what it returned has resolved. */
export type Handler = (m: Message) => unknown;
/** A message of a consumer: it comes again until it is settled. */
export interface Delivery extends Message {
    /** Which delivery of the message this is, from 1 on. */
    readonly attempt: number;
    /** To fence effects with: it grows when an exclusive consumer is taken over, or moved. */
    readonly generation: number;
    /** Says that it is done. Resolves when that is on the broker's disk; rejects if it is another member's by now. */
    ack(): Promise<void>;
    /**
     * Says that it failed: it comes again after `delay` milliseconds, or as the settings
     * say. Without a connection nothing is said and nothing waits: it comes again by
     * itself, to another member at once, else when the ack wait is over.
     */
    nack(options?: {
        delay?: number | undefined;
    }): Promise<void>;
    /** Asks for more time: `by` milliseconds from now on, or the consumer's ack wait. Without a connection nothing is asked. */
    extend(by?: number): Promise<void>;
    /** Says that no attempt will ever handle it: it becomes a dead letter. */
    reject(reason?: string): Promise<void>;
}
/** Works on a message. What it has not settled when it returns is acked; when it throws, nacked. */
export type Worker = (m: Delivery) => unknown;
/** How a consumer is joined. Where the consumer is there already, none are needed. */
export interface ConsumeOptions {
    /** Handlers that run at a time. Default: 1. */
    concurrency?: number | undefined;
    /** Messages that the broker may have under way to this client. Default: `concurrency`. */
    window?: number | undefined;
    /** Where a new consumer begins. Default: `earliest`. */
    from?: string | undefined;
    stream?: string | undefined;
    /** False: a handler that takes longer than the ack wait must call `extend` itself. Default: true. */
    extend?: boolean | undefined;
    /** Settings of the consumer: for its creation, and to change those that are given. */
    settings?: ConsumerSettings | undefined;
    signal?: AbortSignal | undefined;
}
/** Settings of a consumer, as docs/consumers.md says. */
export interface ConsumerSettings {
    ackWaitMs?: number | undefined;
    backoffBaseMs?: number | undefined;
    backoffCapMs?: number | undefined;
    backoffFactor?: number | undefined;
    backoffJitter?: boolean | undefined;
    maxDeliver?: number | undefined;
    maxInFlight?: number | undefined;
    maxInFlightBytes?: number | undefined;
    maxWaiting?: number | undefined;
    exclusive?: boolean | undefined;
    ordered?: boolean | undefined;
}
/** What a consumer tells besides messages. */
export interface ConsumerEvents {
    /** Messages are gone that nobody was ever given. Without a listener it is said in the console. */
    gap: Gap;
    state: SubscriptionState;
    /** The broker did not take what was said of a message, and nobody waits for that answer. */
    unsettled: {
        message: Delivery;
        error: Error;
    };
}
/** This client's membership in a consumer of the broker. */
export interface Consumer extends AsyncDisposable {
    readonly name: string;
    readonly state: SubscriptionState;
    readonly ready: Promise<void>;
    /** As that of a subscription. What a worker throws ends nothing. */
    readonly done: Promise<void>;
    /** Listens; the function that it returns ends that. */
    on<K extends keyof ConsumerEvents>(event: K, listener: (value: ConsumerEvents[K]) => void): () => void;
    /**
     * Takes no more, waits for the workers that run and until what they said is on disk,
     * and leaves. A worker may call it, but not wait for it: it would wait for itself.
     * The console says from time to time that workers are waited for.
     */
    close(): Promise<void>;
}
/** Which messages `history` gives: those after `from`, or those before `before`, newest first. */
export interface HistoryOptions {
    from?: string | undefined;
    before?: string | undefined;
    /** At most 1,000. Default: 100. */
    limit?: number | undefined;
    signal?: AbortSignal | undefined;
}
/** A part of what is stored on a topic. */
export interface History {
    readonly messages: Message[];
    /** Goes on from here, as `from` or `before`, whichever was asked for. */
    readonly next: string;
    readonly gap: Gap | undefined;
}
/** What a client tells. */
export interface ClientEvents {
    /** The state has changed; `error` says why a connection was lost or an attempt failed. */
    state: {
        state: State;
        error: Error | undefined;
    };
    /** The broker has refused a message that an earlier page published and the outbox has kept. */
    refused: {
        topic: string;
        id: string;
        error: Error;
    };
}
/** A connection to a broker that comes back by itself. */
export interface Client extends AsyncDisposable {
    readonly state: State;
    /** Resolves when the connection is open for the first time; rejects if it never will be. */
    readonly ready: Promise<void>;
    /** Resolves when the client was closed; rejects with why the broker does not want it back. */
    readonly done: Promise<void>;
    /** Listens; the function that it returns ends that. */
    on<K extends keyof ClientEvents>(event: K, listener: (value: ClientEvents[K]) => void): () => void;
    /**
     * Publishes. Resolves when the broker has stored it; it is repeated until then, in
     * order, with the same id. Rejects if it was refused, or the client is closed: who
     * does not look at that is told by the runtime, as of any rejection that nobody
     * handles, since a message must not be lost in silence.
     */
    publish(topic: string, data: Data, options?: PublishOptions): Promise<Published>;
    /** Subscribes. The messages are read in a loop: `for await (const m of client.subscribe("chat.>"))`. */
    subscribe(filter: string, options?: SubscribeOptions): Subscription;
    /** Subscribes. The handler is called for one message after the other; a promise that it returns is waited for. */
    subscribe(filter: string, handler: Handler, options?: SubscribeOptions): Subscription;
    /** Joins a consumer, creating it if it is not there. `filter` may be empty where it is. */
    consume(name: string, filter: string, worker: Worker, options?: ConsumeOptions): Consumer;
    /** Reads what is stored on a topic, over HTTP. */
    history(topic: string, options?: HistoryOptions): Promise<History>;
    /** Waits until what was published is answered, at most `timeout` milliseconds (5,000), and ends everything. */
    close(options?: {
        timeout?: number | undefined;
    }): Promise<void>;
}
