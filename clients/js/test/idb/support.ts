import { IDBFactory } from "fake-indexeddb";
import "fake-indexeddb/auto";
import { afterEach, beforeEach, vi } from "vitest";
import { openStore, type Store, type StoreOptions } from "../../src/idb/index.js";
import type { Client, Handler, Message, SubscribeOptions, Subscription } from "../../src/index.js";

/** Locks as a browser has them, for all pages of a test; `die` is what happens to those of a page that is gone. */
export class FakeLocks {
  #held = new Map<string, { end: () => void }>();
  #queue: { name: string; begin: () => void }[] = [];

  request = async (
    name: string,
    options: LockOptions,
    work: (lock: unknown) => unknown,
  ): Promise<unknown> => {
    if (this.#held.has(name)) {
      if (options.ifAvailable) return work(null);
      await new Promise<void>((begin, reject) => {
        this.#queue.push({ name, begin });
        options.signal?.addEventListener("abort", () => reject(options.signal?.reason));
      });
    }
    options.signal?.throwIfAborted();
    const died = new Promise<void>((end) => this.#held.set(name, { end }));
    try {
      return await Promise.race([died, work({ name })]);
    } finally {
      this.#held.delete(name);
      const next = this.#queue.findIndex((waiting) => waiting.name === name);
      if (next >= 0) this.#queue.splice(next, 1)[0]?.begin();
    }
  };

  get names(): string[] {
    return [...this.#held.keys()];
  }

  /** Takes all locks away, as if their pages were gone. */
  die(): void {
    for (const { end } of this.#held.values()) end();
  }
}

export let locks: FakeLocks;
export let warnings: string[];

/** Gives each test databases, locks and a console of its own. */
export function fresh(): void {
  beforeEach(() => {
    globalThis.indexedDB = new IDBFactory();
    locks = new FakeLocks();
    warnings = [];
    vi.stubGlobal("navigator", { locks });
    vi.spyOn(console, "warn").mockImplementation((text: string) => void warnings.push(text));
  });
  afterEach(() => {
    vi.unstubAllGlobals();
    vi.restoreAllMocks();
  });
}

/** A store with the object store `orders`. */
export function shop(options: StoreOptions = {}): Promise<Store> {
  return openStore("shop", {
    upgrade: (db) => db.createObjectStore("orders", { autoIncrement: true }),
    ...options,
  });
}

/** What is in the object store `orders`, in the order of its keys. */
export async function orders(store: Store): Promise<number[]> {
  return read(store, "orders");
}

export function read<T>(store: Store, name: string): Promise<T[]> {
  const request = store.db.transaction(name).objectStore(name).getAll();
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** A client whose log is an array of numbers; the position of each is its place. */
export class FakeClient {
  readonly log: number[] = [];
  readonly done = new Promise<void>((close) => {
    this.close = close;
  });
  declare close: () => void;
  /** The subscriptions that are alive. */
  live = new Set<FakeSubscription>();
  /** Where each subscription began. */
  began: string[] = [];

  publish(...numbers: number[]): void {
    this.log.push(...numbers);
    for (const sub of this.live) sub.wake();
  }

  subscribe(filter: string, handler: Handler, options: SubscribeOptions): Subscription {
    const sub = new FakeSubscription(this, filter, handler, options);
    this.live.add(sub);
    return sub as unknown as Subscription;
  }

  get client(): Client {
    return this as unknown as Client;
  }
}

export class FakeSubscription {
  position = "";
  ready: Promise<void>;
  done: Promise<void>;
  wake = () => {};
  end!: (error?: Error) => void;
  #over = false;

  constructor(
    client: FakeClient,
    readonly filter: string,
    handler: Handler,
    options: SubscribeOptions,
  ) {
    this.done = new Promise((resolve, reject) => {
      this.end = (error) => {
        this.#over = true;
        client.live.delete(this);
        this.wake();
        error ? reject(error) : resolve();
      };
    });
    this.ready = this.#run(client, handler, options).ready;
  }

  #run(client: FakeClient, handler: Handler, options: SubscribeOptions) {
    let confirm = () => {};
    const ready = new Promise<void>((resolve) => {
      confirm = resolve;
    });
    const run = async () => {
      const kept =
        (await options.store?.load()) ?? (options.from === "earliest" ? "p0" : `p${client.log.length}`);
      client.began.push(kept);
      let saved = (this.position = kept);
      confirm();
      await ready;
      while (!this.#over) {
        const at = Number(this.position.slice(1));
        if (at < client.log.length) {
          await handler(message(client.log[at] ?? 0, `p${at + 1}`));
          this.position = `p${at + 1}`;
        } else {
          if (saved !== this.position) options.store?.save((saved = this.position));
          await new Promise<void>((wake) => {
            this.wake = wake;
          });
        }
      }
    };
    run().catch(this.end);
    return { ready };
  }

  on(): () => void {
    return () => {};
  }

  async close(): Promise<void> {
    this.end();
  }
}

function message(number: number, position: string): Message {
  return { position, data: number } as unknown as Message;
}
