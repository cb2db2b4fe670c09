import { Backoff } from "./backoff.js";
import { refusal, TidewireError } from "./errors.js";
import { type Deferred, deferred } from "./events.js";
import { write } from "./position.js";
import type { Data, OutboxEntry, OutboxOptions, Published, PublishOptions } from "./types.js";
import type { Published as Answers, Limits, Publish, WireError, WireMessage } from "./wire/frames.js";

/** A Publish frame of several messages is not larger: what comes behind it would wait. */
const maxBatch = 256 << 10;

/** Room in a frame for what is not a message. */
const margin = 64;

/** Refusals that say for certain that nothing was stored. */
const notStored = ["out_of_order", "storage_full", "overloaded", "rate_limited"];

const utf8 = new TextEncoder();
const prefix = (): string =>
  [...crypto.getRandomValues(new Uint8Array(12))].map((b) => b.toString(36).padStart(2, "0")).join("");

interface Item {
  message: Partial<WireMessage> & { topic: string; id: string; payload: Uint8Array };
  size: number;
  answer: Deferred<Published>;
  /** What the store has; undefined if it has nothing. */
  kept: OutboxEntry | undefined;
  /** Number of the attempt that is under way; 0 if none is. */
  ref: number;
  /** Number of the first message of its frame. */
  frame: number;
  sentAt: number;
  /** First attempt of which it is not known whether it was stored; 0 if there is none. */
  first: number;
  /** Nobody waits for it: it is not repeated. */
  abandoned?: boolean;
  settled?: boolean;
  /** An earlier page has published it. */
  inherited?: boolean;
}

/**
 * Keeps published messages until they are answered, in the order of publishing.
 *
 * All that is unanswered is one row: what is in flight first, then what was not sent
 * yet. After a lost connection or a retryable refusal the row is sent again from its
 * beginning, so nothing new overtakes anything old. The naive way, to send again each
 * message that was refused, reorders: while it is on its way again, later ones are
 * accepted.
 */
export class Outbox {
  /** How many messages are not settled. */
  count = 0;
  #row: Item[] = [];
  #next = 0;
  #bytes = 0;
  #flight = new Map<number, Item>();
  #ref = 0;
  #held = false;
  #resume = false;
  #after = 0;
  #pause = new Backoff();
  #options: OutboxOptions;
  #loading: boolean;
  #ids = prefix();
  #made = 0;
  #refused: (topic: string, id: string, error: Error) => void;

  /**
   * @param pump Called when there may be something to send.
   * @param refused Told of messages of an earlier page that the broker refuses.
   */
  constructor(
    options: OutboxOptions,
    readonly pump: () => void,
    refused: (topic: string, id: string, error: Error) => void,
  ) {
    this.#options = options;
    this.#refused = refused;
    this.#loading = !!options.store;
    options.store?.load().then(
      (entries) => this.#inherit(entries),
      (error) => {
        console.error("tidewire: what an earlier page had published could not be read:", error);
        this.#inherit([]);
      },
    );
  }

  /** Reports whether an answer is due. */
  get waiting(): boolean {
    return this.#flight.size > 0;
  }

  #inherit(entries: OutboxEntry[]): void {
    const items = entries.map((e) => {
      const item = this.#item(e.topic, e.id, e.payload, e);
      item.kept = e;
      item.first = e.first;
      item.inherited = true;
      item.answer.promise.catch((error) => this.#refused(e.topic, e.id, error));
      return item;
    });
    this.#row.unshift(...items);
    this.#loading = false;
    this.pump();
  }

  #item(topic: string, id: string, payload: Uint8Array, o: PublishOptions | OutboxEntry): Item {
    const headers = Object.entries(o.headers ?? {}).map(([name, value]) => ({ name, value }));
    const expires = +(o.expires ?? 0);
    const message = {
      topic,
      id,
      payload,
      headers,
      key: o.key,
      contentType: o.contentType,
      expiresAt: expires * 1000,
    };
    const text = topic + id + o.key + o.contentType + JSON.stringify(headers);
    const size = payload.length + 3 * text.length + margin;
    this.count++;
    this.#bytes += size;
    return { message, size, answer: deferred(), kept: undefined, ref: 0, frame: 0, sentAt: 0, first: 0 };
  }

  /** Takes a message. The promise has its outcome. */
  add(topic: string, data: Data, o: PublishOptions): Promise<Published> {
    const { messages = 1000, bytes = 8 << 20, store } = this.#options;
    if (this.count && (this.count >= messages || this.#bytes >= bytes)) {
      throw new TidewireError(
        "outbox_full",
        `${this.count} published messages wait for the broker: wait for some of them before publishing more, or raise outbox.messages or outbox.bytes`,
        true,
      );
    }
    o.signal?.throwIfAborted();
    const [payload, contentType] = encodeData(data);
    const now = Date.now();
    const expires = typeof o.expires === "number" ? now + o.expires : o.expires && +o.expires;
    const id = o.id ?? `${this.#ids}-${(this.#made++).toString(36)}`;
    const options = { contentType, ...o, expires } as PublishOptions & { expires?: number };
    const item = this.#item(topic, id, payload, options);
    item.message.ephemeral = o.ephemeral;
    this.#row.push(item);
    if (store && !o.ephemeral) {
      const { key, headers, contentType } = options;
      store.add((item.kept = { topic, id, payload, contentType, key, headers, expires, first: now }));
    }
    if (o.signal) {
      const abort = () => this.#withdraw(item, o.signal?.reason);
      o.signal.addEventListener("abort", abort);
      const off = () => o.signal?.removeEventListener("abort", abort);
      item.answer.promise.then(off, off);
    }
    this.pump();
    return item.answer.promise;
  }

  #settle(item: Item, error?: unknown, result?: Published): void {
    if (item.settled) return;
    item.settled = true;
    this.count--;
    this.#bytes -= item.size;
    if (error) item.answer.reject(error);
    else item.answer.resolve(result as Published);
    if (item.kept) this.#options.store?.remove(item.kept);
    let done = 0;
    while (this.#row[done]?.settled) done++;
    this.#row.splice(0, done);
    this.#next = Math.max(this.#next - done, 0);
  }

  #withdraw(item: Item, reason: unknown): void {
    if (item.ref) {
      item.abandoned = true;
      item.answer.reject(reason);
    } else {
      this.#settle(item, reason);
    }
  }

  /** Returns the next frame, as many messages as may be in flight; undefined if there are none. */
  batch(limits: Partial<Limits>): Publish | undefined {
    if (this.#held || this.#loading) return;
    const room = Math.min((limits.inFlight || 256) - this.#flight.size, limits.publishMessages || 1000);
    const most = (limits.frameBytes || 1 << 20) - margin;
    const frame = this.#ref + 1;
    const messages: Partial<WireMessage>[] = [];
    const now = Date.now();
    let oldest = 0;
    let size = 0;
    for (
      let item = this.#peek(limits, most);
      item && messages.length < room;
      item = this.#peek(limits, most)
    ) {
      // The age holds for the whole frame, so repeats go apart from the others.
      if (size && (size + item.size > Math.min(maxBatch, most) || !item.first !== !oldest)) break;
      oldest = oldest && item.first ? Math.min(oldest, item.first) : item.first;
      this.#next++;
      item.ref = ++this.#ref;
      item.frame = frame;
      item.sentAt = now;
      this.#flight.set(item.ref, item);
      messages.push(item.message);
      size += item.size;
    }
    if (!size) return;
    const resume = this.#resume;
    this.#resume = false;
    return { ref: frame, messages, resume, repeatAgeMs: oldest && Math.max(now - oldest, 1) };
  }

  /** Returns the next message to send. One that the broker would not take is refused here: its frame would cost the connection. */
  #peek(limits: Partial<Limits>, most: number): Item | undefined {
    const bound = limits.payloadBytes || most;
    for (let item = this.#row[this.#next]; item; item = this.#row[this.#next]) {
      const bytes = item.message.payload.length;
      if (!item.settled && bytes <= bound && item.size <= most) return item;
      this.#next++;
      this.#settle(
        item,
        new TidewireError(
          "payload_too_large",
          `the payload has ${bytes} bytes, at most ${bound} are allowed`,
        ),
      );
    }
    return;
  }

  /** Takes answers. It returns how long to pause before `again`, if that is due. */
  answered(f: Answers): number | undefined {
    for (const { ref, error, duplicate, term, partition, offset } of f.results) {
      this.#answer(ref, error, duplicate, offset ? write({ term: term || f.term, partition, offset }) : "");
    }
    return this.#hold();
  }

  /** Takes the refusal of a whole frame. */
  refusedFrame(frame: number, error: WireError): number | undefined {
    for (const item of [...this.#flight.values()]) {
      if (item.frame === frame) this.#answer(item.ref, error);
    }
    return this.#hold();
  }

  #answer(ref: number, error: WireError | undefined, duplicate = false, position = ""): void {
    const item = this.#flight.get(ref);
    if (!item) return;
    this.#flight.delete(ref);
    item.ref = 0;
    const { topic, id } = item.message;
    if (!error) {
      this.#pause.failures = 0;
      this.#settle(item, undefined, { topic, id, position, duplicate, stored: !!position });
    } else if (!error.retryable) {
      this.#settle(item, refusal(error));
    } else {
      this.#held = true;
      this.#after = Math.max(this.#after, error.retryAfterMs);
      if (!notStored.includes(error.code)) item.first ||= item.sentAt;
      if (item.abandoned) this.#settle(item, refusal(error));
    }
  }

  #hold(): number | undefined {
    if (!this.#held || this.#flight.size) return;
    const pause = Math.max(this.#pause.next(), this.#after);
    this.#after = 0;
    return pause;
  }

  /** Begins the row anew after a refusal. */
  again(): void {
    this.#held = false;
    this.#resume = true;
    this.#next = 0;
    this.pump();
  }

  /** Begins the row anew on another connection. What was in flight may have been stored. */
  lost(): void {
    this.#held = this.#resume = false;
    this.#next = this.#after = 0;
    const flight = [...this.#flight.values()];
    this.#flight.clear();
    for (const item of flight) {
      item.ref = 0;
      item.first ||= item.sentAt;
      if (item.abandoned) this.#settle(item, new Error());
    }
  }

  /** Gives up on everything; what a store has stays there. */
  end(error: Error): void {
    for (const item of this.#row.splice(0)) {
      item.kept = undefined;
      if (item.inherited) continue;
      const sent = item.ref || item.first;
      this.#settle(
        item,
        sent
          ? new TidewireError("outcome_unknown", `the message may or may not be stored: ${error.message}`)
          : error,
      );
    }
  }
}

function encodeData(data: Data): [Uint8Array, string?] {
  if (typeof data === "string") return [utf8.encode(data), "text/plain"];
  if (data instanceof ArrayBuffer) data = new Uint8Array(data);
  if (data instanceof Uint8Array) return [data.slice()];
  const text = JSON.stringify(data);
  if (text === undefined) throw new TypeError("there is nothing to publish: data is undefined or a function");
  return [utf8.encode(text), "application/json"];
}
