import type { Backoff } from "./backoff.js";
import type { ClientFrame, ServerFrame, Subscribe, WireError } from "./wire/frames.js";

/** What a session restores: a subscription, or the membership in a consumer. */
export interface Member {
  /** Number in the running session, 0 for none. A number is never used again. */
  sub: number;
  /** Counts refusals and holes in a row. */
  readonly pause: Backoff;
  /** What to ask the broker for; undefined if nothing is to be asked for now. */
  ask(): Subscribe | undefined;
  /** The session has ended. */
  lost(): void;
  /** Takes a frame that concerns it; `size` is that of the frame in bytes. */
  take(frame: ServerFrame, size: number): void;
  /** Takes the refusal of a settlement. */
  refused(ref: number, error: WireError): void;
  /** Ends it, with an error or because it was closed. */
  end(error?: Error): void;
}

/** What a member uses of its client. */
export interface Link {
  readonly open: boolean;
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
