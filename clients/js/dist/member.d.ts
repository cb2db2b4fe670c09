import { Backoff } from "./backoff.js";
import { Lasting } from "./events.js";
import type { SubscriptionState } from "./types.js";
import type { ClientFrame, Gap, ServerFrame, Subscribe, WireError } from "./wire/frames.js";
/** What outbox and members use of their client. */
export interface Link {
    /** Sends what waits in the outbox, and ends a client that is being closed when nothing is left to be done. */
    pump(): void;
    emit(event: string, value?: unknown): boolean;
    /** Asks the broker for a member, if there is a session; else the next one does. */
    begin(m: Member): void;
    /** Takes a member back from the broker. */
    release(m: Member): void;
    /** Begins a member again after a pause. */
    rest(m: Member, atLeast?: number): void;
    /** Forgets a member for good. */
    forget(m: Member): void;
    send(frame: ClientFrame): void;
    /** Calls f after a pause, unless the session has ended by then. */
    later(ms: number, f: () => void): void;
    warn(...what: unknown[]): void;
}
/**
 * Who takes frames has a method for each kind, with the name that the frame has on
 * the wire. `size` is that of the frame in bytes.
 */
export type Taker = {
    [K in keyof ServerFrame]?: (value: NonNullable<ServerFrame[K]>, size: number) => void;
};
/** What a session restores: a subscription, or the membership in a consumer. */
export declare abstract class Member extends Lasting implements Taker {
    /** Number in the running session, 0 for none. A number is never used again. */
    sub: number;
    /** Counts refusals and holes in a row. */
    readonly pause: Backoff;
    state: SubscriptionState;
    protected readonly link: Link;
    /** What it is called in sentences. */
    protected readonly title: string;
    constructor(link: Link, title: string, signal: AbortSignal | undefined);
    /** Returns what to ask the broker for. */
    abstract ask(): Subscribe;
    protected enter(state: SubscriptionState): void;
    /** The broker has confirmed it. */
    protected confirmed(state: SubscriptionState): void;
    /** The session has ended. */
    lost(): void;
    gap(f: Gap): void;
    /** The broker has refused it, or ended it. */
    error(f: WireError): void;
    /** Ends it, with an error or because it was closed. */
    end(error?: Error): void;
}
