import type { WireError } from "./wire/frames.js";
/** What the broker, or the client itself, refuses. */
export declare class TidewireError extends Error {
    readonly name = "TidewireError";
    readonly code: string;
    readonly retryable: boolean;
    readonly retryAfterMs: number;
    /**
     * @param code For programs: one of docs/protocol.md, or of the client's own:
     * `closed` (the client or subscription was closed), `outbox_full` (too much is
     * published and not yet answered), `connection_lost`, `no_websocket` and
     * `bad_url`.
     * @param message A sentence for people that says what to change.
     * @param retryable The same may succeed later.
     * @param retryAfterMs Wait at least this long; 0 if unknown.
     */
    constructor(code: string, message: string, retryable?: boolean, retryAfterMs?: number);
}
/** What the broker has refused. */
export declare const refusal: (e: WireError) => TidewireError;
export declare const closed: (what: string) => TidewireError;
