// biome-ignore lint/suspicious/noExplicitAny: the interfaces in types.ts say which event has which value
type Listener = (value: any) => void;

/** Tells listeners of events. */
export class Emitter {
  #listeners = new Map<string, Set<Listener>>();

  on(event: string, listener: Listener): () => void {
    const all = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, all.add(listener));
    return () => all.delete(listener);
  }

  /** Calls the listeners, and reports whether there are any. One that throws harms nobody else. */
  emit(event: string, value?: unknown): boolean {
    const all = [...(this.#listeners.get(event) ?? [])];
    for (const listener of all) {
      try {
        listener(value);
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
  d.promise = new Promise((resolve, reject) => Object.assign(d, { resolve, reject }));
  d.promise.catch(() => {});
  return d;
}
