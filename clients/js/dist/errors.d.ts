import type { WireError } from "./wire/frames.js";
/** What the broker, or the client itself, refuses. */
export declare class TidewireError extends Error {
    readonly name = "TidewireError";
    readonly code: string;
    readonly retryable: boolean;
    readonly retryAfterMs: number;
    /**
     * @param code For programs: one of docs/protocol.md, or of the client's own, which
     * stand in the table of README.md.
     * @param message A sentence for people that says what to change.
     * @param retryable The same may succeed later.
     * @param retryAfterMs Wait at least this long; 0 if unknown.
     */
    constructor(code: string, message: string, retryable?: boolean, retryAfterMs?: number);
}
/** What the broker has refused. */
export declare const refusal: (e: WireError) => TidewireError;
export declare const closed: (what: string) => TidewireError;
