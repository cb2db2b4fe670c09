import type { WireError } from "./wire/frames.js";

/** What the broker, or the client itself, refuses. */
export class TidewireError extends Error {
  override readonly name = "TidewireError";
  declare readonly code: string;
  declare readonly retryable: boolean;
  declare readonly retryAfterMs: number;

  /**
   * @param code For programs: one of docs/protocol.md, or of the client's own, which
   * stand in the table of README.md.
   * @param message A sentence for people that says what to change.
   * @param retryable The same may succeed later.
   * @param retryAfterMs Wait at least this long; 0 if unknown.
   */
  constructor(code: string, message: string, retryable = false, retryAfterMs = 0) {
    super(message);
    this.code = code;
    this.retryable = retryable;
    this.retryAfterMs = retryAfterMs;
  }
}

/** What the broker has refused. */
export const refusal = (e: WireError): TidewireError =>
  new TidewireError(e.code, e.message, e.retryable, e.retryAfterMs);

export const closed = (what: string): TidewireError => new TidewireError("closed", `${what} was closed`);
