/** What the broker, or the client itself, refuses. */
export class TidewireError extends Error {
    name = "TidewireError";
    /**
     * @param code For programs: one of docs/protocol.md, or of the client's own, which
     * stand in the table of README.md.
     * @param message A sentence for people that says what to change.
     * @param retryable The same may succeed later.
     * @param retryAfterMs Wait at least this long; 0 if unknown.
     */
    constructor(code, message, retryable = false, retryAfterMs = 0) {
        super(message);
        this.code = code;
        this.retryable = retryable;
        this.retryAfterMs = retryAfterMs;
    }
}
/** What the broker has refused. */
export const refusal = (e) => new TidewireError(e.code, e.message, e.retryable, e.retryAfterMs);
export const closed = (what) => new TidewireError("closed", `${what} was closed`);
