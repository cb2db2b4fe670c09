import type {
  Client,
  Message,
  OutboxStore,
  PositionStore,
  SubscribeOptions,
  SubscriptionEvents,
  SubscriptionState,
} from "../index.js";

/** How a database is opened. */
export interface StoreOptions {
  /** Version of the app's own schema. Default: 1. Raise it when `upgrade` has to do something new. */
  version?: number | undefined;
  /**
   * Makes or changes the app's object stores; called as IndexedDB's `upgradeneeded` is, with the
   * version that is there (0: none). It may return a promise of requests of `tx`. Leave alone what
   * begins with `tidewire.`.
   */
  upgrade?(db: IDBDatabase, oldVersion: number, tx: IDBTransaction): unknown;
  /** False: nothing is written to the console. Default: true; each thing that goes wrong is said there once. */
  log?: boolean | undefined;
}

/** The app's IndexedDB database, with what the client keeps in it. */
export interface Store extends AsyncDisposable {
  /**
   * The connection to the database. It is another one after the database was deleted or closed by
   * the browser, so take it from here each time.
   */
  readonly db: IDBDatabase;
  /**
   * Keeps what is published and not yet answered: `connect(url, { outbox: { store: store.outbox } })`.
   * A page that is loaded later sends what pages that are gone have left behind, in their order and
   * with the same ids, so that nothing is stored twice.
   */
  readonly outbox: OutboxStore;
  /**
   * Resolves when everything that was published until now is in the database, which takes a few
   * milliseconds; what a page had published shortly before it died is lost else. It gives false if
   * the browser could not keep it, for want of room for instance.
   */
  kept(): Promise<boolean>;
  /**
   * Keeps the position of a subscription: `subscribe(filter, handler, { store: store.position("chat") })`.
   * Handlers run before their position is kept: after a crash the last messages come again. Where
   * that must not be, use `process`.
   */
  position(name: string): PositionStore;
  /**
   * Subscribes, and applies each message exactly once: what `handler` writes through `tx`, and the
   * position of the message, are one transaction of IndexedDB. After a reload, a crash or a take-over
   * by another tab it goes on behind the last message whose writes are in the database.
   *
   * Tabs that process the same name take turns: one works, the others wait until it is gone.
   */
  process(client: Client, filter: string, options: ProcessOptions, handler: ProcessHandler): Processing;
  /** Closes the connection to the database. Close what uses it before. */
  close(): Promise<void>;
}

/** What `process` takes: how to subscribe, and where the effects go. */
export interface ProcessOptions extends Omit<SubscribeOptions, "store"> {
  /** Names the position in the database, and who takes turns. With another filter use another name. */
  name: string;
  /** The app's object stores that the handler works on. */
  stores: string | string[];
}

/**
 * Applies a message, by requests of `tx` alone. It throws, or its requests fail: everything that
 * it wrote is undone, the position stays before the message, and the processing ends with that error.
 *
 * It may return a promise, but must await nothing but requests of `tx`: a transaction takes requests
 * only while one of its own requests is being answered, so after `await fetch(...)` it refuses
 * everything, which ends the processing with the code `transaction_over`. Do such things before
 * publishing, or write down what is to be done and do it elsewhere.
 *
 * What it returns tells when it is done with the message. After a promise (any `async` function), or
 * the last request that it made, the next message may share the transaction, which is many times
 * faster when many are waiting. A handler that returns neither gets a transaction for each message.
 *
 * It may be called again for a message whose transaction did not come about. So it should do
 * nothing but requests of `tx`.
 */
export type ProcessHandler = (tx: IDBTransaction, m: Message) => unknown;

/** Messages on their way into the database. */
export interface Processing extends AsyncDisposable {
  readonly name: string;
  /** That of the subscription, or `waiting`: for another tab to be gone, or for this page to be shown again. */
  readonly state: SubscriptionState | "waiting";
  /** Behind the last message whose writes are in the database; empty if there is none. */
  readonly position: string;
  /** Resolves when it was closed, or its client was; rejects with why it has ended otherwise. */
  readonly done: Promise<void>;
  /** Listens; the function that it returns ends that. */
  on<K extends keyof ProcessEvents>(event: K, listener: (value: ProcessEvents[K]) => void): () => void;
  /** Ends it, after the transaction that is under way. */
  close(): Promise<void>;
}

/** What a processing tells: what its subscription does, and its own state. */
export interface ProcessEvents extends Omit<SubscriptionEvents, "state"> {
  state: SubscriptionState | "waiting";
}
