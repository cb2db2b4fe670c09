import { withNextFrame } from "./frame.js";
/** What of a request begins another subscription when it changes: values, and not the identity of objects and functions. */
export function keyOf(r) {
    const { from, stream, credit, slow, conflateMs, echo } = r.options;
    return JSON.stringify([r.form, r.filter || null, r.keep, from, stream, credit, slow, conflateMs, echo]);
}
const none = [];
/**
 * A subscription as a store that a component listens to. It subscribes with the
 * first listener, and closes the subscription when nobody has listened for a
 * moment: StrictMode takes the listener away and gives it back at once, and that
 * must neither lose a message nor bring one twice. Who listens again later (a
 * hidden part of the page that is shown again) goes on from the position.
 */
export class Feed {
    client;
    key;
    /** The newest request; its functions are called, not those of the render that subscribed. */
    #request;
    #listeners = new Set();
    #started = false;
    #sub;
    #gapListened = false;
    /** Somebody has looked at the gap. As long as nobody has, the client says gaps in the console. */
    #gapSeen = false;
    /** Where an earlier subscription has ended. */
    #position = "";
    /** Resolves when the handler that runs has returned. */
    #busy;
    /** Messages that came since the last snapshot. */
    #fresh = [];
    #messages = none;
    #last;
    #value;
    #state;
    #error;
    #gap;
    #snapshot;
    #initial;
    constructor(client, key, request) {
        this.client = client;
        this.key = key;
        this.#request = request;
        this.#value = request.initial;
        this.#state = request.filter ? "asking" : "off";
        this.#snapshot = this.#take();
        this.#initial = this.#snapshot;
    }
    current = () => this.#snapshot;
    /** What the server shows, and the browser before it has subscribed. */
    initial = () => this.#initial;
    listen = (listener) => {
        this.#listeners.add(listener);
        this.#start();
        return () => {
            this.#listeners.delete(listener);
            queueMicrotask(() => {
                if (this.#listeners.size === 0)
                    this.#stop();
            });
        };
    };
    /** Takes over the functions of the newest render, after it was committed. */
    renew(request) {
        this.#request = request;
        this.#listenToGaps();
    }
    #start() {
        if (this.#started || !this.client || !this.#request.filter)
            return;
        this.#started = true;
        if (this.#busy)
            this.#busy.then(() => this.#started && this.#subscribe());
        else
            this.#subscribe();
    }
    #stop() {
        this.#started = false;
        const sub = this.#sub;
        if (!sub)
            return;
        this.#sub = undefined;
        this.#gapListened = false;
        this.#position = sub.position || this.#position;
        sub.close().catch(() => { });
    }
    #subscribe() {
        const { filter, options } = this.#request;
        if (this.#sub || !this.client || !filter)
            return;
        this.#set({ state: "asking", error: undefined });
        let sub;
        try {
            sub = this.client.subscribe(filter, (m) => this.#handle(m), this.#resumed(options));
        }
        catch (err) {
            this.#set({ state: "ended", error: err });
            return;
        }
        this.#sub = sub;
        const mine = (change) => this.#sub === sub && this.#set(change);
        sub.on("state", (state) => mine({ state }));
        sub.ready.catch(() => { }); // done says it, too
        sub.done.then(() => mine({ state: "ended" }), (error) => mine({ state: "ended", error }));
        this.#listenToGaps();
    }
    /** The options, so that an earlier subscription of this feed is gone on with. */
    #resumed(options) {
        const resumed = { ...options, from: this.#position || options.from };
        if (options.store) {
            resumed.store = {
                load: () => this.#position || this.#request.options.store?.load(),
                save: (position) => this.#request.options.store?.save(position),
            };
        }
        return resumed;
    }
    #listenToGaps() {
        if (!this.#sub || !this.#gapSeen || this.#gapListened)
            return;
        this.#gapListened = true;
        this.#sub.on("gap", (gap) => {
            this.#gap = gap;
            this.#show();
        });
    }
    #handle(m) {
        const { form, handler, reduce, keep } = this.#request;
        if (form === "handler")
            return this.#watch(m, handler?.(m));
        this.#last = m;
        if (form === "reduce") {
            this.#value = reduce(this.#value, m);
        }
        else if (this.#fresh.push(m) > 2 * keep) {
            this.#fresh = newest(this.#fresh, keep); // a hidden page shows nothing for long
        }
        this.#show();
        return undefined;
    }
    /** Remembers a handler that runs: when it outlives its subscription the next one waits for it, and begins behind its message. */
    #watch(m, returned) {
        if (typeof returned?.then !== "function")
            return returned;
        const sub = this.#sub;
        const busy = Promise.resolve(returned).then(() => {
            if (this.#sub !== sub)
                this.#position = m.position || this.#position;
        }, () => { });
        this.#busy = busy.then(() => {
            this.#busy = undefined;
        });
        return returned;
    }
    #set(change) {
        this.#state = change.state;
        if ("error" in change)
            this.#error = change.error;
        this.#show();
    }
    #show() {
        withNextFrame(this.#renew);
    }
    #renew = () => {
        this.#snapshot = this.#take();
        for (const listener of this.#listeners)
            listener();
    };
    #take() {
        if (this.#fresh.length > 0) {
            this.#messages = newest([...this.#messages, ...this.#fresh], this.#request.keep);
            this.#fresh = [];
        }
        const gap = this.#gap;
        const looked = () => {
            this.#gapSeen = true;
        };
        return {
            messages: this.#messages,
            last: this.#last,
            value: this.#value,
            state: this.#state,
            error: this.#error,
            get gap() {
                looked();
                return gap;
            },
        };
    }
}
/** The last ones; `slice(-0)` would be all. */
function newest(messages, keep) {
    return messages.slice(Math.max(0, messages.length - keep));
}
