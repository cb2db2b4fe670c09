import { FENCED } from "./apply.js";
import { exclusive, onPage } from "./locks.js";
import { Session } from "./session.js";
/** How long somebody waits before going on from where another one is. */
const rest = 1_000;
/**
 * Has a session for as long as this page has the lock of the name. A lock alone would not do: one
 * that was stolen, or a browser without locks, leaves two pages at work. So each transaction checks
 * the position as well, and who has lost begins a new session from where the other one is.
 */
export class Processing {
    name;
    done;
    state = "waiting";
    #database;
    #job = { position: undefined };
    #listeners = new Set();
    /** Aborted when everything is over. */
    #end = new AbortController();
    #error;
    #session;
    /** Gives the lock back without waiting for the transaction that is under way. */
    #release = () => { };
    #hidden = false;
    #show = () => { };
    constructor(database, client, filter, options, handler) {
        const { name, stores, signal } = options;
        this.name = name;
        this.#database = database;
        const close = () => this.#finish();
        client.done.then(close, (error) => this.#finish(error));
        signal?.addEventListener("abort", close, { signal: this.#end.signal });
        if (signal?.aborted)
            close();
        onPage(() => this.#hide(), () => this.#shown(), this.#end.signal);
        const subscribe = (handle, store) => {
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
    get position() {
        return this.#job.position ?? "";
    }
    on(event, listener) {
        const entry = [event, listener];
        this.#listeners.add(entry);
        return () => this.#listeners.delete(entry);
    }
    async close() {
        this.#finish();
        await this.done.catch(() => { });
    }
    [Symbol.asyncDispose]() {
        return this.close();
    }
    async #run(work) {
        const { signal } = this.#end;
        while (!signal.aborted) {
            this.#enter("waiting");
            try {
                // In the back-forward cache nothing runs: another tab may take over.
                if (this.#hidden) {
                    await new Promise((show) => {
                        this.#show = show;
                    });
                }
                await exclusive(this.#database, `process ${this.name}`, { signal }, () => Promise.race([
                    work(),
                    new Promise((release) => {
                        this.#release = release;
                    }),
                ]));
            }
            catch (error) {
                if (error === FENCED)
                    await new Promise((resolve) => setTimeout(resolve, rest));
                else if (!signal.aborted)
                    this.#finish(error);
            }
        }
        this.#enter("ended");
        if (this.#error)
            throw this.#error;
    }
    #finish(error) {
        this.#error ??= error;
        this.#end.abort();
        this.#session?.leave();
        this.#show();
    }
    #hide() {
        this.#hidden = true;
        this.#session?.leave();
        this.#release();
    }
    #shown() {
        this.#hidden = false;
        this.#show();
    }
    #emit(event, value) {
        let heard = false;
        for (const [of, listener] of [...this.#listeners]) {
            if (of !== event)
                continue;
            heard = true;
            listener(value);
        }
        return heard;
    }
    #enter(state) {
        if (this.state === state)
            return;
        this.state = state;
        this.#emit("state", state);
    }
}
