/** What the tabs of a group use of their browser. Tests have one of their own. */
export interface Env {
    locks: LockManager;
    Channel: new (name: string) => BroadcastChannel;
    /** Tells when the page is shown and when it is about to be frozen. */
    page: EventTarget | undefined;
}
/** What a leader says to a guest. */
export interface Word {
    /** Number of the leader: what another one has said is not heeded. */
    n: string;
    /** The session is open; until then a word only means that there is a leader. */
    open?: boolean;
    /** A frame. */
    b?: ArrayBuffer;
    /** The connection has ended; without a close code, the leader leaves. */
    end?: {
        code?: number;
        reason?: string;
        away?: ArrayBuffer | undefined;
    };
}
/** What a guest says to its leader. */
export interface Answer {
    n: string;
    b?: ArrayBuffer;
    /** The guest leaves. Without it and without a frame it asks for a sign of life. */
    bye?: boolean;
}
/**
 * The leader's side: lets guests take part in a session. Frames pass as they are, but
 * for the numbers of subscriptions and of published messages, which must differ within
 * a session.
 *
 * The naive way is a protocol of its own between the tabs. It needs a second client
 * with positions, outbox, credit and consumers in every guest; so they have the first one.
 */
export declare class Hub {
    #private;
    /** `send` takes what is for the broker, `give` what is for the leader's client and does not come from the broker. */
    constructor(env: Env, group: string, n: string, send: (frame: Uint8Array<ArrayBuffer>) => void, give: (frame: ArrayBuffer) => void);
    /** Takes a guest. It is one until it says goodbye, or its lock is released, because it is dead. */
    hello(id: string): void;
    /** Sends a frame of the leader. Only of what it publishes must be known what becomes of it. */
    send(frame: Uint8Array<ArrayBuffer>): void;
    /** Takes a frame from the broker, and returns what of it is the leader's own. */
    take(data: ArrayBuffer): ArrayBuffer | undefined;
    /** Tells all guests that the connection has ended, or that the leader leaves. */
    end(how: NonNullable<Word["end"]>): void;
}
