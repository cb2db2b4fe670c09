/** Tells listeners of events. `E` maps the name of an event to its value. */
export class Emitter<E> {
  #listeners = new Map<keyof E, Set<(value: never) => void>>();

  on<K extends keyof E>(event: K, listener: (value: E[K]) => void): () => void {
    let all = this.#listeners.get(event);
    if (!all) this.#listeners.set(event, (all = new Set()));
    all.add(listener);
    return () => all.delete(listener);
  }

  /** Calls the listeners, and reports whether there are any. One that throws is reported and harms nobody. */
  emit<K extends keyof E>(event: K, value: E[K]): boolean {
    const all = [...(this.#listeners.get(event) ?? [])];
    for (const listener of all) {
      try {
        listener(value as never);
      } catch (error) {
        console.error(error);
      }
    }
    return all.length > 0;
  }
}

/** A promise whose rejection nobody needs to handle, and what settles it. */
export interface Deferred<T> {
  promise: Promise<T>;
  resolve: (value: T) => void;
  reject: (error: unknown) => void;
}

export function deferred<T = void>(): Deferred<T> {
  const d = {} as Deferred<T>;
  d.promise = new Promise((resolve, reject) => {
    d.resolve = resolve;
    d.reject = reject;
  });
  d.promise.catch(() => {});
  return d;
}
