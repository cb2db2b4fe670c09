import type {
  Client,
  Data,
  Gap,
  Handler,
  Message,
  Published,
  PublishOptions,
  State,
  SubscribeOptions,
  Subscription,
  SubscriptionState,
} from "../../src/types.js";

/** A broker with one log and whole topics or `prefix.>` as filters; positions are `p1`, `p2`, ... */
export class FakeBroker {
  readonly log: Message[] = [];
  readonly subscriptions: FakeSubscription[] = [];

  /** Those that are not closed. */
  get open(): FakeSubscription[] {
    return this.subscriptions.filter((s) => s.state !== "ended");
  }

  send(topic: string, text: string): void {
    const position = `p${this.log.length + 1}`;
    const m = { topic, position, id: position, data: text, text: () => text } as Partial<Message> as Message;
    this.log.push(m);
    for (const s of this.open) s.offer(m);
  }

  /** What is stored after the place that `from` means. */
  after(from: string | undefined): Message[] {
    if (!from || from === "new") return [];
    if (from === "earliest") return this.log;
    return this.log.slice(Number(from.slice(1)));
  }
}

type Listener = (value: never) => void;

/** Events as the client has them. */
class Listeners {
  readonly all = new Map<string, Set<Listener>>();

  on(event: string, listener: Listener): () => void {
    const set = this.all.get(event) ?? new Set();
    this.all.set(event, set.add(listener));
    return () => set.delete(listener);
  }

  emit(event: string, value: unknown): void {
    for (const listener of this.all.get(event) ?? []) listener(value as never);
  }
}

/** A subscription with a handler. It is confirmed a moment after it was made, and then gets what is stored. */
export class FakeSubscription implements Subscription {
  state: SubscriptionState = "asking";
  position = "";
  readonly listeners = new Listeners();
  readonly on: Subscription["on"] = (event, listener) => this.listeners.on(event, listener as Listener);
  readonly ready: Promise<void>;
  readonly done: Promise<void>;
  #end!: { resolve(): void; reject(error: Error): void };
  #queue: Message[] = [];
  #working = false;

  constructor(
    readonly broker: FakeBroker,
    readonly filter: string,
    readonly handler: Handler,
    readonly options: SubscribeOptions,
  ) {
    this.done = new Promise((resolve, reject) => {
      this.#end = { resolve, reject };
    });
    const head = `p${broker.log.length}`;
    this.ready = this.#begin(head);
  }

  async #begin(head: string): Promise<void> {
    const from = (await this.options.store?.load()) || this.options.from;
    if (this.state === "ended") return;
    this.position = from?.startsWith("p") ? from : head;
    const early = this.#queue;
    this.#queue = [];
    for (const m of this.broker.after(from).filter((m) => !early.includes(m))) this.offer(m);
    this.#queue.push(...early);
    this.tell("live");
    void this.#work();
  }

  tell(state: SubscriptionState): void {
    this.state = state;
    this.listeners.emit("state", state);
  }

  gap(gap: Partial<Gap>): void {
    this.listeners.emit("gap", gap);
  }

  offer(m: Message): void {
    const wide = this.filter.endsWith(".>") && m.topic.startsWith(this.filter.slice(0, -1));
    if (m.topic !== this.filter && !wide) return;
    this.#queue.push(m);
    if (this.state === "live") void this.#work();
  }

  async #work(): Promise<void> {
    if (this.#working) return;
    this.#working = true;
    for (let m = this.#queue.shift(); m; m = this.#queue.shift()) {
      try {
        const returned = this.handler(m);
        if (returned instanceof Promise) await returned;
      } catch (error) {
        this.fail(error as Error);
        break;
      }
      if (this.state === "ended") break;
      this.position = m.position;
      void this.options.store?.save(this.position);
    }
    this.#working = false;
  }

  fail(error: Error): void {
    if (this.state === "ended") return;
    this.tell("ended");
    this.#end.reject(error);
  }

  async close(): Promise<void> {
    if (this.state === "ended") return;
    this.tell("ended");
    this.#end.resolve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  [Symbol.asyncIterator](): AsyncIterator<Message> {
    throw new Error("the hooks use handlers");
  }
}

/** A client of the fake broker. Publishing waits until the test answers. */
export class FakeClient implements Client {
  state: State = "connecting";
  readonly listeners = new Listeners();
  readonly on: Client["on"] = (event, listener) => this.listeners.on(event, listener as Listener);
  readonly ready = Promise.resolve();
  readonly done = Promise.resolve();
  readonly published: { topic: string; data: Data; accept(): void; refuse(error: Error): void }[] = [];

  constructor(readonly broker = new FakeBroker()) {}

  tell(state: State, error?: Error): void {
    this.state = state;
    this.listeners.emit("state", { state, error });
  }

  publish(topic: string, data: Data, _options?: PublishOptions): Promise<Published> {
    return new Promise((resolve, reject) => {
      const accept = () => resolve({ id: "1", topic, position: "p1", duplicate: false, stored: true });
      this.published.push({ topic, data, accept, refuse: reject });
    });
  }

  subscribe(filter: string, second?: Handler | SubscribeOptions, third?: SubscribeOptions): Subscription {
    if (filter.endsWith(".")) throw new Error("the filter ends in a dot");
    const sub = new FakeSubscription(this.broker, filter, second as Handler, third ?? {});
    this.broker.subscriptions.push(sub);
    return sub;
  }

  consume(): never {
    throw new Error("the hooks do not consume");
  }

  history(): never {
    throw new Error("the hooks do not read history");
  }

  async close(): Promise<void> {}

  async [Symbol.asyncDispose](): Promise<void> {}
}
