import { Backoff } from "./backoff.js";
import { closed, refusal } from "./errors.js";
import { deferred, Emitter } from "./events.js";
import type { Link, Member } from "./member.js";
import { Received } from "./message.js";
import { type Place, write } from "./position.js";
import type {
  Gap,
  Handler,
  Message,
  Subscription as Public,
  SubscribeOptions,
  SubscriptionEvents,
  SubscriptionState,
} from "./types.js";
import type {
  Deliver,
  Gap as GapFrame,
  Progress,
  ServerFrame,
  Subscribe,
  Subscribed,
  WireError,
} from "./wire/frames.js";

/** What is to be handled, in the order of the log: messages, a gap, CaughtUp, or nothing but a place. */
interface Event {
  chunk?: Deliver;
  /** Records of the chunk at or below are not to be handled. */
  above?: number;
  /** Of the chunk, the next record. */
  at?: number;
  size?: number;
  others?: Map<number, number> | undefined;
  gap?: Gap;
  live?: boolean;
  /** Where the subscription is once it was handled. */
  end?: Place | string;
}

const defaultCredit = 256 << 10;

/**
 * A subscription is a cursor on the log. The broker has credit for so many bytes
 * as the queue may hold, and gets back what was handled: a slow handler slows its
 * own delivery, and costs no more memory than that.
 *
 * Two places are kept apart. The cursor is what was received: a delivery that does
 * not begin there is a hole, and the next Subscribe begins from it. `position`
 * follows what was handled, and is what an application keeps.
 */
export class Subscription extends Emitter<SubscriptionEvents> implements Public, Member {
  sub = 0;
  readonly pause = new Backoff();
  state: SubscriptionState = "asking";
  readonly filter: string;
  #link: Link;
  #options: SubscribeOptions;
  #ready = deferred();
  #done = deferred();

  /** What the next Subscribe begins from. A Gap may be on its way to it: see #confirmed. */
  #from: Place | string;
  #placed = false;
  #cursor = new Map<number, number>();
  #kept: Place | string = "";
  #saved: Place | string = "";
  #loading: boolean;

  #queue: Event[] = [];
  #held = 0;
  #owed = 0;
  /** The place behind the message that is being handled. */
  #passing: Place | string | undefined;
  #wake = deferred();
  #looping = false;
  #told = false;
  #error: Error | undefined;

  constructor(link: Link, filter: string, options: SubscribeOptions, handler?: Handler) {
    super();
    this.#link = link;
    this.filter = filter;
    this.#options = options;
    this.#from = options.from ?? "";
    this.#loading = !!options.store;
    options.signal?.addEventListener("abort", () => this.close());
    if (handler) this.#handle(handler);
    if (options.store) this.#load();
    else this.#link.begin(this);
    if (options.signal?.aborted) this.close();
  }

  get position(): string {
    return write(this.#kept);
  }

  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  get done(): Promise<void> {
    return this.#done.promise;
  }

  async #load(): Promise<void> {
    try {
      const kept = await this.#options.store?.load();
      if (kept) this.#place(kept, kept);
    } catch (error) {
      this.end(error as Error);
      return;
    }
    this.#loading = false;
    this.#link.begin(this);
  }

  /** Sets the place that nothing is received before. */
  #place(from: Place | string, kept: Place | string): void {
    this.#from = from;
    this.#kept = this.#saved = kept;
    this.#placed = true;
  }

  ask(): Subscribe | undefined {
    if (this.#loading || this.sub || this.state === "ended") return;
    this.#owed = 0;
    this.#enter("asking");
    const credit = Math.max((this.#options.credit ?? defaultCredit) - this.#held, 0);
    return { ...this.#options, filter: this.filter, from: write(this.#from), credit };
  }

  lost(): void {
    this.sub = 0;
    if (this.state !== "ended") this.#enter("asking");
  }

  refused(): void {}

  #enter(state: SubscriptionState): void {
    if (this.state !== state) this.emit("state", (this.state = state));
  }

  take(f: ServerFrame, size: number): void {
    if (f.deliver) this.#deliver(f.deliver, size);
    else if (f.subscribed) this.#confirmed(f.subscribed);
    else if (f.progress) this.#progress(f.progress);
    else if (f.caughtUp) this.#push({ live: true });
    else if (f.gap) this.#gap(f.gap);
    else if (f.error) this.#refusal(f.error);
  }

  /**
   * Takes Subscribed. Where the broker answers a position with one that is not
   * resumed, the Gap comes behind it: until then the old place stays, or a
   * connection that is lost in between would lose the gap in silence.
   */
  #confirmed(f: Subscribed): void {
    this.#cursor = new Map(f.cursors.map((c) => [c.partition, c.offset]));
    if (!this.#placed && !/^p[0-9a-z]+-/.test(this.#options.from ?? "")) this.#place(f.position, f.position);
    else if (!this.#placed) this.#place(this.#from, this.#from);
    this.#enter("behind");
    this.#ready.resolve();
  }

  #others(partition: number): Map<number, number> | undefined {
    if (this.#cursor.size < 2) return;
    const others = new Map(this.#cursor);
    others.delete(partition);
    return others;
  }

  #deliver(f: Deliver, size: number): void {
    if (!f.term) {
      // Ephemeral messages are nowhere in the log, and move no cursor.
      this.#held += size;
      this.#push({ chunk: f, size });
      return;
    }
    const { term, partition, through } = f;
    const above = this.#cursor.get(partition) ?? 0;
    if (f.after > above) {
      this.#link.release(this);
      if (this.pause.failures++) this.#link.rest(this);
      else this.#link.begin(this);
      return;
    }
    this.pause.failures = 0;
    if (through <= above || !f.records.length) this.#pass(size);
    if (through <= above) return;
    const others = this.#others(partition);
    const end = (this.#from = { term, partition, offset: through, others });
    this.#cursor.set(partition, through);
    if (!f.records.length) return this.#push({ end });
    this.#held += size;
    this.#push({ chunk: f, above, size, others, end });
  }

  #progress({ term, partition, through }: Progress): void {
    if (through <= (this.#cursor.get(partition) ?? 0)) return;
    this.#from = { term, partition, offset: through, others: this.#others(partition) };
    this.#cursor.set(partition, through);
    this.#push({ end: this.#from });
  }

  #gap({ reason, after, through, missed, position, offset, partition }: GapFrame): void {
    const others = this.#others(partition);
    const match = /^p([0-9a-z]+)-/.exec(position);
    this.#from = match?.[1] && others ? { term: match[1], partition, offset, others } : position;
    this.#cursor.set(partition, offset);
    this.#push({ gap: { reason, after, through, missed, position: write(this.#from) }, end: this.#from });
  }

  #refusal(f: WireError): void {
    this.sub = 0;
    const error = refusal(f);
    if (f.retryable || f.code === "unknown_subscription") {
      this.#link.rest(this, f.retryAfterMs);
      this.#enter("asking");
    } else {
      this.end(error);
    }
  }

  #push(e: Event): void {
    const last = this.#queue.at(-1);
    // A program that is not reading would collect them.
    if (last?.end && !last.chunk && !last.gap && e.end && !e.chunk && !e.gap) last.end = e.end;
    else this.#queue.push(e);
    this.#wake.resolve();
  }

  /** Gives the broker credit for a frame that was handled, with many others in one. */
  #pass(size: number): void {
    this.#owed += size;
    const { credit = defaultCredit } = this.#options;
    if (!this.sub || this.#owed * 2 < credit) return;
    this.#link.send({ flow: { sub: this.sub, credit: this.#owed } });
    this.#owed = 0;
  }

  /** Reports whether it has ended and everything was handled. */
  get #over(): boolean {
    return this.state === "ended" && !this.#queue.length;
  }

  async #more(): Promise<void> {
    await this.#wake.promise;
    this.#wake = deferred();
  }

  /** Returns the next message, and handles everything before it that is none. */
  #next(): Message | undefined {
    for (let e = this.#queue[0]; e; e = this.#queue[0]) {
      const { chunk } = e;
      while (chunk && (e.at ??= 0) < chunk.records.length) {
        const record = chunk.records[e.at++];
        if (!record || (chunk.term && record.offset <= (e.above ?? 0))) continue;
        if (!chunk.term) return new Received(record, "");
        const { term, partition } = chunk;
        this.#passing = { term, partition, offset: record.offset, others: e.others };
        return new Received(record, { term, partition, offset: record.offset });
      }
      this.#queue.shift();
      if (e.end) this.#kept = e.end;
      if (e.size) {
        this.#held -= e.size;
        this.#pass(e.size);
      }
      this.#tell(e);
    }
    return;
  }

  #tell({ gap, live }: Event): void {
    if (gap && !this.emit("gap", gap)) {
      this.#link.warn(`messages of ${this.filter} are gone (${gap.reason}); listen to "gap" to be told`, gap);
    }
    if (!live) return;
    if (this.sub) this.#enter("live");
    if (!this.#told) this.emit("caughtup", undefined);
    this.#told = true;
  }

  /** Notes that the message before was handled. */
  #passed(): void {
    if (this.#passing) this.#kept = this.#passing;
    this.#passing = undefined;
  }

  #save(): void {
    if (this.#kept === this.#saved) return;
    this.#saved = this.#kept;
    try {
      const saving = this.#options.store?.save(this.position);
      saving?.catch((error) => this.#link.warn("the position could not be kept:", error));
    } catch (error) {
      this.#link.warn("the position could not be kept:", error);
    }
  }

  async #handle(handler: Handler): Promise<void> {
    this.#looping = true;
    try {
      for (;;) {
        const m = this.#next();
        if (m) {
          const result = handler(m) as PromiseLike<unknown> | undefined;
          if (typeof result?.then === "function") {
            await result;
            this.#passed();
            this.#save();
          } else {
            this.#passed();
          }
        } else {
          this.#save();
          if (this.#over) break;
          await this.#more();
        }
      }
      if (this.#error) this.#link.warn(`the subscription to ${this.filter} has ended:`, this.#error);
    } catch (error) {
      this.#link.warn(`the subscription to ${this.filter} has ended, since its handler failed:`, error);
      this.end(error as Error);
    }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Message, void, undefined> {
    if (this.#looping)
      throw new Error("a subscription has one handler or one loop: subscribe again for another");
    this.#looping = true;
    try {
      for (;;) {
        const m = this.#next();
        if (m) {
          yield m;
          this.#passed();
          if (this.#options.store) this.#save();
        } else {
          this.#save();
          if (this.#over) break;
          await this.#more();
        }
      }
      if (this.#error) throw this.#error;
    } finally {
      this.end();
    }
  }
  end(error?: Error): void {
    if (this.state === "ended") return;
    this.#error = error;
    if (!error) this.#queue = [];
    this.#link.forget(this);
    this.#enter("ended");
    this.#wake.resolve();
    this.#ready.reject(error ?? closed("subscription"));
    if (error) this.#done.reject(error);
    else this.#done.resolve();
  }

  async close(): Promise<void> {
    this.end();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
