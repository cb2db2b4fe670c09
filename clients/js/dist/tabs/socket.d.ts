import type { WebSocketClass } from "../types.js";
import { type Env } from "./hub.js";
/** What the sockets of one client share. */
export interface Tab {
    env: Env;
    /** The class of real connections. */
    Real: WebSocketClass;
    /** Says who belongs together, by what a connection is made with. */
    group(protocols: string[]): Promise<string>;
    /** Resolves when the page is not frozen. */
    awake: Promise<unknown>;
    /** A leader that says nothing for so long is overthrown, in milliseconds. */
    patience: number;
    /** The newest socket. */
    socket?: TabSocket;
}
type Listener = ((event: never) => void) | null;
/**
 * Looks like a WebSocket. The tabs of a group elect one of theirs as the leader, who has
 * the real one; those of the others are guests of its session. The client above
 * does not know: when the leader is gone its connection is lost, it comes back at once,
 * and goes on from its positions and with its unanswered publishes, as it always does.
 *
 *                     lock granted                   closes, client leaves, frozen, lock stolen
 *     asking ------------------------------> leading -----------------+
 *      |  ^ |                                                         v
 *      |  | +-- the leader's connection has failed ---------------> closed
 *      |  |                                                           ^
 *      |  | the leader is gone                                        |
 *      |  +------ (asks the next one)                                 |
 *      |                                                              |
 *      | the leader's session is open         closes, leader is gone  |
 *      +------------------------------> guest ------------------------+
 *
 * Whoever asks waits for the lock of the group and has said hello; no answer for
 * `patience` means that the leader is frozen, or hangs, and its lock is stolen. The lock
 * is held as long as the real connection is, so a leader's death, of whatever
 * kind, makes the next one. A leader is known by a number, which is in all that is said:
 * what a former one says when it wakes is not heeded, and it then learns that it is none.
 */
export declare class TabSocket {
    #private;
    binaryType: string;
    readyState: number;
    onopen: Listener;
    onmessage: Listener;
    onclose: Listener;
    constructor(tab: Tab, url: string, protocols: string[]);
    /** Asks the leader for a sign of life. */
    probe(): void;
    send(frame: Uint8Array<ArrayBuffer>): void;
    /** The page is about to be frozen: others go on without it. */
    freeze(): void;
    close(): void;
}
export {};
