import { TidewireError } from "./errors.js";
import type { Deferred } from "./events.js";
import type { Acked, ClientFrame, OffsetRange } from "./wire/frames.js";

export type Kind = "ack" | "nack" | "extend" | "reject";

/** Where a delivery is, and of which generation it was. */
export interface Key {
  term: string;
  partition: number;
  offset: number;
  generation: number;
}

/** What the application said of one delivery, until the broker has it. */
export interface Settlement extends Key {
  kind: Kind;
  /** Of nack and extend, milliseconds. */
  delay: number | undefined;
  reason: string | undefined;
  /** It may have reached the broker already. */
  again?: boolean;
  done: Deferred<void>;
}

/** Messages in one frame. */
const maxRanges = 10_000;

/** Reports whether both can go in one frame. */
const together = (a: Settlement, b: Settlement): boolean =>
  a.kind === b.kind &&
  a.generation === b.generation &&
  a.term === b.term &&
  a.delay === b.delay &&
  a.reason === b.reason;

/**
 * Keeps what was said of deliveries until the broker has it on disk. While frames
 * are unanswered the next ones gather, so a slow disk makes them larger, not more.
 * What is not answered when the connection is lost is sent again over the next one:
 * an ack and a reject say what holds for ever, and twice is once. A nack is not: by
 * then it would be about another attempt.
 */
export class Settlements {
  #queue: Settlement[] = [];
  #sent = new Map<number, Settlement[]>();
  #ref = 0;
  #held = false;

  get empty(): boolean {
    return !this.#queue.length && !this.#sent.size;
  }

  add(s: Settlement): void {
    this.#queue.push(s);
  }

  /** Returns the frames to send. */
  frames(sub: number): ClientFrame[] {
    const frames: ClientFrame[] = [];
    if (this.#held || this.#sent.size) return frames;
    while (this.#queue.length) {
      const first = this.#queue[0] as Settlement;
      const rest: Settlement[] = [];
      const items: Settlement[] = [];
      for (const s of this.#queue) (items.length < maxRanges && together(first, s) ? items : rest).push(s);
      this.#queue = rest;
      const ref = ++this.#ref;
      this.#sent.set(ref, items);
      const { kind, generation, term, delay, reason } = first;
      // One range for each: of several in one the broker does not tell that it does not know one.
      const ranges: Partial<OffsetRange>[] = items.map(({ partition, offset }) => ({
        partition,
        from: offset,
      }));
      frames.push({
        [kind]: {
          ref,
          sub,
          generation,
          term,
          ranges,
          confirm: true,
          reason,
          [kind === "nack" ? "delayMs" : "byMs"]: delay,
        },
      });
    }
    return frames;
  }

  /** Takes an answer. `forgotten` is told of what the broker does not know that it delivered. */
  answered(f: Acked, forgotten: (s: Settlement) => boolean): void {
    const items = this.#sent.get(f.ref) ?? [];
    this.#sent.delete(f.ref);
    for (const s of items) {
      const refused = f.refused.find(
        (r) => r.partition === s.partition && r.from <= s.offset && s.offset <= (r.through || r.from),
      );
      if (!refused || (refused.code === "not_pending" && s.again)) s.done.resolve();
      else if (refused.code !== "never_delivered" || !forgotten(s)) {
        s.done.reject(
          new TidewireError(refused.code, `the broker did not take the ${s.kind}: ${meaning(refused.code)}`),
        );
      }
    }
  }

  /** Takes the refusal of a whole frame. It reports whether to send it again after a pause. */
  refused(ref: number, error: TidewireError): boolean {
    const items = this.#sent.get(ref) ?? [];
    this.#sent.delete(ref);
    if (error.retryable || error.code === "unknown_subscription") {
      this.#queue.unshift(...items);
      return (this.#held = true);
    }
    for (const s of items) s.done.reject(error);
    return false;
  }

  release(): void {
    this.#held = false;
  }

  /** The session has ended. */
  lost(): void {
    const again: Settlement[] = [];
    for (const s of [...this.#sent.values()].flat()) {
      s.again = true;
      if (s.kind === "ack" || s.kind === "reject") again.push(s);
      else s.done.resolve();
    }
    this.#sent.clear();
    this.#held = false;
    this.#queue.unshift(...again);
  }

  end(error: Error): void {
    for (const s of [...this.#queue, ...[...this.#sent.values()].flat()]) s.done.reject(error);
    this.#queue = [];
    this.#sent.clear();
  }
}

function meaning(code: string): string {
  if (code === "fenced")
    return "the consumer was taken over or moved since, and the message may be with another member by now";
  return code === "not_pending"
    ? "the message was settled before"
    : "the consumer does not know that it was delivered";
}
