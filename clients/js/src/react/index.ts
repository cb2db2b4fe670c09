"use client";

/**
 * Tidewire in React components, from version 18 on: `TidewireProvider`,
 * `useSubscription`, `usePublish`, `useConnection` and `useClient`.
 *
 * @module
 */

import {
  createContext,
  createElement,
  type ReactElement,
  type ReactNode,
  useCallback,
  useContext,
  useInsertionEffect,
  useState,
  useSyncExternalStore,
} from "react";
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
  SubscriptionState,
} from "../types.js";
import { Feed, keyOf, type Request } from "./feed.js";

/** Null without a provider; undefined with one that has no client, as on a server. */
const Context = createContext<Client | undefined | null>(null);

/**
 * Gives a client to the components below. The client stays yours: make it once,
 * outside of components, and close it if you want to. On a server give `undefined`;
 * the hooks then do nothing.
 */
export function TidewireProvider(props: { client: Client | undefined; children?: ReactNode }): ReactElement {
  return createElement(Context.Provider, { value: props.client }, props.children);
}

function useProvided(): Client | undefined {
  const client = useContext(Context);
  if (client === null)
    throw new Error("there is no client here: put <TidewireProvider client={...}> around the component");
  return client;
}

/** The client of the provider. */
export function useClient(): Client {
  const client = useProvided();
  if (!client)
    throw new Error("the provider has no client, as on a server: call useClient in the browser alone");
  return client;
}

/** What `useConnection` gives. */
export interface Connection {
  readonly state: State;
  /** Why the last connection was lost, or the last attempt failed; undefined once it is open. */
  readonly error: Error | undefined;
}

const before: Connection = { state: "connecting", error: undefined };

/** Where the connection is. */
export function useConnection(): Connection {
  const client = useProvided();
  const [store, setStore] = useState(() => connectionOf(client));
  let current = store;
  if (store.client !== client) {
    current = connectionOf(client);
    setStore(current);
  }
  return useSyncExternalStore(current.listen, current.current, () => before);
}

function connectionOf(client: Client | undefined) {
  let now: Connection = client ? { state: client.state, error: undefined } : before;
  return {
    client,
    current: (): Connection => {
      if (client && client.state !== now.state) now = { state: client.state, error: undefined };
      return now;
    },
    listen: (listener: () => void): (() => void) => {
      if (!client) return () => {};
      return client.on("state", (change) => {
        now = change;
        listener();
      });
    },
  };
}

/** What to subscribe to; nothing as long as it is null, undefined, false or empty. */
export type Filter = string | null | undefined | false;

/** What every form of `useSubscription` gives. */
export interface Subscribed {
  /** That of the subscription; `off` as long as there is no filter. */
  readonly state: SubscriptionState | "off";
  /** Messages that are gone, the last time that happened. Whoever does not look at it finds it in the console. */
  readonly gap: Gap | undefined;
  /** Why the subscription has ended. Another filter, other options, or another `key` of the component begin a new one. */
  readonly error: Error | undefined;
}

/** What `useSubscription` gives. */
export interface SubscribedMessages extends Subscribed {
  /** The newest messages, oldest first. */
  readonly messages: readonly Message[];
  readonly last: Message | undefined;
}

/** What `useSubscription` gives with `reduce`. */
export interface SubscribedValue<T> extends Subscribed {
  readonly value: T;
  readonly last: Message | undefined;
}

/** What `useSubscription` takes besides the filter. It is compared by value; other functions and objects are taken over without a new subscription. */
export interface MessagesOptions extends SubscribeOptions {
  /** How many messages are held. Default: 100. */
  keep?: number | undefined;
}

/** With these, `useSubscription` makes one value of all messages. */
export interface ReduceOptions<T> extends SubscribeOptions {
  /** Called once for each message, in order, outside of rendering. It gives a new value and leaves the old one as it is. */
  reduce: (value: T, m: Message) => T;
  initial: T;
}

/**
 * Subscribes as long as the component is there. The component is rendered at most
 * once for each frame that the browser paints, however many messages come.
 *
 * ```js
 * const { messages, gap, error } = useSubscription("chat.>", { from: "last:20" });
 * const { value } = useSubscription("votes.*", { from: "earliest", initial: 0, reduce: (n) => n + 1 });
 * useSubscription("alerts.>", (m) => toast(m.text())); // renders nothing for a message
 * ```
 */
export function useSubscription<T>(filter: Filter, options: ReduceOptions<T>): SubscribedValue<T>;
export function useSubscription(filter: Filter, options?: MessagesOptions): SubscribedMessages;
export function useSubscription(filter: Filter, handler: Handler, options?: SubscribeOptions): Subscribed;
export function useSubscription(
  filter: Filter,
  second?: Handler | MessagesOptions | ReduceOptions<unknown>,
  third?: SubscribeOptions,
): Subscribed {
  const client = useProvided();
  const request = requestOf(filter, second, third);
  const key = keyOf(request);
  const [feed, setFeed] = useState(() => new Feed(client, key, request));
  let current = feed;
  if (feed.key !== key || feed.client !== client) {
    current = new Feed(client, key, request);
    setFeed(current);
  }
  useInsertionEffect(() => current.renew(request));
  return useSyncExternalStore(current.listen, current.current, current.initial) as unknown as Subscribed;
}

function requestOf(
  filter: Filter,
  second: Handler | MessagesOptions | ReduceOptions<unknown> | undefined,
  third: SubscribeOptions | undefined,
): Request {
  if (typeof second === "function")
    return { form: "handler", filter, handler: second, options: third ?? {}, keep: 0 };
  if (second && "reduce" in second) {
    const { reduce, initial, ...options } = second;
    return { form: "reduce", filter, reduce, initial, options, keep: 0 };
  }
  const { keep = 100, ...options } = second ?? {};
  return { form: "list", filter, options, keep };
}

/** What `usePublish` gives. */
export interface Publisher {
  /** `publish` of the client. It stays the same function as long as the client does. */
  readonly publish: (topic: string, data: Data, options?: PublishOptions) => Promise<Published>;
  /** Something that was published here is not answered yet. */
  readonly pending: boolean;
  /** What the last one that failed was refused with; undefined again as soon as something is published. */
  readonly error: Error | undefined;
}

/** Publishes, and says how it went. A component that looks at `error` need not catch what `publish` rejects with. */
export function usePublish(): Publisher {
  const client = useProvided();
  const [{ running, error }, set] = useState<{ running: number; error: Error | undefined }>(idle);
  const [seen] = useState({ error: false });
  const publish = useCallback(
    async (topic: string, data: Data, options?: PublishOptions): Promise<Published> => {
      if (!client)
        throw new Error("the provider has no client, as on a server: publish in the browser alone");
      set((s) => ({ running: s.running + 1, error: undefined }));
      try {
        const published = await client.publish(topic, data, options);
        set((s) => ({ ...s, running: s.running - 1 }));
        return published;
      } catch (err) {
        set((s) => ({ running: s.running - 1, error: err as Error }));
        throw err;
      }
    },
    [client],
  );
  const quiet = useCallback<typeof publish>(
    (topic, data, options) => {
      const answer = publish(topic, data, options);
      if (seen.error) answer.catch(() => {});
      return answer;
    },
    [publish, seen],
  );
  return {
    publish: quiet,
    pending: running > 0,
    get error() {
      seen.error = true;
      return error;
    },
  };
}

const idle = { running: 0, error: undefined };
