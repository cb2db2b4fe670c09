import { Backoff } from "./backoff.js";
import { refusal } from "./errors.js";
import { Lasting, onAbort } from "./events.js";
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
export abstract class Member extends Lasting implements Taker {
  /** Number in the running session, 0 for none. A number is never used again. */
  sub = 0;
  /** Counts refusals and holes in a row. */
  readonly pause = new Backoff();
  state: SubscriptionState = "asking";

  declare protected readonly link: Link;
  /** What it is called in sentences. */
  declare protected readonly title: string;

  constructor(link: Link, title: string, signal: AbortSignal | undefined) {
    super();
    this.link = link;
    this.title = title;
    onAbort(signal, this.done, () => this.close());
  }

  /** Returns what to ask the broker for. */
  abstract ask(): Subscribe;

  protected enter(state: SubscriptionState): void {
    if (this.state === "ended" || this.state === state) return;
    this.state = state;
    this.emit("state", state);
  }

  /** The broker has confirmed it. */
  protected confirmed(state: SubscriptionState): void {
    this.enter(state);
    this.begun();
  }

  /** The session has ended. */
  lost(): void {
    this.sub = 0;
    this.enter("asking");
  }

  gap(f: Gap): void {
    if (!this.emit("gap", f)) this.link.warn(`${this.title} has a gap; listen to "gap" to be told:`, f);
  }

  /** The broker has refused it, or ended it. */
  error(f: WireError): void {
    this.lost();
    if (f.retryable || f.code === "unknown_subscription") this.link.rest(this, f.retryAfterMs);
    else this.end(refusal(f));
  }

  /** Ends it, with an error or because it was closed. */
  end(error?: Error): void {
    if (this.state === "ended") return;
    this.link.forget(this);
    this.enter("ended");
    this.over(this.title, error);
    if (error) this.link.warn(`${this.title} has ended:`, error);
  }
}
