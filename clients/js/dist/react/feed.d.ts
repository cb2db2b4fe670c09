import type { Client, Gap, Handler, Message, SubscribeOptions } from "../types.js";
/** What is made of the messages. */
export type Form = "list" | "reduce" | "handler";
/** What a component asks for in its newest render. */
export interface Request {
    form: Form;
    filter: string | null | undefined | false;
    options: SubscribeOptions;
    keep: number;
    reduce?: (value: never, m: Message) => unknown;
    initial?: unknown;
    handler?: Handler;
}
/** What of a request begins another subscription when it changes: values, and not the identity of objects and functions. */
export declare function keyOf(r: Request): string;
/** What a component sees. It never changes; another one takes its place. */
export interface Snapshot {
    readonly messages: readonly Message[];
    readonly last: Message | undefined;
    readonly value: unknown;
    readonly state: string;
    readonly error: Error | undefined;
    readonly gap: Gap | undefined;
}
/**
 * A subscription as a store that a component listens to. It subscribes with the
 * first listener, and closes the subscription when nobody has listened for a
 * moment: StrictMode takes the listener away and gives it back at once, and that
 * must neither lose a message nor bring one twice. Who listens again later (a
 * hidden part of the page that is shown again) goes on from the position.
 */
export declare class Feed {
    #private;
    readonly client: Client | undefined;
    readonly key: string;
    constructor(client: Client | undefined, key: string, request: Request);
    readonly current: () => Snapshot;
    /** What the server shows, and the browser before it has subscribed. */
    readonly initial: () => Snapshot;
    readonly listen: (listener: () => void) => (() => void);
    /** Takes over the functions of the newest render, after it was committed. */
    renew(request: Request): void;
}
