import { Backoff } from "./backoff.js";
import { closed, refusal, TidewireError } from "./errors.js";
import { deferred, Emitter } from "./events.js";
import type { Link, Member } from "./member.js";
import { Received } from "./message.js";
import { write } from "./position.js";
import { type Key, type Kind, type Settlement, Settlements } from "./settlement.js";
import type {
  ConsumeOptions,
  ConsumerEvents,
  Consumer as Public,
  Delivery as PublicDelivery,
  SubscriptionState,
  Worker,
} from "./types.js";
import type { Deliver, ServerFrame, Subscribe, WireError, WireMessage } from "./wire/frames.js";

/** How many messages are remembered that the broker may have forgotten to have delivered. */
const maxOwed = 10_000;

/** What a delivery says of itself, for the consumer to tell the broker. */
type Say = (d: Delivery, kind: Kind, delay?: number, reason?: string) => Promise<void>;

class Delivery extends Received implements PublicDelivery {
  settled = false;
  started = false;
  /** It came again after it was settled. */
  again = false;
  readonly generation: number;
  readonly key_: Key;
  #say: Say;

  constructor(
    wire: WireMessage,
    key: Key,
    public attempt: number,
    say: Say,
  ) {
    super(wire, key);
    this.generation = key.generation;
    this.key_ = key;
    this.#say = say;
  }

  ack(): Promise<void> {
    return this.#say(this, "ack");
  }

  nack(options?: { delay?: number }): Promise<void> {
    return this.#say(this, "nack", options?.delay);
  }

  extend(by?: number): Promise<void> {
    return this.#say(this, "extend", by);
  }

  reject(reason?: string): Promise<void> {
    return this.#say(this, "reject", undefined, reason);
  }
}

/**
 * This client's membership in a consumer. Its messages wait in a queue for a free
 * worker; `#live` has each of them until the answer to its settlement is there, so
 * that one which the broker delivers again over another connection is not worked on
 * twice.
 */
export class Consumer extends Emitter<ConsumerEvents> implements Public, Member {
  sub = 0;
  readonly pause = new Backoff();
  state: SubscriptionState = "asking";
  readonly name: string;
  #link: Link;
  #filter: string;
  #options: ConsumeOptions;
  #worker: Worker;
  #ready = deferred();
  #done = deferred();
  #queue: Delivery[] = [];
  #running = 0;
  #live = new Map<string, Delivery>();
  /** What was settled here and the broker has forgotten to have delivered: it will deliver it again. */
  #owed = new Map<string, Settlement>();
  #settlements = new Settlements();
  #flushing = false;
  #draining = false;
  #keeper: ReturnType<typeof setInterval> | undefined;

  constructor(link: Link, name: string, filter: string, worker: Worker, options: ConsumeOptions) {
    super();
    this.#link = link;
    this.name = name;
    this.#filter = filter;
    this.#worker = worker;
    this.#options = options;
    options.signal?.addEventListener("abort", () => this.close());
    link.begin(this);
    if (options.signal?.aborted) this.close();
  }

  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  get done(): Promise<void> {
    return this.#done.promise;
  }

  ask(): Subscribe | undefined {
    if (this.sub || this.state === "ended") return;
    const { concurrency, window = concurrency ?? 1 } = this.#options;
    return { ...this.#options, filter: this.#filter, consumer: this.name, window };
  }

  #enter(state: SubscriptionState): void {
    if (this.state !== state) this.emit("state", (this.state = state));
  }

  lost(): void {
    this.sub = 0;
    this.#settlements.lost();
    if (this.state !== "ended") this.#enter("asking");
    this.#check();
  }

  take({ deliver, subscribed, acked, gap, error }: ServerFrame): void {
    if (deliver) this.#deliver(deliver);
    else if (subscribed) {
      this.pause.failures = 0;
      this.#enter("live");
      this.#ready.resolve();
      this.#flush();
    } else if (acked?.error) this.refused(acked.ref, acked.error);
    else if (acked) {
      this.#settlements.answered(acked, (s) => this.#forgotten(s));
      this.#flush();
      this.#check();
    } else if (gap) {
      if (!this.emit("gap", gap))
        this.#link.warn(`messages of the consumer ${this.name} are gone (${gap.reason})`, gap);
    } else if (error) {
      this.lost();
      if (error.retryable || error.code === "unknown_subscription") this.#link.rest(this, error.retryAfterMs);
      else this.end(refusal(error));
    }
  }

  /**
   * Takes that the broker does not know that it delivered what is settled here: it
   * crashed before it had written that down, and delivers it again, to this client as
   * a rule. Then it is not to be worked on for a second time, but settled again.
   */
  #forgotten(s: Settlement): boolean {
    const place = write(s);
    const d = this.#live.get(place);
    if (d?.again) {
      d.again = false;
      this.#settlements.add(s);
    } else if (this.#owed.size < maxOwed) {
      this.#owed.set(place, s);
    } else {
      return false;
    }
    return true;
  }

  refused(ref: number, error: WireError): void {
    if (!this.#settlements.refused(ref, refusal(error))) return this.#check();
    this.#link.later(Math.max(this.pause.next(), error.retryAfterMs), () => {
      this.#settlements.release();
      this.#flush();
    });
  }

  #deliver({ term, partition, generation, records, attempts }: Deliver): void {
    records.forEach((record, i) => {
      const key = { term, partition, offset: record.offset, generation };
      const place = write(key);
      const attempt = attempts[i] ?? 1;
      const owed = this.#owed.get(place);
      const had = this.#live.get(place);
      if (owed) {
        this.#owed.delete(place);
        this.#settlements.add({ ...owed, generation });
      } else if (had?.generation === generation) {
        if (!had.started) had.attempt = attempt;
        had.again = had.settled; // what is said of it, or will be, holds
      } else {
        const d = new Delivery(record, key, attempt, this.#say);
        this.#live.set(place, d);
        this.#queue.push(d);
      }
    });
    this.#flush();
    this.#keep();
    this.#work();
  }

  #work(): void {
    const { concurrency = 1 } = this.#options;
    while (this.#running < concurrency && !this.#draining) {
      const d = this.#queue.shift();
      if (!d) break;
      this.#running++;
      this.#run(d);
    }
    this.#check();
  }

  async #run(d: Delivery): Promise<void> {
    d.started = true;
    let failed = false;
    try {
      await this.#worker(d);
    } catch (error) {
      failed = true;
      this.#link.warn(
        `a worker of the consumer ${this.name} failed at message ${d.id}, attempt ${d.attempt}:`,
        error,
      );
    }
    this.#running--;
    if (!d.settled && this.state !== "ended") {
      this.#say(d, failed ? "nack" : "ack").catch((error) => {
        if (!this.emit("unsettled", { message: d, error })) this.#link.warn(`message ${d.id}:`, error);
      });
    }
    this.#work();
  }

  /** Queues what is said of a delivery. */
  #say: Say = (d, kind, delay, reason) => {
    const done = deferred();
    if (d.settled || this.state === "ended") {
      done.reject(
        d.settled ? new TidewireError("settled", "the message is settled already") : closed("consumer"),
      );
      return done.promise;
    }
    const place = d.position;
    const forget = () => this.#live.get(place) === d && this.#live.delete(place);
    if (kind !== "extend") {
      d.settled = true;
      if (kind === "nack") forget();
      else done.promise.then(forget, forget);
    }
    this.#settlements.add({ ...d.key_, kind, delay, reason, done });
    this.#flush();
    return done.promise;
  };

  /** Sends what was said, all that is said in this turn in one frame. */
  #flush(): void {
    if (this.#flushing) return;
    this.#flushing = true;
    queueMicrotask(() => {
      this.#flushing = false;
      if (this.sub && this.state === "live")
        for (const f of this.#settlements.frames(this.sub)) this.#link.send(f);
    });
  }

  /** Keeps what waits or is worked on from being delivered again. */
  #keep(): void {
    const { extend = true, settings } = this.#options;
    if (!extend || this.#keeper || !this.#live.size) return;
    this.#keeper = setInterval(
      () => {
        const open = [...this.#live.values()].filter((d) => !d.settled);
        if (!open.length) this.#rest();
        for (const d of open) this.#say(d, "extend");
      },
      (settings?.ackWaitMs ?? 30_000) / 3,
    );
  }

  #rest(): void {
    clearInterval(this.#keeper);
    this.#keeper = undefined;
  }

  /** Ends a consumer that was closed, when nothing is left to be done. */
  #check(): void {
    if (this.#draining && !this.#running && this.#settlements.empty) this.end();
  }

  end(error?: Error): void {
    if (this.state === "ended") return;
    this.#link.forget(this);
    this.#enter("ended");
    this.#queue = [];
    this.#rest();
    const why = error ?? closed("consumer");
    this.#settlements.end(why);
    for (const s of this.#owed.values()) s.done.reject(why);
    this.#ready.reject(why);
    if (error) this.#done.reject(error);
    else this.#done.resolve();
    if (error) this.#link.warn(`the consumer ${this.name} has ended:`, error);
  }

  close(): Promise<void> {
    this.#draining = true;
    this.#check();
    return this.#done.promise;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
