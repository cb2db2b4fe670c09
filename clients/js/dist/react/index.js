"use client";
/**
 * Tidewire in React components, from version 18 on: `TidewireProvider`,
 * `useSubscription`, `usePublish`, `useConnection` and `useClient`.
 *
 * @module
 */
import { createContext, createElement, useCallback, useContext, useInsertionEffect, useState, useSyncExternalStore, } from "react";
import { Feed, keyOf } from "./feed.js";
/** Null without a provider; undefined with one that has no client, as on a server. */
const Context = createContext(null);
/**
 * Gives a client to the components below. The client stays yours: make it once,
 * outside of components, and close it if you want to. On a server give `undefined`;
 * the hooks then do nothing.
 */
export function TidewireProvider(props) {
    return createElement(Context.Provider, { value: props.client }, props.children);
}
function useProvided() {
    const client = useContext(Context);
    if (client === null)
        throw new Error("there is no client here: put <TidewireProvider client={...}> around the component");
    return client;
}
/** The client of the provider. */
export function useClient() {
    const client = useProvided();
    if (!client)
        throw new Error("the provider has no client, as on a server: call useClient in the browser alone");
    return client;
}
const before = { state: "connecting", error: undefined };
/** Where the connection is. */
export function useConnection() {
    const client = useProvided();
    const [store, setStore] = useState(() => connectionOf(client));
    let current = store;
    if (store.client !== client) {
        current = connectionOf(client);
        setStore(current);
    }
    return useSyncExternalStore(current.listen, current.current, () => before);
}
function connectionOf(client) {
    let now = client ? { state: client.state, error: undefined } : before;
    return {
        client,
        current: () => {
            if (client && client.state !== now.state)
                now = { state: client.state, error: undefined };
            return now;
        },
        listen: (listener) => {
            if (!client)
                return () => { };
            return client.on("state", (change) => {
                now = change;
                listener();
            });
        },
    };
}
export function useSubscription(filter, second, third) {
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
    return useSyncExternalStore(current.listen, current.current, current.initial);
}
function requestOf(filter, second, third) {
    if (typeof second === "function")
        return { form: "handler", filter, handler: second, options: third ?? {}, keep: 0 };
    if (second && "reduce" in second) {
        const { reduce, initial, ...options } = second;
        return { form: "reduce", filter, reduce, initial, options, keep: 0 };
    }
    const { keep = 100, ...options } = second ?? {};
    return { form: "list", filter, options, keep };
}
/** Publishes, and says how it went. A component that looks at `error` need not catch what `publish` rejects with. */
export function usePublish() {
    const client = useProvided();
    const [{ running, error }, set] = useState(idle);
    const [seen] = useState({ error: false });
    const publish = useCallback(async (topic, data, options) => {
        if (!client)
            throw new Error("the provider has no client, as on a server: publish in the browser alone");
        set((s) => ({ running: s.running + 1, error: undefined }));
        try {
            const published = await client.publish(topic, data, options);
            set((s) => ({ ...s, running: s.running - 1 }));
            return published;
        }
        catch (err) {
            set((s) => ({ running: s.running - 1, error: err }));
            throw err;
        }
    }, [client]);
    const quiet = useCallback((topic, data, options) => {
        const answer = publish(topic, data, options);
        if (seen.error)
            answer.catch(() => { });
        return answer;
    }, [publish, seen]);
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
