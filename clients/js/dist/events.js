import { closed } from "./errors.js";
/** Tells listeners of events. */
export class Emitter {
    #listeners = new Map();
    on(event, listener) {
        const all = this.#listeners.get(event) ?? new Set();
        this.#listeners.set(event, all.add(listener));
        return () => all.delete(listener);
    }
    /** Calls the listeners, and reports whether there are any. One that throws harms nobody else. */
    emit(event, value) {
        const all = [...(this.#listeners.get(event) ?? [])];
        for (const listener of all) {
            try {
                listener(value);
            }
            catch (error) {
                console.error(error);
            }
        }
        return all.length > 0;
    }
}
export function deferred() {
    const d = {};
    d.promise = new Promise((resolve, reject) => Object.assign(d, { resolve, reject }));
    d.promise.catch(() => { });
    return d;
}
/** Something that begins later, and lasts until it is closed or fails. */
export class Lasting extends Emitter {
    #ready = deferred();
    #done = deferred();
    ready = this.#ready.promise;
    done = this.#done.promise;
    begun() {
        this.#ready.resolve();
    }
    /** `title` is what it is called in sentences. */
    over(title, error) {
        this.#ready.reject(error ?? closed(title));
        if (error)
            this.#done.reject(error);
        else
            this.#done.resolve();
    }
    [Symbol.asyncDispose]() {
        return this.close();
    }
}
/** Acts when a signal is aborted, or is already, unless it is over by then. */
export function onAbort(signal, over, act) {
    const off = () => signal?.removeEventListener("abort", act);
    signal?.addEventListener("abort", act);
    over.then(off, off);
    if (signal?.aborted)
        queueMicrotask(act);
}
