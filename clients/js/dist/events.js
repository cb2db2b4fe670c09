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
