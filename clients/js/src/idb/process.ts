import type { Client } from "../index.js";
import { FENCED } from "./apply.js";
import type { Database } from "./database.js";
import { exclusive, onPage } from "./locks.js";
import { Session, type Subscribe } from "./session.js";
import type { ProcessEvents, ProcessHandler, ProcessOptions, Processing as Public } from "./types.js";

/** How long somebody waits before going on from where another one is. */
const rest = 1_000;

/**
 * Has a session for as long as this page has the lock of the name. A lock alone would not do: one
 * that was stolen, or a browser without locks, leaves two pages at work. So each transaction checks
 * the position as well, and who has lost begins a new session from where the other one is.
 */
export class Processing implements Public {
  readonly name: string;
  readonly done: Promise<void>;
  state: ProcessEvents["state"] = "waiting";
  #database: Database;
  #job: { position: string | undefined } = { position: undefined };
  #listeners = new Set<[keyof ProcessEvents, (value: never) => void]>();
  /** Aborted when everything is over. */
  #end = new AbortController();
  #error: unknown;
  #session: Session | undefined;
  /** Gives the lock back without waiting for the transaction that is under way. */
  #release = () => {};
  #hidden = false;
  #show = () => {};

  constructor(
    database: Database,
    client: Client,
    filter: string,
    options: ProcessOptions,
    handler: ProcessHandler,
  ) {
    const { name, stores, signal } = options;
    this.name = name;
    this.#database = database;
    const close = () => this.#finish();
    client.done.then(close, (error) => this.#finish(error));
    signal?.addEventListener("abort", close, { signal: this.#end.signal });
    if (signal?.aborted) close();
    onPage(
      () => this.#hide(),
      () => this.#shown(),
      this.#end.signal,
    );
    const subscribe: Subscribe = (handle, store) => {
      const sub = client.subscribe(filter, handle, { ...options, store, signal: undefined });
      sub.on("state", (state) => state !== "ended" && this.#enter(state));
      sub.on("caughtup", () => this.#emit("caughtup", undefined));
      sub.on("gap", (gap) => {
        if (!this.#emit("gap", gap)) {
          database.warn(`messages of ${filter} are gone (${gap.reason}): listen to "gap" to be told`);
        }
      });
      return sub;
    };
    // Each session has a job of its own: the last one may be in its last transaction still.
    const work = () => {
      const job = { database, name, stores: [stores].flat(), handler, position: undefined, taken: 0 };
      this.#job = job;
      this.#session = new Session(job);
      return this.#session.run(subscribe);
    };
    this.done = this.#run(work);
    this.done.catch((error) => database.warn(`the processing ${name} has ended: ${error}`));
  }

  get position(): string {
    return this.#job.position ?? "";
  }

  on<K extends keyof ProcessEvents>(event: K, listener: (value: ProcessEvents[K]) => void): () => void {
    const entry: [K, typeof listener] = [event, listener];
    this.#listeners.add(entry);
    return () => this.#listeners.delete(entry);
  }

  async close(): Promise<void> {
    this.#finish();
    await this.done.catch(() => {});
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #run(work: () => Promise<void>): Promise<void> {
    const { signal } = this.#end;
    while (!signal.aborted) {
      this.#enter("waiting");
      try {
        // In the back-forward cache nothing runs: another tab may take over.
        if (this.#hidden) {
          await new Promise<void>((show) => {
            this.#show = show;
          });
        }
        await exclusive(this.#database, `process ${this.name}`, { signal }, () =>
          Promise.race([
            work(),
            new Promise<void>((release) => {
              this.#release = release;
            }),
          ]),
        );
      } catch (error) {
        if (error === FENCED) await new Promise((resolve) => setTimeout(resolve, rest));
        else if (!signal.aborted) this.#finish(error);
      }
    }
    this.#enter("ended");
    if (this.#error) throw this.#error;
  }

  #finish(error?: unknown): void {
    this.#error ??= error;
    this.#end.abort();
    this.#session?.leave();
    this.#show();
  }

  #hide(): void {
    this.#hidden = true;
    this.#session?.leave();
    this.#release();
  }

  #shown(): void {
    this.#hidden = false;
    this.#show();
  }

  #emit<K extends keyof ProcessEvents>(event: K, value: ProcessEvents[K]): boolean {
    let heard = false;
    for (const [of, listener] of [...this.#listeners]) {
      if (of !== event) continue;
      heard = true;
      (listener as (value: ProcessEvents[K]) => void)(value);
    }
    return heard;
  }

  #enter(state: ProcessEvents["state"]): void {
    if (this.state === state) return;
    this.state = state;
    this.#emit("state", state);
  }
}
