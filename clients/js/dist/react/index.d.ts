/**
 * Tidewire in React components, from version 18 on: `TidewireProvider`,
 * `useSubscription`, `usePublish`, `useConnection` and `useClient`.
 *
 * @module
 */
import { type ReactElement, type ReactNode } from "react";
import type { Client, Data, Gap, Handler, Message, Published, PublishOptions, State, SubscribeOptions, SubscriptionState } from "../types.js";
/**
 * Gives a client to the components below. The client stays yours: make it once,
 * outside of components, and close it if you want to. On a server give `undefined`;
 * the hooks then do nothing.
 */
export declare function TidewireProvider(props: {
    client: Client | undefined;
    children?: ReactNode;
}): ReactElement;
/** The client of the provider. */
export declare function useClient(): Client;
/** What `useConnection` gives. */
export interface Connection {
    readonly state: State;
    /** Why the last connection was lost, or the last attempt failed; undefined once it is open. */
    readonly error: Error | undefined;
}
/** Where the connection is. */
export declare function useConnection(): Connection;
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
export declare function useSubscription<T>(filter: Filter, options: ReduceOptions<T>): SubscribedValue<T>;
export declare function useSubscription(filter: Filter, options?: MessagesOptions): SubscribedMessages;
export declare function useSubscription(filter: Filter, handler: Handler, options?: SubscribeOptions): Subscribed;
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
export declare function usePublish(): Publisher;
